"""The package itself: what importing it costs, what `pydistill info` says, and the tools around the build."""

import inspect
import json
import os
import re
import subprocess
import sys
from importlib import import_module as tool  # pytest looks into tools/
from pathlib import Path

import pytest
import torch

import pydistill
from pydistill import info

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"cv2", "scipy", "matplotlib", "typer", "lightning", "rich", "jinja2", "tensorboard"}


def run_python(code, **env):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env})
    return done.returncode, done.stdout, done.stderr


def without_train_extra(code):
    """`code` with the train extra made impossible to import."""
    return f"import sys; sys.modules.update(dict.fromkeys({sorted(HEAVY)}))\n{code}"


def rows(report):
    """Name to the row's own text and its advice."""
    found, name = {}, None
    for line in report.splitlines():
        head, _, text = line.partition("  ")
        name = head.strip() or name
        found[name] = [*found.get(name, []), text.strip()]
    return found


def test_import_adds_little_to_torch():
    code = "import sys, torch; before = set(sys.modules); import pydistill, pydistill.ops, pydistill.losses\n"
    code += "print(*(set(sys.modules) - before))"
    status, out, err = run_python(code)
    assert status == 0, err
    new = {name.partition(".")[0] for name in out.split()}
    assert not new & HEAVY
    assert len(out.split()) < 150  # 0.3 s would be some thousand


def test_import_works_without_the_train_extra():
    status, out, err = run_python(without_train_extra("import pydistill; print(pydistill.ops, pydistill.losses)"))
    assert status == 0, err
    assert "pydistill.losses" in out


@pytest.mark.parametrize("name", ["adapters", "distiller", "heads", "losses", "ops", "schedule", "taps"])
def test_public_modules_need_no_import_of_their_own(name):
    status, out, err = run_python(f"import pydistill; print(pydistill.{name}.__name__)")
    assert status == 0, err
    assert out.strip() == f"pydistill.{name}"


def test_version_is_written_once():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", pydistill.__version__)
    written = [
        file.name
        for file in [*ROOT.glob("*.toml"), *ROOT.glob("*.py"), *ROOT.glob("pydistill/**/*.py"), ROOT / "CMakeLists.txt"]
        if f'"{pydistill.__version__}"' in file.read_text()
    ]
    assert written == ["_version.py"]


def test_changelog_has_the_version():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## \[(.+)\] - (Unreleased|\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert newest[1] == re.sub(r"\.dev\d+$", "", pydistill.__version__)


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="module 'pydistill' has no attribute 'nothing'"):
        _ = pydistill.nothing


def test_unknown_instruction_set_says_how_to_build():
    status, _, err = run_python("from pydistill import _C", PYDISTILL_ISA="v9")
    assert status != 0
    assert "no CPU kernels" in err
    assert "_cpu_v9" in err
    assert "pip install" in err


def test_modules_link_only_the_system():
    check_wheel = pytest.importorskip("elftools") and tool("check_wheel")
    modules = list(Path(pydistill.__file__).parent.glob("*.so"))
    assert modules
    for module in modules:
        assert check_wheel.needed(module) <= check_wheel.SYSTEM, module.name


def test_info_reports_everything():
    import numpy

    from pydistill import _C

    found = rows(info.report())
    assert found["pydistill"][0].startswith(pydistill.__version__)
    assert found["Python"][0].startswith(sys.version.split()[0])
    assert found["torch"][0] == torch.__version__
    assert found["numpy"][0] == numpy.__version__
    level = _C.cpu.__name__.rpartition("_")[2]
    assert found["CPU kernels"][0].startswith(f"{level}, ")
    assert level in found["CPU kernels"][0].partition(" of ")[2]
    assert found["threads"][0].startswith(str(torch.get_num_threads()))
    table = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")
    assert found["DLPack"][0] == ("C exchange table" if table else "__dlpack__")
    assert {"CUDA kernels", "driver", "train extra"} <= set(found)


