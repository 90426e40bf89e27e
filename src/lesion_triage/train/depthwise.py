"""Depthwise convolutions in bf16 on a CPU, with the backward pass in 32 bits. Imports torch only.

oneDNN has no fast kernels for the gradient of most depthwise convolutions in bf16. It falls back to a
reference kernel, ten times slower than in 32 bits, and training in bf16 becomes slower than in 32 bits
(docs/training.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


def gradients_in_32_bits(device: torch.device) -> AbstractContextManager[object]:
    """Inside, depthwise convolutions under bf16 autocast on a CPU have 32-bit backward passes.

    The forward pass stays in bf16. On other devices, and while torch.compile is tracing, nothing changes.
    """
    if device.type != "cpu" or not torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return nullcontext()
    return _Float32Backward()


class _Float32Backward(TorchFunctionMode):
    """Intercepts the calls of the convolutions concerned."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d and not kwargs and len(args) == 7 and _has_slow_bf16_backward(*args):
            pictures, weight, bias, *places = args
            return _DepthwiseConv.apply(pictures, weight, bias, *map(_pair, places[:3]), places[3])
        return func(*args, **(kwargs or {}))


def _has_slow_bf16_backward(
    pictures: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> bool:
    """Depthwise, but not the one shape that is fast in bf16 too: 3 x 3 without stride."""
    fast = weight.shape[-2:] == (3, 3) and _pair(stride) == _pair(dilation) == (1, 1)
    trained = weight.requires_grad or pictures.requires_grad
    return (
        groups > 1 and groups == pictures.shape[1] and not fast and not isinstance(padding, str) and trained
    )


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


class _DepthwiseConv(torch.autograd.Function):
    """The convolution of bf16 values: forward in bf16, backward in 32 bits."""

    @staticmethod
    def forward(ctx: Any, pictures: Tensor, weight: Tensor, bias: Tensor | None, *places: Any) -> Tensor:
        pictures, rounded = pictures.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(pictures, rounded)
        ctx.places, ctx.bias = places, None if bias is None else bias.shape
        stride, padding, dilation, groups = places
        return torch.conv2d(
            pictures, rounded, None if bias is None else bias.bfloat16(), stride, padding, dilation, groups
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        pictures, rounded = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.places
        into_pictures, into_weight, into_bias = torch.ops.aten.convolution_backward(
            gradients[0].float(),
            pictures.float(),
            rounded.float(),
            ctx.bias,
            stride,
            padding,
            dilation,
            False,
            [0, 0],
            groups,
            [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.bias is not None],
        )
        if into_pictures is not None:
            into_pictures = into_pictures.bfloat16()
        return into_pictures, into_weight, into_bias, None, None, None, None
