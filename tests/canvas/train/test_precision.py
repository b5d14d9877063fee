"""What `precision: auto` means on which machine, and how attention is computed in bf16 on a CPU."""

import pytest
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from canvas.train.precision import half_of, multiplying_in, resolved

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"amx_bf16": True}, "bf16"), ({"amx_bf16": False, "avx512_bf16": True}, "fp32"), ({}, "fp32")],
)
def test_auto_is_bf16_where_a_processor_has_units_for_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolved("auto", CPU) == expected


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_named_precision_is_what_it_says(precision):
    assert resolved(precision, CPU) == precision


def test_an_unresolved_precision_is_our_bug():
    with pytest.raises(AssertionError, match="depends on the device"):
        half_of("auto")


def kernels(half: torch.dtype | None) -> set[str]:
    query = torch.randn(2, 2, 8, 16, requires_grad=True)
    with profile(activities=[ProfilerActivity.CPU]) as recorded, multiplying_in(half, CPU):
        F.scaled_dot_product_attention(query.to(half), query.to(half), query.to(half)).sum().backward()
    return {event.key for event in recorded.key_averages() if "scaled_dot_product" in event.key}


def test_attention_in_bf16_avoids_the_slow_kernel():
    assert any("flash" in name for name in kernels(None))
    assert not any("flash" in name for name in kernels(torch.bfloat16))
