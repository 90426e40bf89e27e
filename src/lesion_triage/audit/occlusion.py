"""What a trained model still knows when the lesion is covered, and how it compares with metadata alone.

Imports the bundle's graph, data, predictions and this package. Only the validation split is opened.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from lesion_triage.audit.artefacts import lesion_mask
from lesion_triage.audit.baselines import auroc_interval, cross_fitted_scores
from lesion_triage.audit.columns import Columns
from lesion_triage.audit.findings import Finding, Measurement, Table, Verdict, not_estimable
from lesion_triage.audit.shortcuts import RowSample, auroc_measurement, metadata_columns
from lesion_triage.bundle.graph import Graph
from lesion_triage.bundle.parallel import thread_map
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.calibrate.metrics import auroc_difference, auroc_from_scores
from lesion_triage.config import Audit, Roots
from lesion_triage.console import ProgressCallback
from lesion_triage.data.categorical import Bools
from lesion_triage.data.manifest import read_picture
from lesion_triage.data.records import Record
from lesion_triage.data.split import SPLITS
from lesion_triage.predictions import Predictions

Pixels = NDArray[np.uint8]

PICTURES = 300
"""At most; half of them positive if there are enough."""
BOX = 0.70
"""Share of the area that the box over the middle covers (Bissoto 2019, 'bbox70')."""

_MIN_DIFFERENCE = 0.05
_BOOTSTRAP_REPLICATES = 500


def occluded_versions(pixels: Pixels) -> dict[str, Pixels]:
    """The picture with parts painted over in the median skin colour, which is less alien than black.

    Args:
        pixels: (side, side, 3).

    Returns:
        ``lesion``: the lesion and a margin around it. ``box``: the middle 70 % of the area. ``surroundings``:
        everything but the lesion and its margin.
    """
    side = pixels.shape[0]
    size = 2 * round(0.05 * side) + 1
    lesion = cv2.dilate(lesion_mask(pixels).astype(np.uint8), np.ones((size, size), np.uint8)) > 0
    edge = round(side * (1 - BOX**0.5) / 2)
    box: Bools = np.zeros((side, side), dtype=np.bool_)
    box[edge : side - edge, edge : side - edge] = True
    skin = np.median(pixels[~lesion if not lesion.all() else ~box], axis=0).astype(np.uint8)
    painted = {}
    for name, mask in (("lesion", np.asarray(lesion)), ("box", box), ("surroundings", np.asarray(~lesion))):
        painted[name] = pixels.copy()
        painted[name][mask] = skin
    return painted


def measure_occlusion(
    graph: bytes,
    spec: PixelSpec,
    table: Predictions,
    columns: Columns,
    root: Roots,
    config: Audit,
    progress: ProgressCallback | None = None,
) -> tuple[Finding, Table]:
    """Score validation pictures, whole and covered.

    Raises:
        ManifestError: a picture changed since the manifest was made.
        ScoringError: the graph's logit is not finite.
    """
    rows = _draw_validation_rows(table, columns, config.seed)
    session = Graph(graph, spec)
    records = [columns.records[row] for row in rows]
    positive = columns.positive[rows] == 1

    def one(record: Record) -> tuple[float, ...]:
        pixels = decode(read_picture(root, record), spec).pixels
        return (
            session.logit(pixels),
            *(session.logit(painted) for painted in occluded_versions(pixels).values()),
        )

    logits = thread_map(one, records, progress)
    return _finding_and_table(np.array(logits).reshape(len(records), 4), positive, config)


def model_and_metadata(table: Predictions, sampled: RowSample) -> Finding:
    """The model compared with age, sex and site, on the same validation photographs of different units.

    The regression on age, sex and site is fitted on train, as the model is.
    """
    rows, logits = _rows_with_logits(table, sampled)
    positive = sampled.columns.positive[rows] == 1
    in_validation = sampled.columns.split[sampled.rows] == SPLITS.index("validation")
    fitted = cross_fitted_scores(metadata_columns(sampled), sampled.positive, in_validation.astype(np.intp))
    if fitted is None or not 0 < positive.sum() < positive.size:
        return not_estimable("model_and_metadata", "too few rows of a class")
    by_row = dict(zip(sampled.rows.tolist(), fitted, strict=True))
    metadata = np.array([by_row[row] for row in rows.tolist()])
    found = auroc_difference(
        _ranks(logits), _ranks(metadata), positive, _BOOTSTRAP_REPLICATES, sampled.config.seed
    )
    counts = int(positive.sum()), int((~positive).sum())
    model = auroc_interval(auroc_from_scores(logits, positive), *counts)
    other = auroc_interval(auroc_from_scores(metadata, positive), *counts)
    if found is None:
        return not_estimable("model_and_metadata", "too few rows of a class")
    return Finding(
        "model_and_metadata",
        Verdict.PASS if found.low > 0 else Verdict.WARN,
        f"On {positive.size} validation photographs the model's AUROC is {model.value:.3f}, that of age, "
        f"sex and site {other.value:.3f}; difference {found.value:.3f} ({found.low:.3f} to "
        f"{found.high:.3f}).",
        (
            auroc_measurement("AUROC of the model", model),
            auroc_measurement("AUROC of age, sex and site", other),
            Measurement("difference", found.value, found.low, found.high, "warn if the interval reaches 0"),
        ),
    )


def model_within_source(table: Predictions, sampled: RowSample) -> Finding:
    """AUROC over all pairs, and over pairs of the same source."""
    rows, logits = _rows_with_logits(table, sampled)
    positive = sampled.columns.positive[rows] == 1
    source = sampled.columns.categorical("source").take(rows)
    counts = int(positive.sum()), int((~positive).sum())
    if not all(counts):
        return not_estimable("model_within_source", "no photograph of a class has a logit")
    pooled = auroc_interval(auroc_from_scores(logits, positive), *counts)
    within, pairs, variance = 0.0, 0.0, 0.0
    for code in np.unique(source.codes):
        here = source.codes == code
        yes, no = int(positive[here].sum()), int((~positive[here]).sum())
        if yes and no:
            one = auroc_interval(auroc_from_scores(logits[here], positive[here]), yes, no)
            within += yes * no * one.value
            variance += (yes * no * (one.high - one.low) / 2) ** 2
            pairs += yes * no
    if not pairs:
        return not_estimable("model_within_source", "no source has both classes")
    value, half = within / pairs, float(np.sqrt(variance)) / pairs
    warns = pooled.value - value > _MIN_DIFFERENCE and value + half < pooled.value
    return Finding(
        "model_within_source",
        Verdict.WARN if warns else Verdict.PASS,
        f"The model's AUROC on validation is {pooled.value:.3f} over all pairs and {value:.3f} over pairs "
        "of the same source.",
        (
            auroc_measurement("AUROC over all pairs", pooled),
            Measurement(
                "AUROC over pairs of the same source",
                value,
                max(value - half, 0.0),
                min(value + half, 1.0),
                "warns if the interval is below the AUROC over all pairs and the difference exceeds "
                f"{_MIN_DIFFERENCE:g}",
            ),
        ),
    )


def _finding_and_table(logits: NDArray[np.float64], positive: Bools, config: Audit) -> tuple[Finding, Table]:
    counts = int(positive.sum()), int((~positive).sum())
    names = ("whole", "lesion covered", "middle 70 % covered", "only lesion and rim left")
    if not all(counts):
        nothing = Table("occlusion", "Not estimable.", ("picture",), ())
        return not_estimable("lesion_covered", "no picture of a class"), nothing
    found = [auroc_interval(auroc_from_scores(column, positive), *counts) for column in logits.T]
    moved = np.abs(logits - logits[:, :1]).mean(axis=0)
    rows = tuple(
        (name, one.value, one.low, one.high, float(change))
        for name, one, change in zip(names, found, moved, strict=True)
    )
    warns = max(found[1].low, found[2].low) > config.warn_auroc
    finding = Finding(
        "lesion_covered",
        Verdict.WARN if warns else Verdict.PASS,
        f"AUROC on {positive.size} validation pictures: whole {found[0].value:.3f}, lesion covered "
        f"{found[1].value:.3f}, middle 70 % covered {found[2].value:.3f}, only the lesion left "
        f"{found[3].value:.3f}.",
        tuple(
            auroc_measurement(f"AUROC, {name}", one)
            if number in (0, 3)
            else Measurement(
                f"AUROC, {name}",
                one.value,
                one.low,
                one.high,
                f"interval above {config.warn_auroc:g} warns",
            )
            for number, (name, one) in enumerate(zip(names, found, strict=True))
        ),
    )
    table = Table(
        "occlusion",
        "How well the model ranks when parts of the picture are painted over in the median colour of the "
        "skin. The last column is the mean change of the logit.",
        ("picture", "AUROC", "from", "to", "mean change"),
        rows,
    )
    return finding, table


def _draw_validation_rows(table: Predictions, columns: Columns, seed: int) -> list[int]:
    """Validation rows that the quality gate let through, one for each unit and label."""
    gradable = {row.image_id for row in table.rows if row.logit is not None}
    in_validation = columns.split[columns.representatives(seed)] == SPLITS.index("validation")
    rows = [
        row
        for row in columns.representatives(seed)[in_validation].tolist()
        if columns.records[row].image_id in gradable
    ]
    order = np.random.default_rng([seed, 2]).permutation(len(rows))
    shuffled = [rows[place] for place in order]
    positives = [row for row in shuffled if columns.positive[row] == 1]
    negatives = [row for row in shuffled if columns.positive[row] == 0]
    half = min(len(positives), max(PICTURES // 2, PICTURES - len(negatives)))
    return sorted([*positives[:half], *negatives[: PICTURES - half]])


def _rows_with_logits(table: Predictions, sampled: RowSample) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Representative validation rows with a logit."""
    logit = {row.image_id: row.logit for row in table.rows if row.logit is not None}
    records: Sequence[Record] = sampled.columns.records
    rows = [row for row in sampled.rows.tolist() if records[row].image_id in logit]
    return np.array(rows, dtype=np.intp), np.array([logit[records[row].image_id] for row in rows])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks in [0, 1]; ties share a rank."""
    ranks = np.unique(values, return_inverse=True)[1]
    return np.asarray(ranks / max(int(ranks.max(initial=0)), 1), dtype=np.float64)