def test_info_works_without_the_train_extra():
    status, out, err = run_python(without_train_extra("from pydistill import info; info.main()"))
    assert status == 0, err
    value, advice = rows(out)["train extra"]
    assert value.startswith("missing lightning, cv2, scipy")
    assert "pip install 'pydistill[train]'" in advice


def test_info_says_what_to_do_without_kernels():
    status, out, err = run_python("from pydistill import info; info.main()", PYDISTILL_ISA="v9")
    assert status == 0, err
    value, *advice = rows(out)["CPU kernels"]
    assert value == "none"
    assert "pip install" in " ".join(advice)


@pytest.mark.parametrize(
    ("toolkit", "driver", "advice"),
    [
        ("13.0.88", "580.65.06", ""),
        ("13.0.88", "575.57.08", "driver is too old, pydistill runs on the CPU only: install driver 580 or newer"),
        ("12.4.131", "525.60.13", ""),
        ("12.4.131", "470.82.01", "install driver 525 or newer"),
        ("13.0.88", None, "no NVIDIA driver answers: pydistill runs on the CPU only"),
        ("unknown", "580.65.06", ""),
    ],
)
def test_driver_advice(toolkit, driver, advice):
    got = info.driver_advice(toolkit, driver)
    assert advice in got
    assert bool(got) == bool(advice)


def test_makefile_has_the_build_requirements():
    makefile, project = (ROOT / "Makefile").read_text(), (ROOT / "pyproject.toml").read_text()
    installed = re.search(r"BUILD_REQUIRES := (.*)", makefile)[1].split()
    assert installed == json.loads(re.search(r"^requires = (\[.*\])", project, re.MULTILINE)[1])


def test_fuzz_knows_every_op():
    fuzz = tool("fuzz")
    functions = {name for name in pydistill.ops.__all__ if inspect.isfunction(getattr(pydistill.ops, name))}
    assert functions == set(fuzz.available()), "tools/fuzz_cases: VALID needs one entry an op"


def test_fuzz_reports_wrong_exceptions_and_crashes():
    fuzz = tool("fuzz")
    assert fuzz.fault_of(ValueError("op: expected a, got b"), valid=False) is None
    assert fuzz.fault_of(TypeError("op: expected a, got b"), valid=False) is None
    assert fuzz.fault_of(RuntimeError("can't allocate memory: you tried to allocate 2 bytes"), valid=False) is None
    assert fuzz.fault_of(RuntimeError("torch says no"), valid=False, ordinary=False) is None
    assert "RuntimeError: no" in fuzz.fault_of(RuntimeError("no"), valid=False)
    assert "IndexError: out" in fuzz.fault_of(IndexError("out"), valid=False)
    assert "a valid call raised ValueError" in fuzz.fault_of(ValueError("no"), valid=True)

    child = "import os, signal; print('case 7 op()', flush=True); os.kill(os.getpid(), signal.SIGSEGV)"
    last, faults = fuzz.watch([sys.executable, "-c", child])
    assert last == 7
    assert faults == {"op: ended by SIGSEGV": "case 7 op()"}


def test_fuzz_cases_repeat():
    fuzz = tool("fuzz")

    def text(index):
        name, arguments = fuzz.make_case(3, index, fuzz.available())
        return name, {key: fuzz.describe(value) for key, value in arguments.items()}

    same = [text(i) for i in range(40)], [text(i) for i in range(40)]
    strip = [re.sub(r"0x\w+", "", str(run)) for run in same]
    assert strip[0] == strip[1]


def test_stub_of_the_compiled_module_is_true():
    """What mypy is told is what csrc declares, and what the module takes."""
    stub = tool("stub")
    assert (ROOT / "pydistill" / "_C.pyi").read_text() == stub.stub()
    from pydistill import _C

    bound = {name for name in dir(_C.cpu) if callable(getattr(_C.cpu, name)) and not name.startswith("__")}
    assert bound - {"accept_torch"} == set(stub.functions())
    for name in stub.functions():
        parameters, _ = stub.declaration(name)
        takes = getattr(_C.cpu, name).__doc__.split("->")[0].count("arg")
        assert takes == len(parameters), name  # Context and `resource` are one for one
