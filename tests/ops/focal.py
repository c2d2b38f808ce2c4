"""What the tests of the focal losses share."""

import numpy as np
import torch

from tests.conformance import relative_error


def differentiate(fn, logits, *args, **kwargs):
    """The loss and the gradient of the logits of its sum."""
    logits = logits.detach().requires_grad_()
    out = fn(logits, *args, **kwargs)
    return out.detach(), torch.autograd.grad(out.sum(), logits)[0]


def random_reduction(rng: np.random.Generator, shape: tuple[int, ...]):
    """Options weight, reduction and avg_factor, and what they make of a row's loss: (weight, factor of the sum)."""
    weight = rng.uniform(size=shape) * (rng.uniform(size=shape) < 0.6) if rng.uniform() < 0.5 else None
    reduction = str(rng.choice(["none", "mean", "sum"]))
    factor, options = 1.0, {"reduction": reduction}
    if reduction == "mean":
        divisor = int(np.prod(shape))
        if rng.uniform() < 0.6:
            divisor = float(rng.uniform(0.5, 4))
            options["avg_factor"] = torch.tensor(divisor) if rng.uniform() < 0.5 else divisor
            divisor = float(options["avg_factor"])  # float32 rounds it
        factor = 1 / divisor
    if weight is not None:
        options["weight"] = torch.tensor(weight)
    return options, (np.ones(shape) if weight is None else weight), factor


def assert_case(device, fn, arrays, options, rows, slopes, weight, factor, tolerance=1e-11):
    """``fn`` of the arrays, the logits first, against NumPy's rows and slopes, the gradients of the unweighted rows."""
    options = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    got, grad = differentiate(fn, *(torch.tensor(a, device=device) for a in arrays), **options)
    rows, slopes = rows * weight, slopes * weight[..., None]
    if options["reduction"] != "none":
        rows, slopes = rows.sum() * factor, slopes * factor
    assert relative_error(got, torch.tensor(rows)) < tolerance
    assert relative_error(grad, torch.tensor(slopes)) < tolerance
