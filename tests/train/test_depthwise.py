from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from lesion_triage.train.depthwise import gradients_in_32_bits

CPU = torch.device("cpu")


def gradients(
    conv: nn.Conv2d, pixels: torch.Tensor, *, bf16: bool, detour: bool = True
) -> list[torch.Tensor]:
    """Output, and gradients of pixels and weights, for one and the same gradient of the output."""
    given = pixels.clone().requires_grad_()
    conv.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        if detour:
            with gradients_in_32_bits(CPU):
                result = conv(given)
        else:
            result = conv(given)
    result.backward(torch.linspace(-1, 1, result.numel()).reshape(result.shape).to(result.dtype))
    return [result.detach(), given.grad, *(parameter.grad for parameter in conv.parameters())]


def depthwise(kernel: int = 5, stride: int = 1, bias: bool = False) -> tuple[nn.Conv2d, torch.Tensor]:
    torch.manual_seed(0)
    conv = nn.Conv2d(24, 24, kernel, stride, kernel // 2, groups=24, bias=bias)
    pixels = torch.randn(4, 24, 17, 17).contiguous(memory_format=torch.channels_last)
    return conv, pixels


@pytest.mark.parametrize(
    ("kernel", "stride", "bias"), [(5, 1, False), (3, 2, True), (5, 2, True), (3, 1, False)]
)
def test_gradients_are_those_of_32_bits_but_for_the_rounding_of_bf16(kernel, stride, bias):
    conv, pixels = depthwise(kernel, stride, bias)
    exact = gradients(conv, pixels, bf16=False)
    half = gradients(conv, pixels, bf16=True)
    assert half[0].dtype == torch.bfloat16
    for one, other in zip(half, exact, strict=True):
        assert torch.linalg.vector_norm(one.float() - other) < 0.01 * torch.linalg.vector_norm(other)


def test_the_forward_pass_is_that_of_plain_autocast_to_the_bit():
    conv, pixels = depthwise(bias=True)
    assert gradients(conv, pixels, bf16=True)[0].equal(gradients(conv, pixels, bf16=True, detour=False)[0])


def test_weights_keep_gradients_of_their_own_precision():
    conv, pixels = depthwise(bias=True)
    assert {one.dtype for one in gradients(conv, pixels, bf16=True)[1:]} == {torch.float32}


def test_32_bit_training_is_left_alone():
    conv, pixels = depthwise()
    with gradients_in_32_bits(CPU):
        plain = conv(pixels)
    assert plain.grad_fn.name() == conv(pixels).grad_fn.name()


def test_a_gpu_is_left_alone():
    conv, pixels = depthwise()
    with torch.autocast("cpu", torch.bfloat16), gradients_in_32_bits(torch.device("cuda")):
        assert conv(pixels).grad_fn.name() != "_DepthwiseBackward"


@pytest.mark.skipif(not torch.cpu.get_capabilities().get("avx512_bf16"), reason="a processor without bf16")
def test_it_is_still_needed_and_helps():
    """Where this fails after an update of torch, oneDNN has learnt: remove the detour."""
    torch.manual_seed(0)
    conv = nn.Conv2d(144, 144, 5, 2, 2, groups=144, bias=False)
    pixels = torch.randn(8, 144, 40, 40).contiguous(memory_format=torch.channels_last)

    def cpu_seconds(detour: bool) -> float:
        gradients(conv, pixels, bf16=True, detour=detour)
        began = time.process_time()
        gradients(conv, pixels, bf16=True, detour=detour)
        return time.process_time() - began

    assert min(cpu_seconds(False) for _ in range(3)) > 1.5 * min(cpu_seconds(True) for _ in range(3))
