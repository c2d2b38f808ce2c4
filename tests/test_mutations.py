"""The list of `make mutate`: each mistake can be made, and the test that must see it exists."""

import subprocess
import sys
from pathlib import Path

import pytest
from mutate import MATH, Failed, mutated, passes
from mutations import MUTATIONS, WITHOUT, Mutation

ROOT = Path(__file__).resolve().parents[1]


def test_each_pattern_occurs_once():
    for m in MUTATIONS:
        assert mutated(m) != (MATH / m.file).read_text(), m.name
        assert (ROOT / "csrc" / "cpu" / f"{m.op}.cpp").exists(), m.name
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS) >= 30


def test_every_formula_has_a_mutation():
    files = {path.name for path in MATH.glob("*.h")}
    assert files - {m.file for m in MUTATIONS} == WITHOUT


def test_the_named_tests_exist():
    tests = sorted({m.test for m in MUTATIONS})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_pattern_that_does_not_occur_once_is_refused():
    for pattern, times in (("no such code", 0), ("template", MATH.joinpath("power.h").read_text().count("template"))):
        with pytest.raises(Failed, match=f"occurs {times} times in csrc/math/power.h"):
            mutated(Mutation("wrong", "power.h", pattern, "", "attention_map", ""))


def test_only_a_test_that_ran_and_failed_sees_a_mutation(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_right(): pass\ndef test_wrong(): assert False\n")
    assert passes(tmp_path, ["test_it.py::test_right"])[0]
    assert not passes(tmp_path, ["test_it.py::test_wrong"])[0]
    with pytest.raises(Failed, match="the test did not run"):
        passes(tmp_path, ["test_it.py::test_none"])
