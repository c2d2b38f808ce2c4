"""The fuzzer of the compiled functions: that it reaches them all, and sees what they must not do."""

import random
import re

import fuzz
import stub
import torch
from fenced import Fenced
from fuzz_cases import VALID
from fuzz_compiled import calls_of, damage

from pydistill import _C


def recorded(op, seeds):
    torch.manual_seed(0)
    return [c for seed in seeds for c in calls_of(lambda: fuzz.call(op, VALID[op](random.Random(seed))))]  # noqa: B023


def test_valid_calls_reach_every_compiled_function_and_harm_nothing():
    seen = set()
    for op in fuzz.available():
        for name, args in recorded(op, range(12)):
            assert name in seen or damage(getattr(_C.cpu, name), args) == (None, None), name
            seen.add(name)
    assert seen == set(stub.functions())


def test_fences_tell_what_was_written():
    base = torch.arange(10.0)
    fenced = Fenced()
    part, last = fenced.of([base[2:6:2], base[7:]])
    assert part.tolist() == [2, 4] and last.tolist() == [7, 8, 9]
    assert not fenced.changed(outside=False)
    part[0] = 9  # its own element
    assert fenced.changed(outside=False) and not fenced.changed(outside=True)
    part.as_strided((1,), (1,), 3)[0] = 9  # between its elements
    assert fenced.changed(outside=True)
    assert base.tolist() == list(range(10))


def test_what_was_written_is_reported():
    x = torch.zeros(3)

    def fails(x):
        x[0] = 1
        raise ValueError("too late")

    assert damage(fails, [x])[0] == "raised, and had written"
    assert damage(lambda x: x.as_strided((1,), (1,), 2).fill_(1), [x[:2]]) == ("wrote outside the tensors", None)
    assert damage(lambda x: x.fill_(1), [x]) == (None, None)


def test_a_page_behind_a_tensor_is_forbidden():
    x = Fenced().of(torch.zeros(5, dtype=torch.float64))
    end = x.data_ptr() + 40
    with open("/proc/self/maps") as maps:
        assert re.search(rf"^0*{end:x}-\w+ ---", maps.read(), re.M)


def test_compiled_cases_repeat(capsys):
    runs = []
    for _ in range(2):
        assert [fuzz.try_compiled(3, i, fuzz.available()) for i in range(8)] == [None] * 8
        runs.append(re.sub(r"0x\w+", "", capsys.readouterr().out))
    assert runs[0] == runs[1] and "case 7 _C." in runs[0]
