"""What a sample of the pictures shows besides the lesion, and its association with the label.

Imports data, the bundle's pixel path and this package.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lesion_triage.audit.artefacts import ARTEFACTS, SIDE_PX, Appearance, measure_appearance
from lesion_triage.audit.association import Association, associations
from lesion_triage.audit.baselines import MIN_PER_CLASS
from lesion_triage.audit.findings import Finding, Measurement, Table, Verdict, not_estimable
from lesion_triage.audit.shortcuts import RowSample, auroc_finding
from lesion_triage.bundle.parallel import thread_map
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.config import Roots
from lesion_triage.console import ProgressCallback
from lesion_triage.data.categorical import Bools, Codes, quantile_bins
from lesion_triage.data.manifest import read_picture
from lesion_triage.data.records import Record, place_of
from lesion_triage.errors import ImageError, ManifestError

TONES = ((55.0, "very light"), (41.0, "light"), (28.0, "intermediate"), (10.0, "tan"), (-30.0, "brown"))
"""Lower ends in degrees (Chardon 1991, del Bino 2013); anything below the last is dark."""

_ARTEFACT_NAMES = {
    "dark_corners": "dark corners",
    "hair": "hair",
    "ink": "ink",
    "ruler": "a ruler",
    "patches": "coloured patches",
}


@dataclass(frozen=True)
class OpenedPictures:
    """Pictures that were opened, in order of the manifest."""

    rows: Codes
    """Rows of the manifest."""
    appearances: tuple[Appearance, ...]
    bytes_per_pixel: NDArray[np.float64]

    def shows(self, artefact: str) -> Bools:
        """Which pictures show it."""
        return np.array([getattr(one, artefact) for one in self.appearances], dtype=np.bool_)

    def ita(self) -> NDArray[np.float64]:
        """Individual typology angle in degrees; NaN if it cannot be estimated."""
        return np.array([one.ita_degrees for one in self.appearances])

    def to_csv(self, records: Sequence[Record]) -> str:
        """CSV for local use only: it names pictures."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["image_id", *ARTEFACTS, "ita_degrees", "bytes_per_pixel"])
        for row, one, density in zip(self.rows, self.appearances, self.bytes_per_pixel, strict=True):
            flags = [getattr(one, name) for name in ARTEFACTS]
            ita = f"{one.ita_degrees:.1f}" if np.isfinite(one.ita_degrees) else ""
            writer.writerow([records[row].image_id, *flags, ita, f"{density:.4f}"])
        return buffer.getvalue()


