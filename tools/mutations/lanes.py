"""Mistakes in the formulas of attention maps and the soft IoU."""

from mutations.mutation import Mutation, forward, gradient

LANES = [
    Mutation(
        "a power's slope without its factor",
        "power.h",
        "A slope(A x) const { return 2 * x; }",
        "A slope(A x) const { return x; }",
        "attention_map",
        gradient("attention_map", "TestAttentionMap", "own-size"),
    ),
    Mutation(
        "half-pixel centres moved",
        "bilinear.h",
        "b(align_corners ? 0 : in_ - out_)",
        "b(align_corners ? 0 : in_ + out_)",
        "attention_map",
        forward("attention_map", "TestAttentionMap", "upsample"),
    ),
    Mutation(
        "height for width in the adjoint",
        "bilinear.h",
        "[=, axis = r.x, w = r.out.w](int y, int k)",
        "[=, axis = r.y, w = r.out.w](int y, int k)",
        "attention_map",
        gradient("attention_map", "TestAttentionMap", "odd-ratio"),
    ),
    Mutation(
        "the softmax's mean is not subtracted",
        "attention_map.h",
        "p[x] * (dp(x) - dot) * gain",
        "p[x] * dp(x) * gain",
        "attention_map",
        gradient("attention_map", "TestAttentionMap", "own-size"),
    ),
    Mutation(
        "a band's own peak for that of all",
        "attention_map.h",
        "return exp(p[2 * band] - peak) / total;",
        "return A(1) / total;",
        "attention_map",
        forward("attention_map", "TestAttentionMap", "many-bands"),
    ),
    Mutation(
        "the last of equal channels learns",
        "attention_map.h",
        "return x == e[i] || x != x ? c : std::numeric_limits<int>::max();",
        "return x == e[i] || x != x ? -c : std::numeric_limits<int>::max();",
        "attention_map",
        "tests/ops/test_attention_map.py::test_of_equal_channels_the_first_learns[cpu]",
    ),
    Mutation(
        "the union without the intersection taken off",
        "soft_iou_loss.h",
        "return p + (g - i); }",
        "return p + g; }",
        "soft_iou_loss",
        forward("soft_iou_loss", "TestSoftIouLoss", "lanes"),
    ),
    Mutation(
        "the slope elsewhere with the wrong sign",
        "soft_iou_loss.h",
        "(form.literal ? i - g : i) / (u() * u())",
        "(form.literal ? g - i : i) / (u() * u())",
        "soft_iou_loss",
        gradient("soft_iou_loss", "TestSoftIouLoss", "paper"),
    ),
    Mutation(
        "an ignored pixel counts",
        "soft_iou_loss.h",
        "own[i] = label[i] == ignore ? kUnread : channel",
        "own[i] = channel",
        "soft_iou_loss",
        forward("soft_iou_loss", "TestSoftIouLoss", "lanes"),
    ),
]
