"""Strided 1 x 1 convolutions of few channels, on a CPU: pixels are left out before them. Imports torch only.

oneDNN 3.13 in torch 2.15 writes beyond its memory in their backward pass, if a processor with AVX-512 has
the pictures channels-last and there are fewer channels than a vector has numbers: the process ends without a
word. timm's gernet and repvgg begin with such layers. Over every other pixel the convolution is the same.
"""

from __future__ import annotations

from typing import Any

from torch import nn

_VECTOR = 16
"""Numbers of 32 bits in a vector of AVX-512. With as many input channels, or more, it does not happen."""


def leave_pixels_out_first(network: nn.Module) -> None:
    """Change the convolutions concerned, in place: no stride, and a hook that takes every other pixel.

    Weights and their names stay, and so does the result.
    """
    for module in network.modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.in_channels < _VECTOR
            and set(module.kernel_size) == {1}
            and set(module.stride) != {1}
            and not any(module.padding)  # a word, "same" or "valid", is refused by Conv2d beside a stride
        ):
            module.register_forward_pre_hook(_Every(*module.stride))
            module.stride = (1, 1)


class _Every:
    def __init__(self, rows: int, columns: int) -> None:
        self._rows, self._columns = rows, columns

    def __call__(self, _: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (given[0][..., :: self._rows, :: self._columns], *given[1:])
