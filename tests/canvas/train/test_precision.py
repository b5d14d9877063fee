"""What `precision: auto` means on which machine, and how attention is computed in bf16 on a CPU."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from canvas.train.precision import autocast, cast_parameters, get_autocast_dtype, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"amx_bf16": True}, "bf16"), ({"amx_bf16": False, "avx512_bf16": True}, "bf16"), ({"avx512_f": True}, "fp32")],
)
def test_auto_is_bf16_where_a_processor_has_units_for_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve_precision("auto", CPU) == expected


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_named_precision_is_what_it_says(precision):
    assert resolve_precision(precision, CPU) == precision


def test_an_unresolved_precision_is_our_bug():
    with pytest.raises(AssertionError, match="depends on the device"):
        get_autocast_dtype("auto")


def kernels(half: torch.dtype | None) -> set[str]:
    query = torch.randn(2, 2, 8, 16, requires_grad=True)
    with profile(activities=[ProfilerActivity.CPU]) as recorded, autocast(half, CPU):
        F.scaled_dot_product_attention(query.to(half), query.to(half), query.to(half)).sum().backward()
    return {event.key for event in recorded.key_averages() if "scaled_dot_product" in event.key}


def test_attention_in_bf16_avoids_the_slow_kernel():
    assert any("flash" in name for name in kernels(None))
    assert not any("flash" in name for name in kernels(torch.bfloat16))


def test_weights_held_in_half_are_the_very_ones_of_before_afterwards():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with cast_parameters(torch.bfloat16, module):
        assert module(torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16
        assert module[1].num_batches_tracked.dtype == torch.long
    after = module.state_dict()
    assert all(torch.equal(after[name], value) and after[name].dtype == value.dtype for name, value in before.items())


def test_weights_held_in_no_half_stay():
    module = nn.Linear(2, 2)
    with cast_parameters(None, module):
        assert module.weight.dtype == torch.float32
