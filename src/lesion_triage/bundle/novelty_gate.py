"""The novelty gate: may this photograph's logit be used? Imports the standard library and the exception tree.

Server, calibration, report and a site's certificate all decide with this one function, so that what is
certified is what is served. The quality gate, which needs no network, is in ``bundle.quality``.
"""

from __future__ import annotations

import math

from lesion_triage.errors import ScoringError


def is_out_of_distribution(novelty: float | None, limit: float | None) -> bool:
    """True if a photograph is too unlike the training photographs: its novelty reaches the limit.

    Args:
        novelty: the graph's output, at least 0 and about 1 for a photograph like those of training. None: the
            graph gave none.
        limit: the policy's; None switches the gate off.

    Raises:
        ScoringError: there is a limit and ``novelty`` is None or NaN. ``nan >= limit`` is False and would let
            the photograph pass.
    """
    if limit is None:
        return False
    if novelty is None or math.isnan(novelty):
        raise ScoringError(
            f"The graph's novelty is {novelty}, expected a number to compare with the policy's limit "
            f"{limit:g}; the model or its input is broken."
        )
    return novelty >= limit
