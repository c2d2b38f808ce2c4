"""The recording that csrc/replay repeats: what it says of memory. tests/cpp repeats one under AddressSanitizer."""

import io
import re

import pytest
import record_launches
import torch
from compiled_calls import watching

from pydistill import _C
from tests.conformance import ON_SHIM


def recorded(op):
    file = io.BytesIO()
    called = record_launches.record(file, [op], 1, [torch.float32])
    return called, file.getvalue()


def test_a_storage_is_fresh_until_it_is_written_and_kept_until_torch_writes_it():
    file = io.BytesIO()
    recording = record_launches.Recording(file)
    recording.begin("here")
    x, threads = torch.ones(1, 2, 3, 4), torch.get_num_threads()
    with watching(recording.call), record_launches.FillsFreshMemory():
        energy = torch.empty(1, 3, 4)
        for _ in range(2):
            _C.cpu.channel_energy(threads, x, 2.0, energy, None)
        x.fill_(2.0)
        _C.cpu.channel_energy(threads, x, 2.0, energy, None)
        assert _C.cpu.soft_iou_tiles(5) > 0  # a size: no launch
    assert recording.called == {"channel_energy"}
    states = re.findall(rb"(before|after) (\d) (?:\d+ )?(\w+)\n", file.getvalue())
    first = [(b"before", b"0", b"given"), (b"before", b"1", b"fresh"), (b"after", b"0", b"kept")]
    again = [(b"before", b"0", b"kept"), (b"before", b"1", b"kept"), (b"after", b"0", b"kept")]
    changed = [(b"before", b"0", b"given"), *again[1:]]
    written, kept = [(b"after", b"1", b"written")], [(b"after", b"1", b"kept")]
    assert states == first + written + again + kept + changed + written
    data = file.getvalue()
    assert (
        b"arguments 4\ntensor 0 0 2 32 4 1 2 3 4 24 12 4 1\nnumber 2.0\ntensor 1 0 2 32 3 1 3 4 12 4 1\nnone\n" in data
    )
    assert b"after 1 written\n" + torch.full((1, 3, 4), 8.0).numpy().tobytes() + b"\n" in data


def test_the_module_is_put_back_and_addresses_are_marked():
    kernels = _C.cpu
    called, data = recorded("response_loss")  # its table of heads holds pointers
    assert _C.cpu is kernels
    assert called == {"response_loss", "response_loss_backward"}
    assert bytes([record_launches.ADDRESS]) * 8 in data
    assert data.startswith(b"pydistill-launches 1\ncase response_loss 0 float32\ncall response_loss\n")


def test_problems_of_several_tensors_move_with_them():
    problem = record_launches.VALID["hungarian_match_all"]
    for seed in range(9):
        made = problem(record_launches.random.Random(seed))["problems"]
        moved = record_launches.on("meta", torch.float16, made)
        for one in moved:
            assert one.logits.is_meta and one.logits.dtype == torch.float16 and one.target_labels.is_meta


@pytest.mark.skipif(torch.cuda.is_available() or ON_SHIM, reason="needs a machine without device code")
def test_a_recording_of_the_cpu_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["record_launches", str(tmp_path / "launches")])
    with pytest.raises(SystemExit):
        record_launches.main()
    assert "expected a GPU, or PYDISTILL_ISA=shim, got neither" in capsys.readouterr().err
