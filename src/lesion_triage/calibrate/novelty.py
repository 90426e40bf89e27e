"""Novelty: how unlike the training photographs a photograph is, and its limit. Imports numpy, predictions.

The channel means of a network's middle levels, scaled to unit length, are modelled as normal over the
training photographs. The novelty is the squared Mahalanobis distance to their mean, divided by the number of
channels (Lee et al. 2018, arXiv:1807.03888, with one class). docs/unfamiliar-pictures.md compares it with the
alternatives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion_triage.errors import CalibrationError
from lesion_triage.predictions import Predictions

SHRINKAGE = 0.01
"""Share of the identity in the correlation matrix; 0.001 to 0.05 made no measurable difference."""
NUMERICAL_ZERO = 1e-9
"""A length, or a spread of unit vectors, below this is rounding error."""
_RELATIVE_STD_FLOOR = 0.01
"""Floor for the standard deviation of a channel, relative to the root mean square over all channels."""


@dataclass(frozen=True, slots=True, eq=False)
class NoveltyModel:
    """First and second moments of the training photographs; no row of it belongs to a person."""

    mean: NDArray[np.float64]
    """Shape (channels,)."""
    whitening: NDArray[np.float64]
    """Shape (channels, channels): maps training photographs to nearly uncorrelated coordinates."""

    def novelty(self, channel_means: NDArray[np.float32]) -> NDArray[np.float64]:
        """Novelty of photographs, shape (N,): at least 0, and about 1 on average in training.

        Args:
            channel_means: shape (N, channels).
        """
        white = (_l2_normalised(channel_means) - self.mean) @ self.whitening
        novelty: NDArray[np.float64] = np.square(white).mean(axis=1)
        return novelty


def fit_novelty_model(channel_means: NDArray[np.float32]) -> NoveltyModel:
    """Mean and whitening of the training photographs.

    The correlation matrix is shrunk towards the identity, so it has an inverse for any number of photographs.

    Args:
        channel_means: channel means, shape (photographs, channels).

    Raises:
        CalibrationError: fewer than two photographs, a value that is not finite, or all photographs alike.
    """
    if channel_means.ndim != 2 or len(channel_means) < 2 or not np.isfinite(channel_means).all():
        raise CalibrationError(
            "the novelty gate needs finite channel means of at least two training photographs, found an "
            f"array of shape {channel_means.shape}; train again."
        )
    values = _l2_normalised(channel_means)
    mean, spread = values.mean(axis=0), values.std(axis=0)
    floor = _RELATIVE_STD_FLOOR * math.sqrt(float(np.square(spread).mean()))
    if floor < NUMERICAL_ZERO:
        raise CalibrationError(
            "the novelty gate cannot be fitted: all training photographs are alike to the network; "
            "check the pictures and the weights."
        )
    scale = np.maximum(spread, floor)
    standard = (values - mean) / scale
    correlation = standard.T @ standard / len(standard)
    shrunk = (1 - SHRINKAGE) * correlation + SHRINKAGE * np.eye(scale.size)
    # A Cholesky factor of the inverse: unlike eigenvectors, it has no arbitrary sign.
    return NoveltyModel(mean, np.linalg.cholesky(np.linalg.inv(shrunk)) / scale[:, np.newaxis])


def _l2_normalised(channel_means: NDArray[np.float32]) -> NDArray[np.float64]:
    values = channel_means.astype(np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    directions: NDArray[np.float64] = values / np.maximum(lengths, NUMERICAL_ZERO)
    return directions


def novelty_limit(validation: Predictions, share: float) -> float | None:
    """The lowest limit that sends up at most ``share`` of the gradable validation photographs.

    Args:
        validation: novelties of photographs that the gate was not fitted on.
        share: in [0, 0.5).

    Returns:
        A photograph whose novelty is at least this goes up. None: ``share`` is 0, or nothing is gradable.

    Raises:
        CalibrationError: a gradable photograph has no novelty.
    """
    gradable = [row for row in validation.rows if row.logit is not None]
    if share == 0 or not gradable:
        return None
    found = [row.novelty for row in gradable if row.novelty is not None]
    if len(found) < len(gradable):
        raise CalibrationError(
            f"{len(gradable) - len(found)} of {len(gradable)} gradable photographs of split 'validation' "
            "have no novelty; predict again, or set calibrate.novelty_share to 0 to disable the gate."
        )
    values, counts = np.unique(np.array(found, dtype=np.float64), return_counts=True)
    at_or_above = counts[::-1].cumsum()[::-1]
    allowed = values[at_or_above <= math.floor(share * len(found) + 1e-9)]
    return float(allowed[0]) if allowed.size else math.nextafter(float(values[-1]), math.inf)
