from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pytest

from lesion_triage.audit import balance, checks, raw_tables, shortcuts
from lesion_triage.audit.columns import Columns
from lesion_triage.audit.findings import Verdict
from lesion_triage.audit.raw_tables import EmptyCells
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.config import Audit

TABLES = Audit(pictures=0)


def sampled(made, count=2000, config=TABLES, seed=0, **columns):
    return shortcuts.RowSample.draw(Columns.from_manifest(*made(count, seed, **columns)), config)


def test_nothing_planted_nothing_found(made, tmp_path):
    known, splits = made(3000)
    report, _ = checks.audit_data(checks.AuditInput(known, splits, tmp_path, PixelSpec(size_px=64)), TABLES)
    assert report.verdict is Verdict.PASS, [one.summary for one in report.findings if one.verdict != "pass"]


def test_a_source_that_is_the_label_fails(made):
    found, table = shortcuts.source_shortcut(
        sampled(made, source=lambda r, p: "clinic" if p else "screening")
    )
    assert found.verdict is Verdict.FAIL
    assert set(found.subjects) == {"clinic", "screening"}
    assert {row[0] for row in table.rows} == {"clinic", "screening"}


def test_the_one_source_without_positives_is_named_and_the_others_are_not(made):
    def source(random, positive):
        return random.choice(["a", "b", "c"]) if positive or random.random() < 0.35 else "screening"

    found, table = shortcuts.source_shortcut(sampled(made, source=source))
    assert found.verdict is not Verdict.PASS
    assert found.subjects == ("screening",)
    row = next(row for row in table.rows if row[0] == "screening")
    assert row[2] == 0
    assert row[6] < 0.6  # without it the source tells nothing


def test_a_size_that_tells_the_label_fails(made):
    found = shortcuts.size_shortcut(sampled(made, width_px=lambda r, p: 1024 if p else 1025))
    assert found.verdict is Verdict.FAIL


def test_age_alone_is_measured_and_is_no_fault(made):
    found = shortcuts.metadata_baseline(
        sampled(made, age_approx=lambda r, p: float(np.clip(r.normal(70 if p else 45, 10), 1, 99)))
    )
    assert found.verdict is Verdict.PASS
    assert found.measured[0].low > 0.9


def test_gaps_of_one_class_only_fail_and_the_column_is_named(made):
    drawn = sampled(made, sex=lambda r, p: "female" if p or r.random() < 0.4 else "")
    found, _ = shortcuts.missingness(drawn, EmptyCells({}))
    assert found.verdict is Verdict.FAIL
    assert found.subjects == ("sex",)
    # Unknown filled in with the commonest word tells nothing; as a word of its own it does.
    plain, with_gaps = shortcuts.metadata_baseline(drawn).measured
    assert plain.value < 0.6 < with_gaps.value


def test_gaps_of_too_few_positives_to_tell_are_no_pass_unless_they_warn_all_the_same(made):
    found, _ = shortcuts.missingness(sampled(made, 24, seed=3), EmptyCells({}))
    assert found.verdict is Verdict.WARN
    assert found.summary.startswith("Not estimable: fewer than ten positive or negative rows.")
    drawn = sampled(made, 24, seed=3, sex=lambda r, p: "" if p else "female")
    found, _ = shortcuts.missingness(drawn, EmptyCells({}))
    assert found.subjects == ("sex",)
    assert found.summary.endswith("empty cells predict the label in 1 columns.")


