"""How the quality gate, and a model behind it, answer photographs that were corrupted on purpose.

Imports bundle, data and calibrate's intervals; the figure is in ``evaluate.corruption_figure``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.parallel import thread_map
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.quality import assess_quality
from lesion_triage.bundle.schema import PixelSpec, QualityLimits, ReasonCode
from lesion_triage.calibrate.clustered_proportions import clustered_proportion
from lesion_triage.calibrate.metrics import Proportion
from lesion_triage.console import ProgressCallback
from lesion_triage.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from lesion_triage.data.manifest import read_picture
from lesion_triage.data.records import Record

UNMODIFIED = "unmodified"

FITTING: Mapping[str, frozenset[ReasonCode]] = MappingProxyType(
    {
        "defocused": frozenset({ReasonCode.image_blurred}),
        "moved": frozenset({ReasonCode.image_blurred}),
        "dark": frozenset({ReasonCode.image_too_dark}),
        "over_exposed": frozenset({ReasonCode.image_too_bright, ReasonCode.image_glare}),
        "tiny": frozenset({ReasonCode.image_too_small, ReasonCode.image_blurred}),
        "recompressed": frozenset({ReasonCode.image_compressed}),
        "cropped": frozenset({ReasonCode.image_lesion_cut_off, ReasonCode.image_no_lesion_found}),
        "colour_cast": frozenset({ReasonCode.image_colour_cast}),
        "glare": frozenset({ReasonCode.image_glare, ReasonCode.image_too_bright}),
    }
)
"""By corruption, the reason codes whose advice would fix it."""


@dataclass(frozen=True, slots=True)
class Row:
    """All pictures under one corruption at one severity; intervals from ``clustered_proportions``."""

    corruption: str
    """One of ``CORRUPTIONS``, or ``UNMODIFIED``."""
    severity: int
    """1 to 5; 0 if unmodified."""
    refused: Proportion
    """Pictures with any refusal, so not scored."""
    named: Proportion
    """Pictures with a refusal or an advice that fits the corruption; if unmodified, with any at all."""
    refusals: Mapping[str, int]
    """Pictures by reason code."""
    advice: Mapping[str, int]
    logits: tuple[float | None, ...] = ()
    """What ``score`` gave, in the order of the pictures; empty without it."""


def measure(
    pictures: Sequence[Callable[[], bytes]],
    spec: PixelSpec,
    limits: QualityLimits,
    *,
    units: Sequence[str] | None = None,
    corruptions: Collection[str] = tuple(CORRUPTIONS),
    seed: int = 0,
    score: Callable[[bytes], float | None] | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[Row, ...]:
    """Corrupt every picture in every way and ask the gate; the unmodified pictures come first.

    Args:
        pictures: each gives the bytes of its file; see ``files_of``.
        spec: of the pixel path.
        limits: of the gate.
        units: the patient of each picture where known, else the lesion: pictures of one unit are not
            independent. None: unknown, and the intervals treat all pictures as independent.
        corruptions: names from ``CORRUPTIONS``.
        seed: of the random part of the corruptions.
        score: gives the logit of a file, None if it is not gradable; must be thread-safe.
        progress: called with the number of rows done and the total.

    Raises:
        ImageError: a picture cannot be decoded even before it is corrupted.
        DataError: there is no such corruption.
    """
    names = range(len(pictures)) if units is None else units
    owners = np.unique(names, return_inverse=True)[1]
    cells = [(UNMODIFIED, 0), *((name, severity) for name in corruptions for severity in SEVERITIES)]
    rows = []
    for name, severity in cells:

        def one(
            read: Callable[[], bytes], name: str = name, severity: int = severity
        ) -> tuple[tuple[ReasonCode, ...], tuple[ReasonCode, ...], float | None]:
            data = read() if name == UNMODIFIED else corrupt(read(), name, severity, seed)
            found = assess_quality(decode(data, spec), limits)
            return found.refusals, found.advice, None if score is None else score(data)

        rows.append(_row(name, severity, thread_map(one, pictures), owners, scored=score is not None))
        if progress is not None:
            progress(len(rows), len(cells))
    return tuple(rows)


def files_of(records: Sequence[Record], root: Path) -> list[Callable[[], bytes]]:
    """Readers of the records' files, checked against the manifest each time they are read."""

    def reader(record: Record) -> Callable[[], bytes]:
        return lambda: read_picture(root, record)

    return [reader(record) for record in records]


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table: share refused with its 95 % interval, share with a fitting remark."""
    lines = [
        "| corruption | severity | refused | 95 % interval | refused or advised, with a fitting code |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        values = CORRUPTIONS[row.corruption].values if row.severity else ()
        level = f"{row.severity} ({values[row.severity - 1]:.3g})" if values else ""
        lines.append(
            f"| {row.corruption} | {level} | {row.refused.value:.1%} | "
            f"{row.refused.low:.1%} to {row.refused.high:.1%} | {row.named.value:.1%} |"
        )
    return "\n".join(lines)


def side_by_side(rows_by_data: Mapping[str, Sequence[Row]]) -> str:
    """Share refused, by corruption and severity, for several datasets; in brackets, with a fitting remark."""
    head = " | ".join(f"severity {severity}" for severity in SEVERITIES)
    lines = [f"| corruption | pictures | {head} |", "|---|---|" + "---|" * len(SEVERITIES)]
    for name in CORRUPTIONS:
        for data, rows in rows_by_data.items():
            found = [row for row in rows if row.corruption == name]
            shares = " | ".join(f"{row.refused.value:.0%} ({row.named.value:.0%})" for row in found)
            if found:
                lines.append(f"| {name} | {data} | {shares} |")
    return "\n".join(lines)


def _row(
    name: str,
    severity: int,
    answers: Sequence[tuple[tuple[ReasonCode, ...], tuple[ReasonCode, ...], float | None]],
    owners: NDArray[np.intp],
    *,
    scored: bool,
) -> Row:
    fitting = FITTING.get(name, frozenset(ReasonCode))
    refused = np.array([bool(refusals) for refusals, _, _ in answers])
    named = np.array([bool(fitting.intersection(refusals + advice)) for refusals, advice, _ in answers])
    return Row(
        corruption=name,
        severity=severity,
        refused=clustered_proportion(refused, owners),
        named=clustered_proportion(named, owners),
        refusals=_counts(refusals for refusals, _, _ in answers),
        advice=_counts(advice for _, advice, _ in answers),
        logits=tuple(logit for _, _, logit in answers) if scored else (),
    )


def _counts(codes: Iterable[tuple[ReasonCode, ...]]) -> dict[str, int]:
    return dict(sorted(Counter(str(code) for some in codes for code in some).items()))