def draw_balanced(sampled: RowSample, max_pictures: int) -> Codes:
    """Half positives if there are enough, drawn by the seed; that does not bias odds ratios and AUROCs."""
    random = np.random.default_rng([sampled.config.seed, 1])
    positives = random.permutation(sampled.rows[sampled.positive])
    negatives = random.permutation(sampled.rows[~sampled.positive])
    of_positives = min(positives.size, max(max_pictures // 2, max_pictures - negatives.size))
    return np.sort(np.concatenate([positives[:of_positives], negatives[: max_pictures - of_positives]]))


def open_pictures(
    rows: Codes,
    records: Sequence[Record],
    root: Roots,
    limits: PixelSpec,
    progress: ProgressCallback | None = None,
) -> OpenedPictures:
    """Decode and measure pictures, several at a time.

    Raises:
        ManifestError: a picture is gone, has changed, or can no longer be decoded.
    """
    spec = limits.model_copy(update={"size_px": SIDE_PX})

    def measure_one(row: int) -> tuple[Appearance, float]:
        record = records[row]
        data = read_picture(root, record)
        try:
            return measure_appearance(decode(data, spec).pixels), len(data) / (
                record.width_px * record.height_px
            )
        except ImageError as error:
            raise ManifestError(f"{place_of(record)}: {error}") from None

    found = thread_map(measure_one, rows.tolist(), progress)
    return OpenedPictures(
        rows, tuple(appearance for appearance, _ in found), np.array([density for _, density in found])
    )


def check(
    sampled: RowSample, opened_pictures: OpenedPictures
) -> tuple[list[Finding], tuple[Association, ...], list[Table]]:
    """All findings from the opened pictures."""
    config, columns = sampled.config, sampled.columns
    opened_sample = RowSample(columns, opened_pictures.rows, config)
    frame = np.array([one.frame for one in opened_pictures.appearances])
    found = tuple(
        associations({name: opened_pictures.shows(name) for name in ARTEFACTS}, opened_sample.positive)
    )
    by_name = {name: one for one in found for name in one.names}
    findings = [
        auroc_finding(
            "frame_shortcut",
            "the frame of the picture",
            opened_sample.auroc([quantile_bins(values, 6) for values in frame.T]),
            config,
        ),
        auroc_finding(
            "file_size_shortcut",
            "the number of bytes per pixel",
            opened_sample.auroc([quantile_bins(opened_pictures.bytes_per_pixel)]),
            config,
        ),
        *(_artefact_finding(opened_sample, opened_pictures, name, by_name.get(name)) for name in ARTEFACTS),
    ]
    tone, table = skin_tone(opened_sample, opened_pictures)
    return [*findings, tone], found, [table]


def skin_tone(opened_sample: RowSample, opened_pictures: OpenedPictures) -> tuple[Finding, Table]:
    """Counts by estimated tone. It never decides: lighting and camera change it as much as skin does."""
    angles = opened_pictures.ita()
    known = np.isfinite(angles)
    edges = np.array([low for low, _ in reversed(TONES)])
    band = np.searchsorted(edges, angles[known], side="right")
    words = ["dark", *(word for _, word in reversed(TONES))]
    positive = opened_sample.positive[known]
    rows = tuple(
        (word, int((band == number).sum()), int(positive[band == number].sum()))
        for number, word in reversed(list(enumerate(words)))
    )
    rows = (*rows, ("cannot be estimated", int((~known).sum()), int(opened_sample.positive[~known].sum())))
    median = float(np.median(angles[known])) if known.any() else None
    summary = (
        f"The median angle of {int(known.sum())} pictures is {median:.0f} degrees; for "
        f"{int((~known).sum())} it cannot be estimated. The angle is reported and affects no verdict."
        if median is not None
        else "The angle could not be estimated in any picture."
    )
    table = Table(
        "skin_tone",
        "Individual typology angle of the skin around the lesion (Chardon 1991), of the pictures that "
        "were opened. Without colour chart and controlled light it is a hint at who is missing, not a "
        "measurement.",
        ("tone", "pictures", "of them positive"),
        rows,
    )
    numbers = (Measurement("median individual typology angle in degrees", median),)
    return Finding("skin_tone", Verdict.PASS, summary, numbers), table


def _artefact_finding(
    opened_sample: RowSample, opened_pictures: OpenedPictures, name: str, found: Association | None
) -> Finding:
    word = _ARTEFACT_NAMES[name]
    if found is None:
        some = "every" if opened_pictures.shows(name).all() and opened_pictures.rows.size else "none"
        return Finding(
            name, Verdict.PASS, f"The detector sees {word} in {some} of {opened_pictures.rows.size} pictures."
        )
    summary = (
        f"{word[0].upper()}{word[1:]} in {found.share_positive:.1%} of {found.positives} positives and "
        f"{found.share_negative:.1%} of {found.negatives} negatives."
    )
    verdict, numbers = found.verdict(opened_sample.config), (found.to_measurement(opened_sample.config),)
    if verdict is Verdict.PASS and min(found.positives, found.negatives) < MIN_PER_CLASS:
        few = not_estimable(name, f"fewer than ten positive or negative pictures ({summary.rstrip('.')})")
        return replace(few, measured=numbers)
    return Finding(name, verdict, summary, numbers)
