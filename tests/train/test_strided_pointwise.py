from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from lesion_triage.train.strided_pointwise import leave_pixels_out_first

# In a process of its own: what is to be avoided ends it.
TRAINED = """
import sys
import torch
from lesion_triage.train.network import TrainingNetwork, TriageNetwork
from lesion_triage.train.strided_pointwise import leave_pixels_out_first
from lesion_triage.train.weights import create_backbone
torch.manual_seed(0)
network = TriageNetwork(create_backbone(sys.argv[1], "none", 160), 2)
leave_pixels_out_first(network)
training = TrainingNetwork(network).to(memory_format=torch.channels_last).train()
for _ in range(2):
    pixels = torch.randint(0, 256, (16, 160, 160, 3), dtype=torch.uint8)
    training(pixels).logit.square().mean().backward()
print(all(each.grad is None or each.grad.isfinite().all() for each in network.parameters()))
"""


@pytest.mark.parametrize("backbone", ["repvgg_a0", "gernet_s"])
def test_backbones_that_begin_with_such_a_convolution_can_be_trained(backbone: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRAINED, backbone], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@pytest.mark.parametrize("stride", [2, (2, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_output_and_gradients_are_those_of_the_convolution(stride, bias) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 7, 1, stride, bias=bias).double()  # 64 bits take another way, which is sound
    given = torch.randn(2, 5, 9, 8, dtype=torch.float64, requires_grad=True)
    wanted = conv(given)
    wanted.square().sum().backward()
    expected = [given.grad.clone(), *(each.grad.clone() for each in conv.parameters())]
    names = list(conv.state_dict())
    given.grad = None
    conv.zero_grad()
    leave_pixels_out_first(conv)
    leave_pixels_out_first(conv)  # a second time changes nothing
    found = conv(given)
    found.square().sum().backward()
    torch.testing.assert_close(found, wanted)
    for one, other in zip([given.grad, *(each.grad for each in conv.parameters())], expected, strict=True):
        torch.testing.assert_close(one, other)
    assert list(conv.state_dict()) == names


@pytest.mark.parametrize(
    "conv", [nn.Conv2d(16, 4, 1, 2), nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1, 2, 1)]
)
def test_other_convolutions_are_left_as_they_are(conv: nn.Conv2d) -> None:
    stride = conv.stride
    leave_pixels_out_first(conv)
    assert conv.stride == stride
    assert not conv._forward_pre_hooks
