"""The checks of `make wheel`: each rule of tools/check_wheel.py and tools/check_sdist.py meets what breaks it."""

import io
import shutil
import tarfile
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
import torch

import pydistill

pytest.importorskip("elftools", reason="needs pip install auditwheel")
check_wheel, check_sdist = import_module("check_wheel"), import_module("check_sdist")

NAME = "pydistill-0.1.0-cp311-cp311-manylinux_2_34_x86_64.whl"
GOOD = [f"pydistill/_cpu_{level}.cpython-311-x86_64-linux-gnu.so" for level in ("v2", "v3", "v4")]
GOOD += ["pydistill/__init__.py", "pydistill/_C.py", "pydistill/_C.pyi", "pydistill/py.typed"]
GOOD += ["pydistill/recipes/dense/teacher.pt", "pydistill/report/style.css", "pydistill/benchmarks/test_boxes.py"]
GOOD += [
    f"pydistill-0.1.0.dist-info/{file}" for file in ("METADATA", "licenses/LICENSE", "licenses/THIRD_PARTY_LICENSES")
]


@pytest.mark.parametrize(
    ("platform", "newest", "fault"),
    [
        ("manylinux_2_34_x86_64", (2, 34), None),
        ("manylinux_2_27_x86_64.manylinux_2_28_x86_64", (2, 28), None),
        ("manylinux_2_34_aarch64", (2, 28), "expected manylinux_2_28 or older, got manylinux_2_34_aarch64"),
        ("manylinux_2_39_x86_64", (2, 34), "build on an older system"),
        ("linux_x86_64", (2, 34), "expected a manylinux tag, got linux_x86_64"),
    ],
)
def test_tag(platform, newest, fault):
    faults = check_wheel.tag_faults(f"pydistill-0.1.0-cp311-cp311-{platform}.whl", newest)
    assert [fault in said for said in faults] == [True] * bool(fault)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda f: f, None),
        (lambda f: [n for n in f if "_v4" not in n], "it has no module _cpu_v4"),
        (lambda f: [n for n in f if not n.endswith("_C.pyi")], "pydistill/_C.pyi is missing"),
        (lambda f: [n for n in f if not n.endswith("/LICENSE")], "no licence LICENSE"),
        (lambda f: [n for n in f if "THIRD" not in n], "no licence THIRD_PARTY_LICENSES"),
        (lambda f: [*f, "tests/test_core.py"], "stray file tests/test_core.py"),
        (lambda f: [*f, "pydistill/ops/softmax_kl.o"], "stray file pydistill/ops/softmax_kl.o"),
        (lambda f: [*f, "pydistill.libs/libgomp-1.so"], "stray file pydistill.libs/libgomp-1.so"),
    ],
)
def test_contents(change, fault):
    assert check_wheel.content_faults(change(GOOD), check_wheel.Wanted()) == [fault] * bool(fault)


def test_contents_that_are_asked_for():
    wanted = check_wheel.Wanted(levels=["v3"], cuda=True)
    assert check_wheel.content_faults(GOOD[1:2] + GOOD[3:], wanted) == ["it has no module _cuda"]
    assert check_wheel.content_faults(GOOD, check_wheel.Wanted(), NAME.replace("x86_64", "aarch64")) == [
        "it has no module _cpu_any"
    ]


def test_modules(tmp_path):
    shutil.copy(torch._C.__file__, tmp_path / "_cpu_v3.so")
    architectures = check_wheel.release_architectures()
    (tmp_path / "_cuda.so").write_bytes((tmp_path / "_cpu_v3.so").read_bytes() + b"\x0090\0")
    faults = check_wheel.module_faults(tmp_path, check_wheel.Wanted(architectures=architectures))
    assert "_cpu_v3.so needs libtorch_python.so" in faults
    assert f"_cuda.so is not for {architectures}" in faults
    assert "_cuda.so is not for 90" not in check_wheel.module_faults(tmp_path, check_wheel.Wanted(architectures="90"))
    assert architectures.split()[0] == "75-real" and architectures.split()[-1] == "120"


def test_package_that_does_not_run(tmp_path):
    (tmp_path / "pydistill").mkdir()
    (tmp_path / "pydistill" / "__init__.py").write_text("raise ImportError('undefined symbol')")
    (fault,) = check_wheel.run_faults(tmp_path)
    assert fault.startswith("it does not run: ") and fault.endswith("ImportError: undefined symbol")


def test_whole_wheel(tmp_path, capsys, monkeypatch):
    """The package as it lies here, but for its licences: it runs, and auditwheel agrees with no tag but its own."""
    pytest.importorskip("auditwheel")
    wheel, package = tmp_path / NAME.replace("2_34", "2_5"), Path(pydistill.__file__).parent
    files = [file for file in package.rglob("*") if file.suffix in check_wheel.KINDS - {".pt"}]
    names = [str(Path("pydistill") / file.relative_to(package)) for file in files]
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, name in zip(files, names):
            archive.write(file, name)
        archive.writestr("pydistill-0.1.0.dist-info/RECORD", "".join(f"{name},,\n" for name in names))
    monkeypatch.setattr(check_wheel, "LIMIT", 1000)
    levels = [module.name.removeprefix("_cpu_").partition(".")[0] for module in package.glob("_cpu_*.so")]
    faults = check_wheel.check(wheel, check_wheel.Wanted(levels=levels))
    assert faults[0] == f"it has {wheel.stat().st_size} bytes; PyPI takes 1000"
    assert faults[1:3] == ["no licence LICENSE", "no licence THIRD_PARTY_LICENSES"]
    assert len(faults) == 4 and faults[3].startswith("auditwheel finds manylinux_2_")
    assert f"runs under torch {torch.__version__}: pydistill._cpu_" in capsys.readouterr().out


def test_source_distribution(tmp_path):
    tracked = [".ci/run", ".clang-format", "setup.py", "csrc/math/boxes.h", "tests/test_core.py"]
    packed = ["PKG-INFO", "setup.cfg", "pydistill.egg-info/SOURCES.txt", *tracked[1:]]
    assert check_sdist.faults(packed, tracked) == []
    assert check_sdist.faults(packed[:-1], tracked) == ["tests/test_core.py is missing"]
    assert check_sdist.faults([*packed, "build/x.o"], tracked) == ["stray file build/x.o"]
    with tarfile.open(tmp_path / "sdist.tar.gz", "w:gz") as archive:
        folder = tarfile.TarInfo("pydistill-0.1.0")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        archive.addfile(tarfile.TarInfo("pydistill-0.1.0/csrc/math/boxes.h"), io.BytesIO())
    assert check_sdist.packed(tmp_path / "sdist.tar.gz") == ["csrc/math/boxes.h"]
