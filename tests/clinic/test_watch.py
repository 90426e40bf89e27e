"""The verb ``watch``: tables of answered cases against a bundle's certificate, from the command line."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import tiny_bundle
from lesion_triage import cli
from lesion_triage.calibrate.sequential import log_evidence_below, lower_bound
from lesion_triage.clinic import watch as watch_verb
from lesion_triage.clinic.follow_up import COLUMNS, count, read_cases
from lesion_triage.errors import DataError

HEAD = ",".join(COLUMNS)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny_bundle.make(tmp_path_factory.mktemp("watched") / "bundle")


@pytest.fixture
def table(tmp_path, bundle):
    """Writes a table; each case is (outcome, disposition, share, drawn) in order of arrival, a day apart."""

    def write(cases, name="follow-up.csv", first=0, patients=None):
        certificate = bundle.certificate.certificate_id()
        rows = []
        for number, (outcome, disposition, share, drawn) in enumerate(cases, first):
            day = np.datetime64("2026-01-01T08:00:00") + np.timedelta64(number, "D")
            cells = [f"case-{number:04}", f"{day}+00:00", certificate, disposition, share, drawn, outcome]
            if patients is not None:
                cells.append(patients[number - first])
            rows.append(",".join(str(cell) for cell in cells))
        head = HEAD if patients is None else f"{HEAD},patient_id"
        path = tmp_path / name
        path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
        return path

    return write


REFERRED = ("true", "needs_in_person", "0.5", "false")
UNGRADABLE = ("true", "ungradable", "0.5", "true")
FOUND_BY_DRAWING = ("true", "below_threshold", "0.5", "true")
FOUND_BY_CHANCE = ("true", "below_threshold", "0.5", "false")
NOT_LOOKED_FOR = ("", "below_threshold", "0.5", "false")
LOST = ("", "below_threshold", "0.5", "true")
HARMLESS = ("false", "below_threshold", "0.5", "true")
SENT_FOR_NOTHING = ("false", "needs_in_person", "0.5", "true")


def counted_in(bundle, *tables):
    return count(read_cases(tables), bundle.certificate.certificate_id())


def run(capsys, *words):
    status = cli.main([str(word) for word in words])
    said = capsys.readouterr()
    return status, said.out, said.err


def watch(capsys, bundle, *words):
    return run(capsys, "watch", bundle.folder, "--cases", *words)


def test_only_what_was_to_become_known_is_counted(bundle, table):
    below = [FOUND_BY_DRAWING, FOUND_BY_CHANCE, NOT_LOOKED_FOR, LOST, HARMLESS]
    cases = [REFERRED, UNGRADABLE, *below, SENT_FOR_NOTHING]
    counted = counted_in(bundle, table(cases))
    assert counted.missed.tolist() == [False, False, True]
    assert counted.share.tolist() == [0.5, 0.5, 0.5]
    assert counted.not_drawn == 1


def test_of_one_person_only_the_first_case_counts_even_if_it_turns_out_harmless(bundle, table):
    patients = ["a", "a", "b", "b", "", ""]
    cases = [REFERRED, FOUND_BY_DRAWING, HARMLESS, FOUND_BY_DRAWING, REFERRED, REFERRED]
    counted = counted_in(bundle, table(cases, patients=patients))
    assert counted.missed.tolist() == [False, False, False]
    assert counted.later_cases == 2


def test_a_person_with_an_earlier_case_under_another_certificate_does_not_count(capsys, bundle, table):
    """Who was drawn then was called in, and so comes again more often: of later cases more are drawn."""
    path = table([HARMLESS, FOUND_BY_DRAWING, FOUND_BY_DRAWING, REFERRED], patients=["a", "a", "b", "c"])
    head, first, *rest = path.read_text().splitlines()
    first = first.replace(bundle.certificate.certificate_id(), "0" * 16)
    path.write_text("\n".join([head, first, *rest]) + "\n")
    counted = counted_in(bundle, path)
    assert (counted.missed.tolist(), counted.later_cases) == ([True, False], 1)
    _, said, _ = watch(capsys, bundle, path)
    assert "left out 1 case(s) that were answered under other certificates" in said
    assert "not counted: 1 case(s) of people who have an earlier one" in said
    assert "counted: 2 positive case(s), 1 of them missed" in said


def test_of_a_case_in_two_tables_the_later_row_counts(bundle, table):
    early, late = table([LOST, REFERRED]), table([FOUND_BY_DRAWING], "later.csv")
    assert counted_in(bundle, early, late).missed.tolist() == [True, False]
    assert counted_in(bundle, late, early).missed.tolist() == [False]


def test_cases_of_one_second_stay_in_the_order_of_their_table(bundle, table):
    path = table([HARMLESS, FOUND_BY_DRAWING], patients=["a", "a"])
    text = path.read_text().replace("2026-01-02", "2026-01-01").replace("case-0000", "case-9999")
    path.write_text(text)
    assert counted_in(bundle, path).missed.size == 0


def test_no_case_is_said_to_be_none(capsys, bundle, table):
    assert "the tables have no case." in watch(capsys, bundle, table([]))[2]
    _, _, error = watch(capsys, bundle, table([REFERRED]), "--until", "2026-01-01")
    assert "no case arrived before 2026-01-01." in error


def test_many_misses_fail_the_certificate_and_end_with_1(capsys, bundle, table, tmp_path):
    path = table([REFERRED, *[FOUND_BY_DRAWING] * 12, REFERRED])
    written = tmp_path / "watch.json"
    status, said, _ = watch(capsys, bundle, path, "--json", written)
    assert status == 1
    document = json.loads(written.read_text())
    counted = counted_in(bundle, path)
    evidence = log_evidence_below(bundle.certificate.target_sensitivity, counted.missed, counted.share)
    enough = int(np.argmax(evidence >= np.log(20)))
    assert 0 < enough < 12
    assert document["verdict"] == "fails"
    assert document["failed_at"] == counted.arrived_at[enough].isoformat()
    assert document["greatest_log_evidence"] == pytest.approx(evidence.max())
    assert f"the certificate FAILS, at the latest since {counted.arrived_at[enough]:%Y-%m-%d}: refer" in said
    assert "counted: 14 positive case(s), 12 of them missed; estimated sensitivity 0.077" in said


def test_an_alarm_stays_when_good_cases_follow(capsys, bundle, table):
    status, said, _ = watch(capsys, bundle, table([*[FOUND_BY_DRAWING] * 8, *[REFERRED] * 400]))
    assert status == 1
    assert "FAILS" in said


def test_many_referred_cases_uphold_it(capsys, bundle, table, tmp_path):
    cases = [("true", "needs_in_person", "1", "true")] * 300
    written = tmp_path / "watch.json"
    status, said, _ = watch(capsys, bundle, table(cases), "--json", written)
    assert status == 0
    assert "the certificate HOLDS: a lower sensitivity is refuted" in said
    assert "no case is below the threshold, so no miss can be among them" in said
    bound = lower_bound(0.95, np.zeros(300, dtype=bool), np.ones(300))
    assert json.loads(written.read_text())["lower_bound"] == pytest.approx(bound)


def test_a_promise_for_patients_is_not_upheld_by_their_first_cases_alone(table, bundle):
    """A certificate that counts patients misses one if it misses any of their cases."""
    of_patients = bundle.certificate.model_copy(update={"unit": "patient"})
    found = []
    for patients in (["a", "a", *map(str, range(299))], [str(number) for number in range(301)]):
        path = table([("true", "needs_in_person", "1", "true")] * 301, patients=patients)
        ids = bundle.certificate.certificate_id(), of_patients.certificate_id()
        path.write_text(path.read_text().replace(*ids))
        found.append(watch_verb.watch(of_patients, read_cases([path])))
    assert [one.verdict for one in found] == ["undecided", "holds"]
    assert all(one.lower_bound > 0.95 for one in found)


def test_what_holds_for_all_together_is_not_said_of_a_certificates_groups(table, bundle):
    everyone = bundle.certificate.groups[0]
    rows = [everyone.model_copy(update={"by": "sex", "group": sex}) for sex in ("female", "male")]
    small = everyone.model_copy(update={"by": "sex", "group": "x", "status": "not_certifiable"})
    with_groups = bundle.certificate.model_copy(update={"groups": (everyone, *rows, small)})
    path = table([("true", "needs_in_person", "1", "true")] * 300)
    path.write_text(
        path.read_text().replace(bundle.certificate.certificate_id(), with_groups.certificate_id())
    )
    found = watch_verb.watch(with_groups, read_cases([path]))
    assert (found.verdict, found.certified_groups) == ("holds", 2)
    assert [*watch_verb._lines(found)][-1] == (
        "the certificate HOLDS for all cases together: a lower sensitivity is refuted; its 2 certified "
        "group(s) are not tested one by one"
    )


def test_the_same_cases_say_less_where_few_of_the_others_are_followed_up(capsys, bundle, table):
    status, said, _ = watch(capsys, bundle, table([("true", "needs_in_person", "0.05", "false")] * 300))
    assert status == 0
    assert "UNDECIDED" in said


def test_without_follow_up_nothing_can_be_said_however_many_come(capsys, bundle, table):
    status, said, _ = watch(capsys, bundle, table([("true", "needs_in_person", "0", "false")] * 500))
    assert status == 0
    assert "the sensitivity is at least 0.000" in said
    assert "UNDECIDED" in said
    assert "estimated" not in said


def test_what_is_missing_and_what_became_known_by_chance_is_said(capsys, bundle, table):
    unknown = ("", "needs_in_person", "0.5", "false")
    _, said, _ = watch(
        capsys, bundle, table([REFERRED, unknown, LOST, HARMLESS, FOUND_BY_CHANCE, NOT_LOOKED_FOR])
    )
    assert "outcome known of 1 of 2 referred or not scored, and of 1 of 2 drawn among 4 below" in said
    assert "2 outcome(s) are missing" in said
    assert "1 missed positive case(s) that became known without having been drawn" in said


@pytest.mark.parametrize(
    "cases",
    [[REFERRED] * 40 + [FOUND_BY_DRAWING] * 10, [HARMLESS], [REFERRED]],
    ids=["failing", "nothing counted", "one case"],
)
def test_figure_is_a_picture_of_its_stated_size_with_something_on_it(capsys, bundle, table, tmp_path, cases):
    path = tmp_path / "watch.png"
    watch(capsys, bundle, table(cases), "--figure", path)
    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        assert picture.size == (1350, 975)
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 100


@pytest.mark.parametrize("option", ["--json", "--figure"])
def test_file_that_cannot_be_written_is_said_before_anything_is_read(capsys, bundle, tmp_path, option):
    status, said, error = watch(capsys, bundle, tmp_path / "no.csv", option, tmp_path / "none" / "file")
    assert (status, said) == (2, "")
    assert f"{option} " in error
    assert "cannot be written" in error


def test_needs_no_training_library_and_no_matplotlib(bundle, table):
    code = (
        "import sys\n"
        "for name in ('torch', 'timm', 'sklearn', 'scipy', 'matplotlib'): sys.modules[name] = None\n"
        "from lesion_triage import cli\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    words = ["watch", str(bundle.folder), "--cases", str(table([REFERRED]))]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    refused = subprocess.run(
        [sys.executable, "-c", code, *words, "--figure", "watch.png"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert "matplotlib is not installed" in refused.stderr


def test_cases_from_a_day_on_are_left_out(capsys, bundle, table):
    path = table([REFERRED] * 3 + [LOST] * 3)
    _, said, _ = watch(capsys, bundle, path, "--until", "2026-01-04")
    assert "3 case(s), 2026-01-01 to 2026-01-03" in said
    assert "missing" not in said


def test_cases_of_another_certificate_are_left_out_and_refused_alone(capsys, bundle, table):
    path = table([REFERRED, REFERRED])
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace(bundle.certificate.certificate_id(), "0" * 16)
    path.write_text("\n".join(lines) + "\n")
    status, said, _ = watch(capsys, bundle, path)
    assert status == 0
    assert "left out 1 case(s) that were answered under other certificates" in said
    path.write_text("\n".join(lines[:2]) + "\n")
    status, _, error = watch(capsys, bundle, path)
    assert status == 2
    assert "none of 1 case(s) was answered under the certificate" in error


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("arrived_at", "yesterday", "expected a moment"),
        ("arrived_at", "", "expected a moment"),
        ("arrived_at", "0001-01-01T00:00:00+14:00", "expected a year from 2000 to 2099 in arrived_at"),
        ("arrived_at", "9999-12-31T23:59:59-14:00", "expected a year from 2000 to 2099 in arrived_at"),
        ("arrived_at", "0026-01-02T08:00:00+00:00", "expected a year from 2000 to 2099 in arrived_at"),
        ("disposition", "error", "expected one of needs_in_person, below_threshold, ungradable"),
        ("follow_up_share", "1.5", "expected a number from 0 to 1"),
        ("follow_up_share", "", "expected a number from 0 to 1"),
        ("follow_up_share", "nan", "expected a number from 0 to 1"),
        ("drawn", "", "expected true or false in drawn"),
        ("drawn", "maybe", "expected true or false in drawn"),
        ("needs_in_person", "malignant", "expected true or false in needs_in_person"),
        ("case", "", "the cell of case is empty"),
    ],
)
def test_a_cell_that_cannot_be_used_is_named_by_its_line_and_not_quoted(table, column, cell, said):
    path = table([REFERRED, REFERRED])
    lines = path.read_text().splitlines()
    cells = lines[2].split(",")
    cells[COLUMNS.index(column)] = cell
    lines[2] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=re.escape(f"line 3: {said}")) as refused:
        read_cases([path])
    assert not cell or cell not in str(refused.value).removeprefix(str(path))


@pytest.mark.parametrize("share", ["0", "0.1"])
def test_a_share_that_depends_on_the_answer_is_refused(capsys, bundle, table, share):
    """All referred cases are followed up, so some would write 1: the bound rises, and no miss is sought."""
    referred, below = ("true", "needs_in_person", "1", "true"), ("", "below_threshold", share, "false")
    status, said, error = watch(capsys, bundle, table([referred, below] * 150))
    assert (status, said) == (2, "")
    assert "the share that was in force when the case arrived, whatever was answered" in error
    in_force = [("true", "needs_in_person", share, "false"), below] * 150
    said = watch(capsys, bundle, table(in_force))[1]
    assert "UNDECIDED" in said
    assert "no case is below" not in said
    once_changed = [referred, ("false", "below_threshold", "1", "true")] * 2 + in_force
    assert watch(capsys, bundle, table(once_changed))[0] == 0


@pytest.mark.parametrize(("share", "drawn"), [("0", "true"), ("1", "false")])
def test_a_draw_that_cannot_have_been_is_refused(table, share, drawn):
    with pytest.raises(DataError, match=r"line 2: a case is (not )?drawn although"):
        read_cases([table([("true", "needs_in_person", share, drawn)])])


@pytest.mark.parametrize("word", ["unknown", "NA", "n/a", "-"])
def test_a_word_for_an_unknown_patient_makes_nobody_the_same_person(table, word):
    with pytest.raises(DataError, match=r"line 2: patient_id has a word that means unknown"):
        read_cases([table([REFERRED, REFERRED], patients=[word, word])])


@pytest.mark.parametrize(
    ("cell", "other"),
    [("T08:00:00", "T08:00:01"), ("below", "ungrad"), ("0.5", "0.4"), ("true,", "false,")],
)
def test_different_cases_under_one_name_in_two_tables_are_refused(table, cell, other):
    """As two sites that number their cases alike would have: none may take the place of another unseen."""
    words = {"below": "below_threshold", "ungrad": "ungradable"}
    early, late = table([LOST]), table([LOST], "later.csv")
    late.write_text(late.read_text().replace(words.get(cell, cell), words.get(other, other), 1))
    with pytest.raises(DataError, match=r"later\.csv, line 2: an earlier table has this case"):
        read_cases([early, late])


def test_a_case_twice_in_one_table_is_refused_with_both_lines(table):
    path = table([REFERRED, REFERRED])
    path.write_text(path.read_text().replace("case-0001", "case-0000"))
    with pytest.raises(DataError, match="line 3: the case of line 2 again"):
        read_cases([path])


def test_a_table_without_the_columns_is_refused(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text("image,needs_in_person\na.jpg,true\n")
    with pytest.raises(DataError, match=r"found no case, arrived_at.*the page's export has follow-up\.csv"):
        read_cases([path])


def test_moments_with_and_without_a_zone_are_put_in_one_order(bundle, table):
    path = table([REFERRED, FOUND_BY_DRAWING])
    text = path.read_text().replace("2026-01-01T08:00:00+00:00", "2026-01-02T11:00:00+02:00")
    path.write_text(text.replace("2026-01-02T08:00:00+00:00", "2026-01-02 08:30:00"))
    assert counted_in(bundle, path).missed.tolist() == [True, False]


def test_days_are_those_of_utc_whatever_the_zone_of_the_table(capsys, bundle, table, tmp_path):
    path, written = table([REFERRED, REFERRED, REFERRED]), tmp_path / "watch.json"
    path.write_text(path.read_text().replace("T08:00:00+00:00", "T01:30:00+02:00"))
    _, said, _ = watch(capsys, bundle, path, "--until", "2026-01-02", "--json", written)
    assert "2 case(s), 2025-12-31 to 2026-01-01" in said
    assert json.loads(written.read_text())["first_arrival"] == "2025-12-31T23:30:00+00:00"


def test_a_day_that_is_none_is_refused(capsys, bundle, table):
    with pytest.raises(SystemExit):
        watch(capsys, bundle, table([REFERRED]), "--until", "soon")
    assert "expected a day such as 2026-11-30, found 'soon'" in capsys.readouterr().err
