"""The table of spoilt photographs counts what the gate says, and the figure is drawn from it."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from scipy.stats import binomtest

from lesion_triage.bundle.schema import PixelSpec, QualityLimits, ReasonCode
from lesion_triage.calibrate.metrics import Proportion
from lesion_triage.config import Data, Synthetic
from lesion_triage.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from lesion_triage.data.manifest import build
from lesion_triage.data.synthetic import draw_picture
from lesion_triage.evaluate.corruption_figure import figure
from lesion_triage.evaluate.corruptions import (
    FITTING,
    UNMODIFIED,
    Row,
    files_of,
    markdown,
    measure,
    side_by_side,
)

ROOT = Path(__file__).resolve().parents[2]
SPEC, LIMITS = PixelSpec(size_px=160), QualityLimits()


def file_of(seed):
    stream = io.BytesIO()
    draw_picture("irregular", seed).save(stream, "PNG")
    return stream.getvalue()


FILES = [file_of(seed) for seed in range(6)]
READERS = [lambda data=data: data for data in FILES]


@pytest.fixture(scope="module")
def rows():
    return measure(READERS, SPEC, LIMITS, corruptions=("tiny", "dark"), score=lambda data: float(len(data)))


def test_rows_are_unmodified_and_then_every_severity_of_every_corruption(rows):
    expected = [(name, severity) for name in ("tiny", "dark") for severity in SEVERITIES]
    assert [(row.corruption, row.severity) for row in rows] == [(UNMODIFIED, 0), *expected]


def test_drawings_pass_and_thumbnails_below_the_limit_do_not(rows):
    shares = {row.severity: row.refused for row in rows if row.corruption in (UNMODIFIED, "tiny")}
    assert (shares[0].successes, shares[1].successes) == (0, 0)  # 128 px, limit 100
    for severity in SEVERITIES[1:]:
        assert (shares[severity].successes, shares[severity].trials) == (6, 6)
    exact = binomtest(6, 6).proportion_ci(0.95, "exact")
    assert (shares[5].low, shares[5].high) == pytest.approx((exact.low, exact.high))


def test_pictures_of_one_patient_are_no_more_evidence_than_one_of_them():
    twice = [reader for reader in READERS for _ in range(2)]
    owners = [f"patient-{number // 2}" for number in range(12)]
    found = measure(twice, SPEC, LIMITS, units=owners, corruptions=("tiny",))[-1].refused
    exact = binomtest(6, 6).proportion_ci(0.95, "exact")
    assert (found.successes, found.trials) == (12, 12)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_codes_are_counted_by_picture(rows):
    last = next(row for row in rows if (row.corruption, row.severity) == ("tiny", 5))
    assert last.refusals[ReasonCode.image_too_small] == 6
    assert last.named.value == 1.0


def test_the_model_is_asked_about_the_file_that_the_gate_saw(rows):
    row = next(row for row in rows if (row.corruption, row.severity) == ("dark", 2))
    assert row.logits == tuple(float(len(corrupt(data, "dark", 2))) for data in FILES)


def test_without_a_model_there_are_no_logits():
    assert measure(READERS[:1], SPEC, LIMITS, corruptions=())[0].logits == ()


def test_every_corruption_has_codes_that_fit():
    assert FITTING.keys() == CORRUPTIONS.keys()
    assert all(code.startswith("image_") for codes in FITTING.values() for code in codes)


def test_progress_counts_the_rows():
    seen = []
    measure(READERS[:1], SPEC, LIMITS, corruptions=("tiny",), progress=lambda *counts: seen.append(counts))
    assert seen == [(done, 6) for done in range(1, 7)]


def test_records_are_read_from_their_root(tmp_path):
    manifest = build(Data(source="synthetic", synthetic=Synthetic(lesions=20)), tmp_path / "d")
    row = measure(files_of(manifest.records, tmp_path / "d"), SPEC, LIMITS, corruptions=())[0]
    assert row.refused.trials == len(manifest.records)


def test_the_table_has_a_line_for_each_row_with_the_parameter(rows):
    lines = markdown(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert "| tiny | 5 (32) | 100.0% |" in lines[2 + 5]


def test_the_figure_is_a_picture_with_a_panel_for_each_corruption(rows):
    drawn = Image.open(io.BytesIO(figure({"one": rows, "other": rows})))
    alone = Image.open(io.BytesIO(figure({"one": rows[:6]})))
    assert drawn.format == "PNG"
    assert drawn.tobytes() != alone.tobytes()


def test_the_page_prints_the_recorded_results():
    """Both come from experiments/picture-quality/measure.py, which reads pictures that CI does not have."""
    recorded = json.loads((ROOT / "experiments" / "picture-quality" / "results.json").read_text())
    page = (ROOT / "docs" / "picture-quality.md").read_text()
    rows = {name: [row_of(row) for row in rows] for name, rows in recorded["rows"].items()}
    spoilt = {name: found for name, found in rows.items() if len(found) > 1}
    assert len(spoilt) == 2
    assert side_by_side(spoilt) in page
    for found in rows.values():
        share = found[0].refused
        interval = f"{share.low:.1%} to {share.high:.1%}"
        assert f"| {share.trials:,} | {share.successes} | {share.value:.1%} | {interval} |" in page
    assert recorded["limits"] == LIMITS.model_dump(mode="json")


def row_of(row):
    shares = {name: Proportion(**row[name]) for name in ("refused", "named")}
    return Row(**{**row, **shares, "logits": tuple(row["logits"])})
