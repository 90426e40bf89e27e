"""What is known of public datasets is found. Reads tables and, where it must, pictures."""

from __future__ import annotations

import csv

import pytest

from lesion_triage.audit import checks, leakage, raw_tables, shortcuts
from lesion_triage.audit.columns import Columns
from lesion_triage.audit.findings import Verdict
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.cli import main
from lesion_triage.config import Audit, Data, Split
from lesion_triage.data import manifest as manifests
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.records import Record
from lesion_triage.data.split import split

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def ham10000(data_root):
    root = data_root / "ham10000"
    known = manifests.build(Data(source="ham10000"), root)
    return checks.AuditInput(known, split(known, "0" * 64, Split()), root, PixelSpec(size_px=160))


def test_the_source_without_positives_is_named_in_ham10000(ham10000):
    sampled = shortcuts.RowSample.draw(Columns.from_manifest(ham10000.manifest, ham10000.splits), Audit())
    found, table = shortcuts.source_shortcut(sampled)
    assert found.verdict is Verdict.FAIL
    assert found.subjects == ("vidir_molemax",)
    row = next(row for row in table.rows if row[0] == "vidir_molemax")
    assert row[3] == pytest.approx(0.007, abs=0.003)


def test_the_two_pairs_of_equal_files_are_found_in_ham10000(ham10000):
    found = leakage.duplicate_files(Columns.from_manifest(ham10000.manifest, ham10000.splits))
    assert found.local == ("ISIC_0024366 = ISIC_0029861", "ISIC_0024777 = ISIC_0029938")


def test_the_gaps_of_pad_ufes_20_fail_and_their_columns_are_named(data_root):
    root = data_root / "pad_ufes_20"
    with (root / "metadata.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    records = tuple(
        Record(
            image_id=row["img_id"].removesuffix(".png"),
            path=f"images/{row['img_id'].removesuffix('.png')}.jpg",
            lesion_id=row["lesion_id"],
            patient_id=row["patient_id"],
            needs_in_person=row["diagnostic"] in ("BCC", "MEL", "SCC"),
            source="pad_ufes_20",
            sha256=row["img_id"],
            width_px=300,
            height_px=300,
        )
        for row in rows
    )
    known = Manifest(tuple(sorted(records, key=lambda record: record.image_id)), "folder", synthetic=False)
    columns = Columns.from_manifest(known, split(known, "0" * 64, Split()))
    raw = raw_tables.empty_cells(root, columns.records)
    found, _ = shortcuts.missingness(shortcuts.RowSample.draw(columns, Audit()), raw)
    assert found.verdict is Verdict.FAIL
    named = {name.removeprefix("metadata.csv: ") for name in found.subjects}
    assert {"fitspatrick", "gender", "diameter_1", "diameter_2", "smoke"} <= named
    assert not {"age", "region", "itch", "diagnostic"} & named


@pytest.mark.parametrize("name", ["ham10000.yaml", "pad_ufes_20.yaml", "ham10000_pad_ufes_20.yaml"])
def test_a_shipped_configuration_is_let_past_the_audit(name, data_root, tmp_path):
    """What the audit has learnt to find since the configuration was written was looked at there too."""
    root = data_root if name == "ham10000_pad_ufes_20.yaml" else data_root / name.split(".")[0]
    command = ["audit", f"configs/{name}", "--data-root", str(root), "--runs", str(tmp_path)]
    assert main([*command, "--set", "tracking.enabled=false"]) == 0
