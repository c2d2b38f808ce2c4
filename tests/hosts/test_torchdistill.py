"""Losses by name in a configuration of torchdistill, in its own training loop."""

import importlib.machinery
import importlib.util
import sys
import types

import pytest
import torch
import yaml
from torch import nn

from pydistill.losses import SADLoss
from pydistill.ops import softmax_kl

pytest.importorskip("torchdistill", reason="needs pip install torchdistill")

CONFIGURATION = """
dependencies:
  - 'pydistill.hosts.torchdistill'
train:
  num_epochs: 1
  train_data_loader: {dataset_id: 'pictures', kwargs: {batch_size: 4}}
  teacher:
    forward_proc: 'forward_batch_only'
    forward_hook: {output: ['head']}
    requires_grad: False
  student:
    forward_proc: 'forward_batch_only'
    forward_hook: {output: ['head', 'stage1', 'stage2']}
  optimizer: {key: 'SGD', kwargs: {lr: 0.1}}
  criterion:
    key: 'WeightedSumLoss'
    func2extract_model_loss: 'extract_model_loss_dict'
    kwargs:
      sub_terms:
        kd:
          criterion:
            key: 'pydistill.PairLoss'
            kwargs: {name: 'softmax_kl', student_module_path: 'head', temperature: 4.0}
          weight: 0.5
        sad:
          criterion:
            key: 'pydistill.SADLoss'
            kwargs: {module_paths: ['stage1', 'stage2'], reference: 'port'}
          weight: 0.1
"""


class Absent(types.ModuleType):
    """torchvision, which torchdistill imports for classes that nothing here uses."""

    __path__: list[str] = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (nn.Module,), {})


@pytest.fixture
def box(monkeypatch):
    if importlib.util.find_spec("torchvision") is None:
        for name in ("", ".models", ".models.densenet", ".models.resnet", ".datasets", ".transforms", ".ops"):
            module = Absent(f"torchvision{name}")
            module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
            monkeypatch.setitem(sys.modules, module.__name__, module)
    main_util = pytest.importorskip("torchdistill.common.main_util")
    distillation = importlib.import_module("torchdistill.core.distillation")
    configuration = yaml.safe_load(CONFIGURATION)
    sampler = {"class_or_func": torch.utils.data.SequentialSampler}  # in a file, torchdistill's !getattr
    configuration["train"]["train_data_loader"]["sampler"] = sampler
    main_util.import_dependencies(configuration["dependencies"])
    torch.manual_seed(0)
    pictures = torch.utils.data.TensorDataset(torch.randn(12, 3, 8, 8), torch.arange(12) % 5)
    return distillation.DistillationBox(
        network(16),
        network(8),
        {"pictures": pictures},
        configuration["train"],
        torch.device("cpu"),
        None,
        False,
        1,
        None,
    )


def network(width):
    net = nn.Sequential()
    net.stage1, net.stage2 = nn.Conv2d(3, width, 3), nn.Conv2d(width, width, 3, stride=2)
    net.pool, net.flat, net.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5)
    return net


def test_three_steps(box):
    """Each step's loss is that of the same operators by hand, and the student learns."""
    box.pre_epoch_process(epoch=0)
    losses = []
    for pictures, labels in [batch[:2] for batch in box.train_data_loader]:
        with torch.no_grad():
            features = [box.student_model.stage1(pictures)]
            features.append(box.student_model.stage2(features[0]))
            logits = [model(pictures) for model in (box.student_model, box.teacher_model)]
            want = 0.5 * softmax_kl(*logits, temperature=4.0).mean()
            want += 0.1 * sum(SADLoss(reference="port")(features).values())
        loss = box.forward_process(pictures, labels, {})
        torch.testing.assert_close(loss.detach(), want)
        box.post_forward_process(loss)
        losses.append(loss.item())
    assert len(losses) == 3 and losses[-1] < losses[0]


def test_what_it_refuses(box):
    module = sys.modules["pydistill.hosts.torchdistill"]
    with pytest.raises(ValueError, match="PairLoss: expected name in .*, got 'kd'"):
        module.PairLoss("kd", "head")
    with pytest.raises(ValueError, match=r"expected 'neck' in the configuration's forward_hook, got \['head'\]"):
        module.PairLoss("softmax_kl", "neck")({"head": {}}, {})
