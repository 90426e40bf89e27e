"""What is exported is what `lesion-triage recertify` and `tally` read, to the last bit of a logit."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import open_bundle
from lesion_triage.calibrate.certificate import certified_threshold
from lesion_triage.cli import main
from lesion_triage.clinic import cases as clinic_cases
from lesion_triage.clinic import follow_up
from lesion_triage.data.sources import folder
from triage_server.page import export


def photograph(number: int, difference: int) -> bytes:
    """The tiny graph makes (red - blue) / 10 - 5 of it; squares make each look unlike the others."""
    signs = np.random.default_rng(number).permutation(np.tile((-25, 25), 32)).reshape(8, 8)
    ground = np.array([140 + difference // 2, 120, 140 - (difference - difference // 2)])
    levels = (ground + signs.repeat(14, 0).repeat(14, 1)[..., np.newaxis]).astype(np.uint8)
    picture = Image.fromarray(levels)
    ImageDraw.Draw(picture).rectangle((40, 40, 70, 70), outline=(60, 30, 20), width=3)
    stream = io.BytesIO()
    picture.save(stream, "PNG", exif=b"")
    return stream.getvalue()


def download_export(browser: Any, into: Path) -> Path:
    response = browser.post("/ui/export")
    assert response.status_code == 200
    assert response.headers["content-disposition"].startswith('attachment; filename="outcomes-')
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        archive.extractall(into)
    return into


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def exported(
    app_factory: Any, browse: Any, tmp_path_factory: pytest.TempPathFactory, flagged_bundle: Path
) -> Iterator[tuple[Path, dict[str, float | None]]]:
    """The folder of an export of 14 positive and 4 other cases, and the scores that were shown."""
    home = tmp_path_factory.mktemp("exported")
    with app_factory(home, flagged_bundle) as open_page:
        yield process_cases(browse(open_page()), home / "export")


def process_cases(browser: Any, into: Path, same_person: bool = True) -> tuple[Path, dict[str, float | None]]:
    browser.sign_in("=Dr A")
    scores: dict[str, float | None] = {}
    for number in range(18):
        fields = {"age_years": "61", "sex": "female", "itching": "no"} if number % 2 else {}
        fields |= {"earlier_case": next(iter(scores))} if same_person and number == 1 else {}
        case = browser.send_case(photograph(number, 62 + 3 * number), **fields)
        scores[case] = browser.app.state.page.queue.find(case).answer("en").score
        browser.read_case(case, "override", "+seen before")
        browser.record_outcome(case, "true" if number < 14 else "false")
    waiting, unknown = (browser.send_case(photograph(50 + number, 90)) for number in range(2))
    browser.read_case(unknown)
    browser.record_outcome(unknown, "unknown", "not_yet")
    download_export(browser, into)
    assert waiting not in (into / "readings.csv").read_text()
    return into, scores


def test_export_certifies_a_bundle_again_and_is_counted_for_a_pool(
    exported: tuple[Path, dict[str, float | None]], flagged_bundle: Path, tmp_path: Path, capsys: Any
) -> None:
    into, scores = exported
    table = into / "cases.csv"
    site = ("--cases", str(table), "--site", "Clinic A")
    new = tmp_path / "new"
    levels = ("--target", "0.8", "--confidence", "0.9")
    assert main(["recertify", str(flagged_bundle), *site, *levels, "--out", str(new)]) == 0, (
        capsys.readouterr().err
    )
    certificate = open_bundle(new).certificate
    assert (certificate.site, certificate.positives) == ("Clinic A", 13)
    Scorer(open_bundle(new)).self_test()
    positive = list(scores.values())[:14]
    assert None not in positive
    by_person = [min(positive[:2]), *positive[2:]]  # type: ignore[type-var]
    assert certificate.threshold == certified_threshold(np.array(by_person), 0.8, 0.9)[0]
    counts = tmp_path / "tally.json"  # behind it: what was counted for others is a look too
    assert main(["tally", str(flagged_bundle), *site, "--out", str(counts)]) == 0
    assert json.loads(counts.read_text())["positives"] == 13  # two of the 14 are of one person


def test_exported_photographs_score_as_they_were_scored_and_histories_say_what_was_told(
    exported: tuple[Path, dict[str, float | None]], flagged_bundle: Path
) -> None:
    into, scores = exported
    local = clinic_cases.read(flagged_bundle, into / "cases.csv", None)
    # Two cases were said to be of one person; of the others nobody said whose they are.
    assert (local.unit, local.unnamed_lesions) == ("patient", len(local.cases) - 2)
    assert len(local.cases) == 18
    scorer = Scorer(open_bundle(flagged_bundle))
    for case in local.cases:
        files = sorted((into / "photographs").glob(f"{case.case_id}-*"))
        answer = scorer.score([file.read_bytes() for file in files], case.history)
        assert answer.score == scores[case.case_id]
    told = [case.history for case in local.cases if case.history.age_years is not None]
    assert len(told) == 9
    assert {(one.age_years, one.sex, one.itching, one.bleeding) for one in told} == {
        (61, "female", False, None)
    }


@pytest.mark.parametrize("same_person", [True, False])
def test_certificate_says_of_patients_what_was_said_on_the_page_and_the_readme_foretells_it(
    same_person: bool, app_factory: Any, browse: Any, flagged_bundle: Path, tmp_path: Path
) -> None:
    """Where nobody said whose cases they are, nobody may say that patients are identified."""
    with app_factory(tmp_path, flagged_bundle) as open_page:
        into, _ = process_cases(browse(open_page()), tmp_path / "export", same_person)
    site = ("--cases", str(into / "cases.csv"), "--site", "Clinic A", "--out", str(tmp_path / "new"))
    assert main(["recertify", str(flagged_bundle), *site, "--target", "0.8", "--confidence", "0.9"]) == 0
    certificate = open_bundle(tmp_path / "new").certificate
    said, readme = " ".join(certificate.assumptions), " ".join((into / "README.txt").read_text().split())
    unnamed = "16 lesions name no patient and count" in said
    independent = "patients are not identified in these data; several lesions of one patient" in said
    counted = (certificate.unit, certificate.positives, unnamed, independent)
    assert counted == (("patient", 13, True, False) if same_person else ("lesion", 14, False, True))
    assert ("so recertify and tally count patients: a case without patient_id" in readme) is same_person
    assert ("so recertify and tally count lesions" in readme) is not same_person
    assert "copy its ledger.jsonl here first" in readme
    assert (into / "ledger.jsonl").is_file()


def test_drawn_cases_certify_a_bundle_and_all_cases_are_then_a_second_look(
    app_factory: Any, browse: Any, flagged_bundle: Path, tmp_path: Path, capsys: Any
) -> None:
    with app_factory(tmp_path, flagged_bundle) as open_page:
        browser = browse(open_page(reading_queue_follow_up_share=1.0))
        into, scores = process_cases(browser, tmp_path / "all")
        not_drawn = [list(scores)[position] for position in (3, 5, 15)]  # two positive ones and another
        with closing(sqlite3.connect(tmp_path / "queue.sqlite")) as connection, connection:
            marks = ", ".join("?" * len(not_drawn))
            share = f"UPDATE cases SET drawn = 0, follow_up_share = 0.5 WHERE number IN ({marks})"
            connection.execute(share, not_drawn)
        assert (into / "drawn.csv").read_bytes() == (into / "cases.csv").read_bytes()
        into = download_export(browser, tmp_path / "some")
    kept = [row for row in rows_of(into / "cases.csv") if row["lesion_id"] not in not_drawn]
    assert rows_of(into / "drawn.csv") == kept
    assert len(kept) == 15

    def recertify(table: str) -> int:
        line = ["--cases", str(into / table), "--site", "Clinic A", "--target", "0.8", "--confidence", "0.9"]
        return main(["recertify", str(flagged_bundle), *line, "--out", str(tmp_path / table)])

    assert recertify("drawn.csv") == 0, capsys.readouterr().err
    assert open_bundle(tmp_path / "drawn.csv").certificate.positives == 11  # two of the 12 are one person's
    assert recertify("cases.csv") == 2
    assert "on these cases or on some of them" in capsys.readouterr().err


def test_follow_up_table_is_what_watch_reads(
    exported: tuple[Path, dict[str, float | None]], flagged_bundle: Path, capsys: Any
) -> None:
    into, scores = exported
    table = into / "follow-up.csv"
    read = follow_up.read_cases([table])
    found = {case.case: case.needs_in_person for case in read}
    assert [found.pop(case) for case in scores] == [True] * 14 + [False] * 4
    assert list(found.values()) == [None]
    assert follow_up.count(read, read[0].certificate_id).missed.size == 13  # two of the 14 are one person's
    assert main(["watch", str(flagged_bundle), "--cases", str(table)]) == 0, capsys.readouterr().err
    assert "counted: 13 positive case(s), 0 of them missed" in capsys.readouterr().out


def test_tables_hold_what_their_readers_know_and_no_formula(
    exported: tuple[Path, dict[str, float | None]],
) -> None:
    into, scores = exported
    assert set(export.COLUMNS) <= {*folder.REQUIRED, *folder.OPTIONAL}
    cases, readings = rows_of(into / "cases.csv"), rows_of(into / "readings.csv")
    assert {row["lesion_id"] for row in cases} == set(scores)
    assert sum(bool(row["patient_id"]) for row in cases) == 2
    assert len(readings) == 19
    assert {row["reason"] for row in readings} == {"'+seen before", ""}
    assert {row["read_by"] for row in readings} == {"'=Dr A"}
    outcomes = rows_of(into / "outcomes.csv")
    assert len(outcomes) == 19
    assert {row["outcome_by"] for row in outcomes} == {"'=Dr A"}
    assert [row["needs_in_person"] for row in outcomes].count("") == 1
    referred = sum(score is not None and score >= 0.5 for score in scores.values())
    said = f"needs_in_person: {referred} of {referred + 1} read cases have a known outcome."
    assert said in (into / "README.txt").read_text()


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("-1", "'-1"),
        ("seen;=1+1", "seen;'=1+1"),
        ('seen; "=1+1"', 'seen;\' "=1+1"'),
        ("seen\t@x\n+x\r-x", "seen\t'@x\n'+x\r'-x"),
        ("\uff1d1\uff0b1", "'\uff1d1\uff0b1"),
        ("\tseen", "'\tseen"),
        ("a = b; c + d, e-f", "a = b; c + d, e-f"),
    ],
)
def test_nothing_that_was_typed_begins_a_formula_however_cells_are_parted(typed: str, kept: str) -> None:
    assert export._escape_formula(typed) == kept


def test_every_outcome_has_its_row_and_what_was_confirmed_is_not_lost_to_an_unknown(
    browser: Any, tmp_path: Path
) -> None:
    steady, doubted, changed, withdrawn, open_ = (
        browser.send_case(photograph(number, 90)) for number in range(5)
    )
    for case in (steady, doubted, changed, withdrawn, open_):
        browser.read_case(case)
        browser.read_case(case, "override", "seen again")
    unknown, no, yes = ("unknown", "not_yet"), ("false", "examination"), ("true", "histopathology")
    said = {
        steady: (unknown, yes),
        doubted: (no, yes, unknown),
        changed: (yes, no),
        withdrawn: (yes, unknown),
        open_: (unknown,),
    }
    for case, outcomes in said.items():
        for needs, how in outcomes:
            assert browser.record_outcome(case, needs, how).status_code == 303
    into = download_export(browser, tmp_path / "export")
    cases = {row["lesion_id"]: row["needs_in_person"] for row in rows_of(into / "cases.csv")}
    assert cases == {steady: "true", doubted: "true", changed: "false", withdrawn: "true"}
    assert len(rows_of(into / "readings.csv")) == 10
    rows = [
        (row["case"], row["needs_in_person"], row["confirmed_by"], row["counts"])
        for row in rows_of(into / "outcomes.csv")
    ]
    assert rows == [
        (steady, "", "not_yet", "false"),
        (steady, "true", "histopathology", "true"),
        (doubted, "false", "examination", "false"),
        (doubted, "true", "histopathology", "true"),
        (doubted, "", "not_yet", "false"),
        (changed, "true", "histopathology", "false"),
        (changed, "false", "examination", "true"),
        (withdrawn, "true", "histopathology", "true"),
        (withdrawn, "", "not_yet", "false"),
        (open_, "", "not_yet", "true"),
    ]
    readme = (into / "README.txt").read_text()
    assert f"look at outcomes.csv:\n    {doubted}\n    {changed}\n    {withdrawn}\n" in readme
    assert steady not in readme
    assert "needs_in_person: 4 of 5 read cases have a known outcome." in readme
    warned = [case for case in said if "after an outcome had been confirmed" in page_text_of(browser, case)]
    assert warned == [doubted, changed, withdrawn]
    first = browser.app.state.page.queue.read_cases().cases[0]
    assert first.number == open_


def page_text_of(browser: Any, case: str) -> str:
    text: str = browser.get(f"/ui/cases/{case}").text
    return text


def test_export_comes_piece_by_piece(browser: Any) -> None:
    """So that a whole queue of photographs never lies in memory."""
    for number in range(3):
        case = browser.send_case(photograph(number, 90), photograph(10 + number, 90))
        browser.read_case(case)
        browser.record_outcome(case, "true")
    queue = browser.app.state.page.queue
    sizes = queue.read_cases_with_sizes()
    for limit in (
        {"group_cases": 1},
        {"group_bytes": 1},
        {"group_bytes": 2 * min(size for _, size in sizes) - 1},
    ):
        pieces = list(export.zip_chunks(queue, sizes, **limit))
        assert len(pieces) == 3 + 1, limit  # each case, then the tables
        assert max(len(piece) for piece in pieces[:-1]) < 3 * len(photograph(0, 90))


def test_case_that_is_deleted_while_others_are_exported_is_left_out_of_everything(
    browser: Any, tmp_path: Path
) -> None:
    kept, erased, erased_without_outcome = (browser.send_case(photograph(number, 90)) for number in range(3))
    for case in (kept, erased, erased_without_outcome):
        browser.read_case(case, "override", f"Zz-reason of {case}")
    for case in (kept, erased):
        browser.record_outcome(case, "true")
    queue = browser.app.state.page.queue
    pieces = export.zip_chunks(queue, queue.read_cases_with_sizes(), group_cases=1)
    content = next(pieces)
    queue.delete(erased)
    queue.delete(erased_without_outcome)
    with zipfile.ZipFile(io.BytesIO(content + b"".join(pieces))) as archive:
        everything = "".join(archive.namelist()) + "".join(
            archive.read(name).decode() for name in archive.namelist() if name.endswith((".csv", ".txt"))
        )
    assert kept in everything
    assert erased not in everything
    assert erased_without_outcome not in everything


def test_export_can_be_read_as_a_stream(browser: Any) -> None:
    """Its entries give their size behind their bytes, so that only compressed ones end by themselves."""
    case = browser.send_case(photograph(0, 90))
    browser.read_case(case)
    browser.record_outcome(case, "true")
    with zipfile.ZipFile(io.BytesIO(browser.post("/ui/export").content)) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_DEFLATED}
        assert archive.testzip() is None


def test_export_names_what_this_version_cannot_read_and_holds_all_else(
    browser: Any, tmp_path: Path, written_by_another_version: Any
) -> None:
    whole, answer, history = (browser.send_case(photograph(number, 90)) for number in range(3))
    for case in (whole, answer, history):
        browser.read_case(case)
        browser.record_outcome(case, "true")
    written_by_another_version("answers", answer, "document")
    written_by_another_version("cases", history, "history")
    into = download_export(browser, tmp_path / "export")
    assert [row["lesion_id"] for row in rows_of(into / "cases.csv")] == [whole, answer]
    said = {row["case"]: (row["disposition"], row["bundle_sha256"]) for row in rows_of(into / "readings.csv")}
    bundle = browser.app.state.service.bundle.sha256
    said_of = ("needs_in_person", bundle)
    assert said == {whole: said_of, answer: ("needs_in_person", ""), history: said_of}
    assert f"but they are not in cases.csv:\n    {history}\n" in (into / "README.txt").read_text()
