"""tools/kernels.py reads what ptxas says, and holds the kernels to tools/spills.py."""

from importlib import import_module as tool  # pytest looks into tools/

import pytest

BLOCK = "_ZN9pydistill12block_kernelINS_4math8FoldLossIfEEEEvlT_"
TILE = "_ZN9pydistill11tile_kernelILi8ENS_4math9SoftmaxKlI6__halfS3_fEEEEvliT0_"


def entry(name, architecture, registers, stores, loads, shared=""):
    return f"""\
ptxas info    : Compiling entry function '{name}' for 'sm_{architecture}'
ptxas info    : Function properties for {name}
    24 bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads
ptxas info    : Used {registers} registers, used 1 barriers{shared}, 448 bytes cmem[0]
ptxas info    : Compile time = 1500.000 ms
"""


def log(*entries, file="softmax_kl"):
    command = f'[2/33] nvcc -DPYDISTILL_CUDA_VERSION=\\"13.0.88\\" -x cu -c /src/csrc/cuda/{file}.cu -o {file}.cu.o\n'
    return command + "ptxas info    : 0 bytes gmem\n" + "".join(entries)


def test_reads_kernels():
    kernels = tool("kernels")
    text = log(entry(BLOCK, 75, 26, 0, 0, ", 96 bytes smem"), entry(TILE, 90, 65, 8, 12))
    fold, softmax = kernels.read(text + log(entry(BLOCK, 90, 32, 0, 0), file="attention_map"))[:2]
    assert fold == kernels.Kernel("softmax_kl", "FoldLoss<float> [block]", "75", 26, 96, 24, 0, 0, 1.5)
    assert softmax == kernels.Kernel("softmax_kl", "SoftmaxKl<half, half, float> [tile 8]", "90", 65, 0, 24, 8, 12, 1.5)
    assert [fold.spill, softmax.spill] == [0, 12]
    assert [fold.blocks, softmax.blocks] == [8, 3]  # registers come in eights: 65536 / (72 * 256)
    assert kernels.read(text + log(entry(BLOCK, 90, 32, 0, 0), file="attention_map"))[2].file == "attention_map"


def test_an_entry_cut_off_is_left_out():
    whole = log(entry(BLOCK, 90, 32, 0, 0), entry(TILE, 90, 64, 0, 0))
    assert len(tool("kernels").read(whole[: whole.rindex("ptxas info    : Used")])) == 1


@pytest.mark.parametrize(
    ("stores", "loads", "rules", "wrong"),
    [
        (0, 0, [], []),
        (8, 12, [], ["SoftmaxKl<half, half, float> [tile 8] spills 12 bytes for sm_90"]),
        (8, 12, [("SoftmaxKl<half", 12)], []),
        (8, 12, [("SoftmaxKl<half", 11)], ["spills 12 bytes"]),
        (16, 12, [("", 40), ("FoldLoss", 100)], []),
        (44, 12, [("", 40), ("FoldLoss", 100)], ["spills 44 bytes"]),
    ],
)
def test_spills_need_a_reason(stores, loads, rules, wrong):
    kernels = tool("kernels")
    allowed = [kernels.Spill(pattern, most, "why") for pattern, most in rules]
    found = kernels.faults(kernels.read(log(entry(TILE, 90, 64, stores, loads))), allowed)
    assert len(found) == len(wrong)
    assert all(expected in fault for expected, fault in zip(wrong, found))


def test_static_shared_memory_is_limited():
    kernels = tool("kernels")
    (fault,) = kernels.faults(
        kernels.read(log(*(entry(BLOCK, 90, 32, 0, 0, f", {n} bytes smem") for n in (2048, 2052))))
    )
    assert fault.startswith("softmax_kl: FoldLoss<float> [block] takes 2052 bytes of static shared memory")
    launch = (kernels.ROOT / "csrc" / "core" / "launch.h").read_text()
    assert f"kSharedBytes = {48 - kernels.STATIC // 1024} * 1024" in launch


def test_reasons_of_a_release_need_a_spill():
    kernels = tool("kernels")
    allowed = [kernels.Spill("", 4, "a few"), kernels.Spill("FoldLoss", 100, "many")]
    everything = [log(*(entry(BLOCK, a, 32, 4, 4) for a in kernels.RELEASE), file=file) for file in kernels.OPS]
    assert kernels.faults(kernels.read("".join(everything[1:])), allowed) == []  # a part of the files says nothing
    assert kernels.faults(kernels.read("".join(everything)), allowed) == ["tools/spills.py: no kernel needs 'FoldLoss'"]
    everything.append(log(entry(BLOCK, 120, 32, 5, 4)))
    assert kernels.faults(kernels.read("".join(everything)), allowed) == []


def test_release_architectures_are_those_of_the_build():
    kernels = tool("kernels")
    line = next(x for x in (kernels.ROOT / "CMakeLists.txt").read_text().splitlines() if "-real" in x and "set(" in x)
    assert tuple(word.strip("()").removesuffix("-real") for word in line.split()[1:8]) == kernels.RELEASE


def test_summary_names_every_spill_and_its_reason(tmp_path, capsys):
    kernels = tool("kernels")
    file, summary = tmp_path / "build.log", tmp_path / "kernels.md"
    file.write_text(log(entry(BLOCK, 90, 32, 0, 0), entry(TILE, 90, 64, 8, 12), entry(TILE, 120, 40, 4, 4)))
    assert kernels.main(["--log", str(file), "--spills", "--markdown", str(summary)]) == 0
    printed = capsys.readouterr().out
    assert "SoftmaxKl<half, half, float> [tile 8]" in printed
    assert "FoldLoss" not in printed
    assert "ptxas: 4 s; softmax_kl 4 s" in printed
    text = summary.read_text()
    assert "nvcc 13.0.88" in text
    assert "| sm_90 | 2 | 32 to 64 (48) | 4 to 8 | 0 | 1 | 12 |" in text
    assert "| softmax_kl | 2 | 32 to 64 | 1 |" in text
    assert "- `SoftmaxKl<half, half, float> [tile 8]`: sm_90 12, sm_120 4" in text
    assert kernels.SPILLS[0].reason in text


def test_a_log_without_kernels_is_an_error(tmp_path, capsys):
    file = tmp_path / "build.log"
    file.write_text("nothing\n")
    with pytest.raises(SystemExit):
        tool("kernels").main(["--log", str(file)])
    assert "was the log written with -Xptxas=-v?" in capsys.readouterr().err
