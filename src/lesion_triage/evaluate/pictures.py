"""Which cases a reader should look at, with their photographs as the network saw them.

Imports Pillow, bundle, data and this room's results.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion_triage.bundle.messages import english
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.config import Roots
from lesion_triage.data.manifest import Manifest, read_picture
from lesion_triage.evaluate.decided import Decided
from lesion_triage.predictions import Prediction

_PER_GROUP = 4


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One photograph for the report."""

    png: bytes
    caption: str
    alt: str
    attribution: str


@dataclass(frozen=True, slots=True)
class Group:
    """Photographs that belong together."""

    title: str
    exhibits: tuple[Exhibit, ...]


def choose(decided: Decided, manifest: Manifest, root: Roots, spec: PixelSpec) -> tuple[Group, ...]:
    """Missed positives first, then cases at the extremes and next to the threshold, then ungradable ones.

    A photograph of a person is left out unless its record names a licence.

    Raises:
        ManifestError: a picture is missing or has changed.
    """
    scores, positive = decided.scores, decided.positive
    records = {
        record.image_id: record
        for record in manifest.records
        if manifest.synthetic or record.copyright_license
    }
    shown_at_all = np.array([_decisive(case.rows).image_id in records for case in decided.cases])
    scored = np.isfinite(scores) & shown_at_all
    referred = scored & decided.referred
    descending = np.argsort(-np.where(scored, scores, -1.0), kind="stable")
    groups = (
        ("Positive cases below their threshold", _first(descending, positive & scored & ~referred)),
        ("Referred, highest scores", _first(descending, referred)),
        ("Referred, next to the threshold", _first(descending[::-1], referred)),
        ("Below the threshold, next to it", _first(descending, scored & ~referred)),
        ("Below the threshold, lowest scores", _first(descending[::-1], scored & ~referred)),
        ("Not gradable", _first(np.arange(scores.size), ~np.isfinite(scores) & shown_at_all)),
    )
    shown: set[int] = set()
    chosen = []
    for title, indices in groups:
        fresh = [index for index in indices if index not in shown]
        shown.update(fresh)
        exhibits = []
        for index in fresh:
            row = _decisive(decided.cases[index].rows)
            record = records[row.image_id]
            exhibits.append(
                Exhibit(
                    png=_png(read_picture(root, record), spec),
                    caption=_caption(decided, index, row),
                    alt=f"Photograph of a case: {title.lower()}",
                    attribution=", ".join(
                        part for part in (record.attribution, record.copyright_license) if part
                    ),
                )
            )
        if exhibits:
            chosen.append(Group(title, tuple(exhibits)))
    return tuple(chosen)


def _first(order: NDArray[np.intp], wanted: NDArray[np.bool_]) -> list[int]:
    return [int(index) for index in order if wanted[index]][:_PER_GROUP]


def _decisive(rows: tuple[Prediction, ...]) -> Prediction:
    """The photograph with the highest logit, or the first if none was gradable."""
    return max(rows, key=lambda row: -np.inf if row.logit is None else row.logit)


def _caption(decided: Decided, index: int, row: Prediction) -> str:
    outcome = "needs a visit" if decided.positive[index] else "does not need a visit"
    score = decided.decisions[index].score
    band = f"band {decided.decisions[index].priority_band}"
    if score is not None:
        return f"Score {score:.3f}, {band}. Reference standard: {outcome}."
    reasons = [english().reasons[code].text.rstrip(".") for code in row.quality_codes.split()]
    return f"{', '.join(reasons) or 'Not gradable'}; {band}. Reference standard: {outcome}."


def _png(data: bytes, spec: PixelSpec) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(decode(data, spec).pixels).save(stream, "PNG")
    return stream.getvalue()
