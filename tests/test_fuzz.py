"""The fuzzer of the compiled functions: that it reaches them all, and sees what they must not do."""

import random
import re

import fuzz
import pytest
import stub
import torch
from fenced import Fenced
from fuzz_cases import VALID
from fuzz_compiled import Foreign, calls_of, damage, parameters

from pydistill import _C


def recorded(op, seeds):
    torch.manual_seed(0)

    def calls(seed):
        return calls_of(lambda: fuzz.call(op, VALID[op](random.Random(seed))))

    return [call for seed in seeds for call in calls(seed)]


def test_valid_calls_reach_every_compiled_function_and_harm_nothing():
    seen = set()
    for op in fuzz.available():
        for name, args in recorded(op, range(12)):
            assert name in seen or damage(getattr(_C.cpu, name), args) == (None, None), name
            seen.add(name)
    assert seen == set(stub.functions())


@pytest.mark.parametrize(
    "op,function,parameter,wrong,message",
    [
        ("softmax_kl", "softmax_kl", "total", torch.ones(2), "expected total of shape []"),
        ("softmax_kl", "softmax_kl", "weight", torch.ones(2), "expected weight of one number per row"),
        ("softmax_kl", "softmax_kl_backward", "dloss", torch.ones(2), "expected dloss of one number, or one per row"),
        ("giou_loss", "box_iou_loss", "avg_factor", torch.ones(2), "expected avg_factor of shape []"),
        ("quality_focal_loss", "quality_focal_loss", "labels", None, "expected labels of one number per row"),
        ("quality_focal_loss", "quality_focal_loss_backward", "dlogits", None, "dlogits of the logits' shape"),
        ("sigmoid_focal_loss", "sigmoid_focal_loss_backward", "dloss", torch.ones(2), "dloss of one number"),
        ("distribution_focal_loss", "distribution_focal_loss", "target", None, "target of one number per row"),
        ("distribution_focal_loss", "distribution_focal_loss_backward", "dlogits", None, "dlogits of the logits'"),
        ("masked_feature_loss", "masked_feature_loss_backward", "dstudent", None, "expected dstudent of the student's"),
        ("keypoint_feature_loss", "keypoint_feature_loss_backward", "dstudent", None, "expected dstudent of the"),
        ("response_loss", "response_loss", "losses", torch.ones(3), "expected losses of shape [2]"),
        ("response_loss", "response_loss_backward", "dlosses", torch.ones(3), "expected dlosses of shape [2]"),
        ("attention_distillation_loss", "attention_distillation_loss", "loss", torch.ones(3), "loss of shape []"),
        ("soft_iou_loss", "soft_iou_loss", "first", 2**63 - 1, "expected a form that fits the classes"),
        ("assign_atss", "assign_atss", "topk", 2**63 - 1, "expected topk < 2^27"),
        ("match_cost", "match_cost", "class_cost", 255, "expected a class_cost below 6"),
        ("linear_sum_assignment", "linear_sum_assignment", "nonfinite", 255, "expected a policy below 4"),
        ("softmax_kl", "softmax_kl", "teacher", Foreign(torch.ones(6, 5), 2), "teacher of the student's shape and dev"),
        ("softmax_kl", "softmax_kl", "rows", Foreign(torch.ones(6), 4), "expected a CPU or CUDA tensor, got DLPack"),
    ],
)
def test_a_compiled_function_refuses_before_it_writes(op, function, parameter, wrong, message):
    found = 0
    for name, args in recorded(op, range(6)):
        if name != function:
            continue
        at = [p for p, _ in parameters(name)].index(parameter)
        if parameter == "avg_factor" and args[-1] is None:  # no total: nothing is divided
            continue
        args[at] = wrong
        harm, error = damage(getattr(_C.cpu, name), args)
        assert isinstance(error, (ValueError, TypeError)) and message in str(error)
        assert harm is None
        found += 1
    assert found


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