def test_gaps_in_a_column_that_the_manifest_does_not_keep_are_found_in_the_datasets_own_table(made, tmp_path):
    known, splits = made(1000)
    with (tmp_path / "metadata.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "smoke", "region"])
        for record in known.records:
            writer.writerow([record.path.split("/")[1], "yes" if record.needs_in_person else "UNK", "arm"])
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    (tmp_path / "broken.csv").write_bytes(b"\xff\xfe\x00")
    columns = Columns.from_manifest(known, splits)
    raw = raw_tables.empty_cells(tmp_path, columns.records)
    assert raw.unreadable == ("broken.csv",)
    assert raw.unmatched == ("notes.csv",)
    assert set(raw.empty) == {"metadata.csv: smoke", "metadata.csv: region"}
    found, _ = shortcuts.missingness(shortcuts.RowSample.draw(columns, TABLES), raw)
    assert found.verdict is Verdict.FAIL
    assert found.subjects == ("metadata.csv: smoke",)


def test_a_table_that_cannot_be_read_is_a_warning_and_named(made, tmp_path):
    known, splits = made(300)
    (tmp_path / "cases.csv").write_bytes("image,smoke\nä,1\n".encode("utf-16"))
    (tmp_path / "._cases.csv").write_bytes(b"\x00\x05\x16\x07\xff")  # a file manager's, no table
    report, _ = checks.audit_data(checks.AuditInput(known, splits, tmp_path, PixelSpec(size_px=64)), TABLES)
    (found,) = [one for one in report.findings if one.code == "missingness"]
    assert found.verdict is Verdict.WARN
    assert "cannot be read as a UTF-8 table" in found.summary
    assert found.summary.endswith(": cases.csv.")


def beside(folder, records, header, line, name="cases.csv"):
    """Gaps of a table with a line for each record: FILE is its name, GAP is empty in a negative."""
    made = (
        line.replace("FILE", record.path.split("/")[1]).replace(
            "GAP", "yes" if record.needs_in_person else ""
        )
        for record in records
    )
    (folder / name).write_text("\n".join((*header, *made)), encoding="utf-8")
    return raw_tables.empty_cells(folder, records)


@pytest.mark.parametrize("name", ["cases.csv", "cases.tab", "cases.tsv", "cases"])
def test_a_table_with_tabs_is_looked_into_as_the_readers_of_the_datasets_do(made, tmp_path, name):
    known, _ = made(200)
    found = beside(tmp_path, known.records, ["image\tsmoke"], "FILE\tGAP", name)
    assert found.empty[f"{name}: smoke"].tolist() == [not one.needs_in_person for one in known.records]


@pytest.mark.parametrize("line", ["FILE,GAP", "FILE,GAP,,"])
def test_a_table_of_the_pictures_whose_rows_have_another_length_is_named_as_unread(made, tmp_path, line):
    found = beside(tmp_path, made(200)[0].records, ["image,smoke,age"], line)
    assert (found.empty, found.unreadable) == ({}, ("cases.csv",))


def test_a_table_without_a_header_gives_no_name_of_a_person_to_the_report(made, tmp_path):
    known, splits = made(200)
    beside(tmp_path, known.records, [], "FILE,Jane Roe,GAP")
    report, _ = checks.audit_data(checks.AuditInput(known, splits, tmp_path, PixelSpec(size_px=64)), TABLES)
    assert "Jane Roe" not in report.to_json()
    (found,) = [one for one in report.findings if one.code == "missingness"]
    assert found.summary.endswith(": cases.csv.")
    assert found.verdict is Verdict.WARN


def test_two_columns_of_one_name_and_one_without_a_name_are_all_looked_into(made, tmp_path):
    empty = beside(tmp_path, made(100)[0].records, ["image,smoke,smoke,,age"], "FILE,,yes,no,1").empty
    assert {name: bool(cells.all()) for name, cells in empty.items()} == {
        "cases.csv: smoke (column 2)": True,
        "cases.csv: smoke (column 3)": False,
        "cases.csv: column 4": False,
        "cases.csv: age": False,
    }


@pytest.mark.parametrize("word", ["", "  ", "-", "?", "None", "missing", "Not available", "n.a.", "UNK"])
def test_a_cell_is_empty_in_the_audit_where_the_manifest_takes_it_for_unknown(made, tmp_path, word):
    found = beside(tmp_path, made(50)[0].records, ["image,smoke"], f"FILE,{word}")
    assert found.empty["cases.csv: smoke"].all()


def test_a_diagnosis_that_only_positives_have_is_the_label_and_no_gap(made, tmp_path):
    header = ["image,diagnosis,diagnosis_confirm_type,smoke"]
    found = beside(tmp_path, made(50)[0].records, header, "FILE,GAP,GAP,GAP")
    assert set(found.empty) == {"cases.csv: smoke"}


def test_empty_rows_that_a_spreadsheet_leaves_do_not_hide_the_table(made, tmp_path):
    records = made(50)[0].records
    lines = [f"{one.image_id},{'' if n % 2 else 'yes'}" for n, one in enumerate(records)]
    (tmp_path / "cases.csv").write_text("\n".join(["image,smoke", *lines, *["  ,"] * 200]))
    found = raw_tables.empty_cells(tmp_path, records)
    assert found.empty["cases.csv: smoke"].sum() == len(records) // 2
    assert not found.unmatched


def test_a_table_of_another_dialect_is_named_and_not_passed_over(made, tmp_path):
    known, splits = made(100)
    (tmp_path / "LICENSE").write_text("Free for all.\n")
    tables = beside(tmp_path, known.records, ["image;smoke"], "FILE;GAP")
    found, _ = shortcuts.missingness(
        shortcuts.RowSample.draw(Columns.from_manifest(known, splits), TABLES), tables
    )
    assert "no column names the pictures: cases.csv." in found.summary


def test_many_gaps_that_tell_the_label_only_together_say_so_where_they_fail(made):
    drawn = sampled(made, 150)
    random = np.random.default_rng(0)
    positive = drawn.columns.positive == 1
    raw = {f"t.csv: {n}": random.random(150) < np.where(positive, 0.57, 0.43) for n in range(90)}
    found, tested = shortcuts.missingness(drawn, EmptyCells(raw))
    assert all(one.verdict(TABLES) is Verdict.PASS for one in tested)  # else this shows nothing
    assert found.verdict is Verdict.FAIL
    assert "together predict the label" in found.summary
    assert "None of" not in found.summary


def test_the_table_of_each_part_of_a_mixture_speaks_of_that_part_s_pictures(made, tmp_path):
    known, _ = made(400)
    halves = {"a": known.records[:200], "b": known.records[200:]}
    records = [
        replace(one, image_id=f"{part}:images/{one.image_id}.jpg", path=f"{part}/images/{one.image_id}.jpg")
        for part, half in halves.items()
        for one in half
    ]
    for part, half in halves.items():
        (tmp_path / part).mkdir()
        lines = [f"images/{one.image_id}.jpg,{'yes' if n % 2 else ''}" for n, one in enumerate(half)]
        (tmp_path / part / "cases.csv").write_text("\n".join(["image,bleeding", *lines]))
    found = raw_tables.empty_cells({part: tmp_path / part for part in halves}, records)
    assert {name: empty.tolist() for name, empty in found.empty.items()} == {
        "a/cases.csv: bleeding": [n % 2 == 0 for n in range(200)] + [False] * 200,
        "b/cases.csv: bleeding": [False] * 200 + [n % 2 == 0 for n in range(200)],
    }


def test_a_part_s_table_also_speaks_of_pictures_that_another_part_has_under_the_same_id(made, tmp_path):
    known, _ = made(100)
    records = [
        replace(one, image_id=f"ISIC_{n}", path=f"ham/x/ISIC_{n}.jpg") for n, one in enumerate(known.records)
    ]
    lines = [f"ISIC_{n},{'' if n < 5 else 'male'}" for n in range(len(records))]
    for part in ("ham", "isic"):
        (tmp_path / part).mkdir()
    (tmp_path / "isic" / "truth.csv").write_text("\n".join(["image,sex", *lines]))
    found = raw_tables.empty_cells({part: tmp_path / part for part in ("ham", "isic")}, records)
    assert found.empty["isic/truth.csv: sex"].nonzero()[0].tolist() == [0, 1, 2, 3, 4]


def test_a_name_that_fits_two_pictures_matches_neither(made, tmp_path):
    known, _ = made(300, path=lambda r, p: f"{r.integers(1_000_000_000)}/same.jpg")
    assert "same" not in raw_tables._rows_by_name(known.records)
    assert known.records[0].path in raw_tables._rows_by_name(known.records)


@pytest.mark.slow
def test_null_data_warn_no_more_often_than_promised(made, tmp_path):
    config, spec, sets = (
        Audit(pictures=0, warn_odds_ratio=1.0, warn_auroc=0.55, false_alarm=0.05),
        PixelSpec(size_px=64),
        120,
    )
    warned = 0
    for seed in range(sets):
        known, splits = made(300, seed)
        report, _ = checks.audit_data(checks.AuditInput(known, splits, tmp_path, spec), config)
        checked = [one for one in report.findings if one.code != "skin_type_balance"]
        warned += any(one.verdict is not Verdict.PASS for one in checked)
    assert warned / sets <= 0.08 + 3 * math.sqrt(0.08 * 0.92 / sets)


def test_null_data_at_the_default_limits_hardly_ever_warn(made, tmp_path):
    spec = PixelSpec(size_px=64)
    warned = 0
    for seed in range(25):
        known, splits = made(400, seed + 1000)
        report, _ = checks.audit_data(checks.AuditInput(known, splits, tmp_path, spec), TABLES)
        warned += report.verdict is not Verdict.PASS
    assert warned <= 2  # at a rate of 0.01, as one family allows, more has a chance below 0.003


def test_dark_skin_that_is_missing_or_never_stated_warns(made):
    fine = Columns.from_manifest(*made(600))
    assert balance.skin_type_balance(fine).verdict is Verdict.PASS
    light = Columns.from_manifest(
        *made(600, fitzpatrick_skin_type=lambda r, p: str(r.choice(["I", "II", "III"])))
    )
    assert balance.skin_type_balance(light).verdict is Verdict.WARN
    pairs = Columns.from_manifest(
        *made(600, fitzpatrick_skin_type=lambda r, p: str(r.choice(["I-II", "V-VI"])))
    )
    assert balance.skin_type_balance(pairs).verdict is Verdict.PASS
    silent = balance.skin_type_balance(
        Columns.from_manifest(*made(600, fitzpatrick_skin_type=lambda r, p: ""))
    )
    assert silent.verdict is Verdict.WARN
    assert "No record states" in silent.summary


def test_splits_of_another_make_up_warn(made):
    known, splits = made(1200)
    by_id = {record.image_id: record for record in known.records}
    skewed = {
        image_id: "test" if name == "calibration" and by_id[image_id].needs_in_person else name
        for image_id, name in splits.assignment.items()
    }
    assert balance.split_balance(Columns.from_manifest(known, splits), TABLES)[0].verdict is Verdict.PASS
    dealt = type(splits)(splits.manifest_sha256, 0, splits.fractions, skewed)
    assert balance.split_balance(Columns.from_manifest(known, dealt), TABLES)[0].verdict is Verdict.WARN


def test_the_balance_table_counts_units_and_not_photographs(made):
    columns = Columns.from_manifest(*made(900, per_lesion=3))
    _, table = balance.balance(columns)
    assert sum(row[2] for row in table.rows if str(row[0]).startswith("class")) == 300
    assert sum(row[1] for row in table.rows if str(row[0]).startswith("class")) == 900


@pytest.mark.parametrize("positives", [0, 9])
def test_what_cannot_be_estimated_warns_and_does_not_pass(made, tmp_path, positives):
    known, splits = made(300)
    modelled = {*splits.image_ids("train"), *splits.image_ids("validation")}
    chosen = set(sorted(modelled)[:positives])
    records = tuple(replace(one, needs_in_person=one.image_id in chosen) for one in known.records)
    data = checks.AuditInput(replace(known, records=records), splits, tmp_path, PixelSpec(size_px=64))
    report, _ = checks.audit_data(data, TABLES)
    verdicts = {one.code: one.verdict for one in report.findings if "Not estimable" in one.summary}
    warned = ("source_shortcut", "size_shortcut", "missingness")
    assert {code: verdicts.pop(code) for code in warned} == dict.fromkeys(warned, Verdict.WARN)
    assert verdicts == {"metadata_baseline": Verdict.PASS}  # which never decides


def test_one_source_alone_cannot_tell_anything(made):
    found, table = shortcuts.source_shortcut(sampled(made, 400, source=lambda r, p: "clinic"))
    assert found.verdict is Verdict.PASS
    assert len(table.rows) == 1
