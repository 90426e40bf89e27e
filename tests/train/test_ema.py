from __future__ import annotations

import numpy as np
import torch
from torch import nn

from lesion_triage.train.ema import ExponentialMovingAverage


def test_the_average_is_the_weighted_sum_of_its_definition():
    """m_t = d_t m_(t-1) + (1 - d_t) w_t with d_t = min(0.6, (1 + t) / (10 + t)), unrolled in numpy."""
    network = nn.Linear(2, 2)
    average = ExponentialMovingAverage(network, 0.6)
    expected = network.weight.detach().numpy().astype(float).copy()
    for step in range(30):
        with torch.no_grad():
            network.weight.add_(torch.randn(2, 2))
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network.weight.detach().numpy()
        average.update(step)
    np.testing.assert_allclose(average.tensors["weight"].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_no_decay_is_the_network_itself():
    network = nn.BatchNorm1d(3)
    average = ExponentialMovingAverage(network, 0.0)
    for step in range(3):
        network(torch.randn(8, 3))
        average.update(step)
    for name, value in network.state_dict().items():
        assert torch.equal(average.tensors[name], value), name


def test_the_network_carries_the_average_for_a_while_and_then_its_own_bits_again():
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    network[0].eval()
    average = ExponentialMovingAverage(network, 0.9)
    network(torch.randn(8, 3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with average.applied():
        assert not network.training
        for name, value in network.state_dict().items():
            assert torch.equal(value, average.tensors[name])
    assert (network.training, network[0].training, network[1].training) == (True, False, True)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
