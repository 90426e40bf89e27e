"""Which cases a reader should look at, with their photographs as the network saw them.

Imports Pillow, bundle, data and this package's results.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion_triage.bundle.messages import english_catalogue
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.config import Roots
from lesion_triage.data.manifest import Manifest, read_picture
from lesion_triage.evaluate.decided_cases import DecidedCases
from lesion_triage.predictions import Prediction

_MAX_PER_GROUP = 4


@dataclass(frozen=True, slots=True)
class ExamplePhotograph:
    """One photograph for the report."""

    png: bytes
    caption: str
    alt: str
    attribution: str


@dataclass(frozen=True, slots=True)
class ExampleGroup:
    """Photographs that belong together."""

    title: str
    photographs: tuple[ExamplePhotograph, ...]


def choose_examples(
    decided: DecidedCases, manifest: Manifest, root: Roots, spec: PixelSpec
) -> tuple[ExampleGroup, ...]:
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
    showable = np.array([_highest_scoring(case.rows).image_id in records for case in decided.cases])
    scored = np.isfinite(scores) & showable
    referred = scored & decided.referred
    descending = np.argsort(-np.where(scored, scores, -1.0), kind="stable")
    groups = (
        ("Positive cases below their threshold", _first_matching(descending, positive & scored & ~referred)),
        ("Referred, highest scores", _first_matching(descending, referred)),
        ("Referred, next to the threshold", _first_matching(descending[::-1], referred)),
        ("Below the threshold, next to it", _first_matching(descending, scored & ~referred)),
        ("Below the threshold, lowest scores", _first_matching(descending[::-1], scored & ~referred)),
        ("Not gradable", _first_matching(np.arange(scores.size), ~np.isfinite(scores) & showable)),
    )
    shown: set[int] = set()
    chosen = []
    for title, indices in groups:
        unseen = [index for index in indices if index not in shown]
        shown.update(unseen)
        photographs = []
        for index in unseen:
            row = _highest_scoring(decided.cases[index].rows)
            record = records[row.image_id]
            photographs.append(
                ExamplePhotograph(
                    png=_png(read_picture(root, record), spec),
                    caption=_caption(decided, index, row),
                    alt=f"Photograph of a case: {title.lower()}",
                    attribution=", ".join(
                        part for part in (record.attribution, record.copyright_license) if part
                    ),
                )
            )
        if photographs:
            chosen.append(ExampleGroup(title, tuple(photographs)))
    return tuple(chosen)


def _first_matching(order: NDArray[np.intp], wanted: NDArray[np.bool_]) -> list[int]:
    return [int(index) for index in order if wanted[index]][:_MAX_PER_GROUP]


def _highest_scoring(rows: tuple[Prediction, ...]) -> Prediction:
    """The photograph with the highest logit, or the first if none was gradable."""
    return max(rows, key=lambda row: -np.inf if row.logit is None else row.logit)


def _caption(decided: DecidedCases, index: int, row: Prediction) -> str:
    outcome = "needs a visit" if decided.positive[index] else "does not need a visit"
    score = decided.decisions[index].score
    band = f"band {decided.decisions[index].priority_band}"
    if score is not None:
        return f"Score {score:.3f}, {band}. Reference standard: {outcome}."
    reasons = [english_catalogue().reasons[code].text.rstrip(".") for code in row.quality_codes.split()]
    return f"{', '.join(reasons) or 'Not gradable'}; {band}. Reference standard: {outcome}."


def _png(data: bytes, spec: PixelSpec) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(decode(data, spec).pixels).save(stream, "PNG")
    return stream.getvalue()
