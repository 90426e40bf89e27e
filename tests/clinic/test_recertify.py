"""A clinic certifies a bundle again on its own cases, or is told what is missing; nothing is certified "
"twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import tiny_bundle
from lesion_triage.bundle.certificate import GroupBy
from lesion_triage.bundle.document import sha256_of
from lesion_triage.bundle.fingerprints import (
    UsedPictures,
    file_fingerprint,
    format_fingerprints,
    pixel_fingerprint,
)
from lesion_triage.bundle.history import History
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.red_flags import RedFlags
from lesion_triage.bundle.schema import Disposition, Grouping
from lesion_triage.bundle.scorer import Scorer, score_image
from lesion_triage.bundle.store import open_bundle, seal
from lesion_triage.calibrate import ledger
from lesion_triage.calibrate.certificate import certified_threshold
from lesion_triage.cli import main
from made_predictions import spread


def recertify(bundle: Path, cases: Path, out: Path, *more: str) -> int:
    return main(
        ["recertify", str(bundle), "--cases", str(cases), "--site", "Clinic A", "--out", str(out), *more]
    )


def test_new_bundle_carries_the_sites_certificate_and_passes_its_self_test(clinic, bundle, tmp_path, capsys):
    cases = clinic(spread(70))
    assert recertify(bundle, cases, tmp_path / "new", "--json", str(tmp_path / "result.json")) == 0
    old, new = open_bundle(bundle), open_bundle(tmp_path / "new")
    Scorer(new).self_test()
    scorer = Scorer(old)
    scores = [scorer.score([(cases.parent / f"{n}.png").read_bytes()]).score for n in range(70)]
    threshold, allowed, _ = certified_threshold(np.array(scores), 0.95, 0.95)
    certificate = new.certificate
    assert certificate.threshold == new.policy.threshold == threshold
    assert (certificate.positives, certificate.misses_allowed, certificate.site) == (70, allowed, "Clinic A")
    assert new.graph == old.graph
    assert new.policy.calibrator == old.policy.calibrator
    assert [look.threshold for look in certificate.ledger] == [old.certificate.threshold]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["old_certificate"]["verdict"] == "holds"
    assert result["certificate_id"] == certificate.certificate_id()
    assert "HOLDS here" in capsys.readouterr().out


def test_cases_that_the_novelty_gate_sends_up_count_as_abstained_as_the_server_would(clinic, tmp_path):
    cases = clinic(spread(70))
    scorer = Scorer(tiny_bundle.make(tmp_path / "open"))
    pictures = [(cases.parent / f"{n}.png").read_bytes() for n in range(70)]
    spec, quality = scorer.bundle.header.pixels, scorer.bundle.policy.quality
    novelties = sorted(score_image(scorer._graph, spec, quality, picture).novelty for picture in pictures)
    gated = tiny_bundle.make(tmp_path / "gated", novelty_limit=novelties[-7])
    served = [Scorer(gated).score([picture]).disposition for picture in pictures]
    unfamiliar = sum(novelty >= novelties[-7] for novelty in novelties)  # ties go up together
    assert served.count(Disposition.ungradable) == unfamiliar >= 7
    assert recertify(gated.folder, cases, tmp_path / "new") == 0
    new = open_bundle(tmp_path / "new")
    assert new.certificate.positives_abstained == unfamiliar
    assert new.policy.novelty_limit == gated.policy.novelty_limit
    Scorer(new).self_test()


def test_old_certificate_that_fails_here_is_called_failing(clinic, bundle, tmp_path, capsys):
    cases = clinic(spread(80, lowest=-2.0))
    assert recertify(bundle, cases, tmp_path / "new") == 0
    assert "FAILS here" in capsys.readouterr().out
    assert open_bundle(tmp_path / "new").policy.threshold < open_bundle(bundle).policy.threshold


def _bleeding(red_flags_counted: bool) -> dict[str, object]:
    flags = RedFlags.model_validate(
        {
            "flags": [
                {
                    "code": "bleeding",
                    "when": {"field": "bleeding", "is": True},
                    "action": {"refer": True},
                    "source": "for the test",
                }
            ]
        }
    )
    made = tiny_bundle.seal_arguments(red_flags=flags)
    counted = made["certificate"].model_copy(update={"red_flags_counted": red_flags_counted})
    return {**made, "certificate": counted}


@pytest.mark.parametrize(
    ("counted", "verdict", "misses"), [(False, "FAILS here", 12), (True, "HOLDS here", 0)]
)
def test_old_certificate_is_tested_as_it_was_issued_with_red_flags_only_if_it_counts_them(
    clinic, tmp_path, capsys, counted, verdict, misses
):
    seal(tmp_path / "flagged", **_bleeding(counted))
    low = [(-0.5 - 0.05 * n, True, {"bleeding": "true"}) for n in range(12)]
    cases = clinic([*low, *spread(68)])
    assert recertify(tmp_path / "flagged", cases, tmp_path / "new", "--json", str(tmp_path / "r.json")) == 0
    said = capsys.readouterr().out
    assert f"{misses} of 80 positive lesions missed at its threshold" in said
    assert verdict in said
    assert ("(12 of them referred by a red flag, which it does not count)" in said) is not counted
    old = json.loads((tmp_path / "r.json").read_text())["old_certificate"]
    assert (old["misses"], old["misses_with_red_flags"]) == (misses, 0)


def test_red_flags_that_a_bundle_does_not_have_are_not_counted(clinic, bundle, tmp_path, capsys):
    """The certificate would say that it counts them, and hold only where their questions are asked."""
    cases = clinic(spread(80))
    assert recertify(bundle, cases, tmp_path / "new", "--count-red-flags") == 2
    assert "has no red flags to count; leave out --count-red-flags" in capsys.readouterr().err
    assert not (cases.parent / "ledger.jsonl").exists()


def test_groups_are_certified_again_and_one_that_the_site_has_too_few_of_goes_up(clinic, tmp_path):
    made = tiny_bundle.seal_arguments(
        groupings=(Grouping(by="sex", thresholds={"female": 0.5, "male": 0.6}),), threshold=0.5
    )
    asked = {"asked": (GroupBy(by="sex", small="route_up"),), "rule": "group_thresholds"}
    old = seal(tmp_path / "old", **{**made, "certificate": made["certificate"].model_copy(update=asked)})
    women = [(logit, needs, {"sex": "female"}) for logit, needs, _ in spread(70, lowest=-1.0)]
    men = [(logit, needs, {"sex": "male"}) for logit, needs, _ in spread(5, 0)]
    assert recertify(old.folder, clinic([*women, *men]), tmp_path / "new") == 0
    new = open_bundle(tmp_path / "new")
    assert (new.certificate.rule, new.certificate.asked) == (asked["rule"], asked["asked"])
    (grouping,) = new.policy.groupings
    assert grouping.thresholds == {"female": new.policy.threshold}
    assert new.policy.threshold < 0.5
    picture = tiny_bundle.picture_bytes("below")
    for sex, reason in (("female", "score_below_threshold"), ("male", "uncertified_subgroup")):
        answer = Scorer(new).score([picture], History(sex=sex))
        assert [one.code for one in answer.reasons] == [reason]


def test_a_lesion_with_two_ages_or_sites_is_counted_aloud(clinic, bundle, tmp_path, capsys):
    cases = [(logit, needs, {"lesion_id": f"jane-{n}"}) for n, (logit, needs, _) in enumerate(spread(70))]
    total = len(cases)
    for lesion, said in ((0, {"age_approx": 50}), (0, {"age_approx": 60}), (1, {"sex": "male"})):
        logit, needs, names = cases[lesion]
        cases.append((logit, needs, {**names, **said}))
    assert recertify(bundle, clinic(cases), tmp_path / "new") == 0
    said = capsys.readouterr().out
    assert (
        f"1 of {total} lesions have two or more values of age_years; that of the first photograph counts"
        in said
    )
    assert "values of sex" not in said  # the other photograph says nothing
    assert "jane" not in said


def test_groups_that_are_all_too_small_are_told_what_a_site_can_do(clinic, tmp_path, capsys):
    made = tiny_bundle.seal_arguments(
        groupings=(Grouping(by="sex", thresholds={"female": 0.5, "male": 0.6}),), threshold=0.5
    )
    asked = {"asked": (GroupBy(by="sex", small="route_up"),), "rule": "group_thresholds"}
    old = seal(tmp_path / "old", **{**made, "certificate": made["certificate"].model_copy(update=asked)})
    cases = [(logit, needs, {"sex": sex}) for sex in ("female", "male") for logit, needs, _ in spread(40, 0)]
    assert recertify(old.folder, clinic(cases), tmp_path / "new") == 2
    said = capsys.readouterr().err
    assert "no group has enough positive cases" in said
    assert "a group is too small, collect more confirmed cases" in said
    assert "calibrate." not in said  # a site has no configuration file


def test_too_few_positives_are_told_how_many_more_it_takes(clinic, bundle, tmp_path, capsys):
    assert recertify(bundle, clinic(spread(41)), tmp_path / "new") == 2
    captured = capsys.readouterr()
    assert "missed at its threshold" not in captured.out
    assert "takes at least 59 with no miss: 18 more" in captured.err
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "site" / "ledger.jsonl").exists()


def test_a_verdict_on_the_old_threshold_is_not_shown_where_no_look_is_written_down(
    clinic, bundle, tmp_path, capsys
):
    first = clinic(spread(62))
    assert recertify(bundle, first, tmp_path / "peeked", "--target", "0.99") == 2
    assert "HOLDS" not in capsys.readouterr().out
    assert recertify(bundle, first, tmp_path / "one") == 0
    assert "HOLDS here: a lower sensitivity is refuted\n" in capsys.readouterr().out
    ledger_path = first.parent / ledger.LEDGER_FILE_NAME
    grown = clinic(spread(64), name="later")
    shutil.copy(ledger_path, grown.parent)
    assert recertify(bundle, grown, tmp_path / "two") == 2
    assert "HOLDS" not in capsys.readouterr().out
    assert len(ledger.read(grown.parent / ledger.LEDGER_FILE_NAME)) == 1
    assert recertify(bundle, grown, tmp_path / "two", "--second-look", "two more came in") == 0
    assert "refuted; with 90% confidence only, if looks were repeated until it did" in capsys.readouterr().out
    assert len(ledger.read(grown.parent / ledger.LEDGER_FILE_NAME)) == 2


def test_an_earlier_verdict_counts_at_the_confidence_of_the_old_certificate_not_at_that_of_the_new(
    clinic, bundle, tmp_path, capsys
):
    """Both looks tested the old threshold at 95 %, though the first chose its new one at 99 %."""
    first = clinic(spread(92))
    assert recertify(bundle, first, tmp_path / "one", "--confidence", "0.99") == 0
    grown = clinic(spread(94), name="later")
    shutil.copy(first.parent / ledger.LEDGER_FILE_NAME, grown.parent)
    assert recertify(bundle, grown, tmp_path / "two", "--second-look", "two more came in") == 0
    assert "refuted; with 90% confidence only, if looks were repeated until it did" in capsys.readouterr().out
    assert open_bundle(tmp_path / "two").certificate.confidence_if_selected == pytest.approx(0.94)


def test_patients_are_the_unit_where_every_row_names_one(clinic, bundle, tmp_path, capsys):
    cases = [
        (logit, needs, {"patient_id": f"p{n // 2}", "lesion_id": f"l{n}"})
        for n, (logit, needs, _) in enumerate(spread(80))
    ]
    assert recertify(bundle, clinic(cases), tmp_path / "new") == 2
    assert "40 positive patients" in capsys.readouterr().err


def test_the_card_promises_for_patients_where_they_are_counted(clinic, bundle, tmp_path):
    cases = [(logit, needs, {"patient_id": f"p{n}"}) for n, (logit, needs, _) in enumerate(spread(60, 1))]
    assert recertify(bundle, clinic(cases), tmp_path / "new") == 0
    card = " ".join(open_bundle(tmp_path / "new").model_card.split())
    assert "the sensitivity for future patients of the same kind is at least 95%" in card


@pytest.mark.parametrize(
    ("certified", "patient", "verdict"),
    [
        ("patient", "", "no verdict: it counts patients; these cases, and a new certificate, count lesions"),
        (
            "lesion",
            "p{half}",
            "no verdict: it counts lesions; these cases, and a new certificate, count patients",
        ),
        ("lesion", "p{number}", "it HOLDS here"),
        ("patient", "p{half}", "it HOLDS here"),
    ],
)
def test_a_promise_for_patients_is_not_tested_on_lesions_nor_the_other_way_round(
    clinic, tmp_path, capsys, certified, patient, verdict
):
    made = tiny_bundle.seal_arguments()
    seal(
        tmp_path / "old",
        **{**made, "certificate": made["certificate"].model_copy(update={"unit": certified})},
    )
    cases = [
        (logit, needs, {"patient_id": patient.format(number=n, half=n // 2), "lesion_id": f"l{n}"})
        for n, (logit, needs, _) in enumerate(spread(120))
    ]
    out, result = tmp_path / "new", tmp_path / "r.json"
    assert recertify(tmp_path / "old", clinic(cases), out, "--json", str(result)) == 0
    assert verdict in capsys.readouterr().out
    told = json.loads(result.read_text())["old_certificate"]["verdict"]
    assert told == ("holds" if "HOLDS" in verdict else None)


def test_lesions_that_name_no_patient_among_others_who_do_are_counted_and_said_on_the_certificate(
    clinic, bundle, tmp_path, capsys
):
    cases = [
        (logit, needs, {"patient_id": f"p{n // 2}" if n < 10 else "", "lesion_id": f"l{n}"})
        for n, (logit, needs, _) in enumerate(spread(70))
    ]
    assert recertify(bundle, clinic(cases), tmp_path / "new") == 0
    assert "80 of 90 lesions name no patient_id" in capsys.readouterr().out
    certificate = open_bundle(tmp_path / "new").certificate
    assert (certificate.unit, certificate.positives) == ("patient", 65)
    assert any(said.startswith("80 lesions name no patient and count as") for said in certificate.assumptions)
    assert not any("patients are not identified" in said for said in certificate.assumptions)


def test_photographs_that_name_no_lesion_are_counted_on_the_certificate(clinic, bundle, tmp_path):
    cases = [
        (logit, needs, {"lesion_id": f"l{n}" if n < 5 else ""})
        for n, (logit, needs, _) in enumerate(spread(70))
    ]
    assert recertify(bundle, clinic(cases), tmp_path / "new") == 0
    certificate = open_bundle(tmp_path / "new").certificate
    assert certificate.unit == "lesion"
    said = "85 photographs name no lesion and count as a lesion each"
    assert any(sentence.startswith(said) for sentence in certificate.assumptions)


def test_where_patients_are_counted_no_photograph_is_said_to_count_by_itself(clinic, bundle, tmp_path):
    cases = [(logit, needs, {"patient_id": f"p{n}"}) for n, (logit, needs, _) in enumerate(spread(70))]
    assert recertify(bundle, clinic(cases), tmp_path / "new") == 0
    certificate = open_bundle(tmp_path / "new").certificate
    assert certificate.unit == "patient"
    assert not any("taken as independent" in sentence for sentence in certificate.assumptions)


def test_rows_without_an_outcome_are_left_out_and_counted(clinic, bundle, tmp_path, capsys):
    assert recertify(bundle, clinic([*spread(60), (3.0, "", {})]), tmp_path / "new") == 0
    assert "left out 1: needs_in_person is empty" in capsys.readouterr().out
    assert open_bundle(tmp_path / "new").certificate.positives == 60


@pytest.mark.parametrize("verb", ["recertify", "tally"])
@pytest.mark.parametrize(
    ("more", "warned"),
    [
        ([(0.5, False, {})], True),
        ([(-0.5, False, {})], False),
        ([(0.5, False, {}), (-0.5, True, {})], False),
        ([], False),
    ],
    ids=["referred alone", "a negative case below", "a miss", "positive cases alone"],
)
def test_cases_none_of_which_the_old_bundle_would_have_left_out_are_said_to_hold_no_miss(
    clinic, bundle, tmp_path, capsys, more, warned, verb
):
    cases = clinic([*((0.1 + place / 50, True, {}) for place in range(95)), *more])
    arguments = ["--cases", str(cases), "--site", "Clinic A", "--out", str(tmp_path / "made")]
    assert main([verb, str(bundle), *arguments]) == 0
    assert ("WARNING: this bundle leaves no case of the table below" in capsys.readouterr().out) is warned


@pytest.mark.parametrize("stripped", [False, True])
def test_pictures_that_made_the_model_are_refused_even_without_their_metadata(
    clinic, tmp_path, capsys, stripped
):
    cases = clinic(spread(60))
    header, *rest = cases.read_text().splitlines(keepends=True)
    cases.write_text("".join([header, "," * header.count(",") + "\n", *rest]))  # a row left empty: line 2
    picture = cases.parent / "3.png"
    data = picture.read_bytes()
    known = (
        pixel_fingerprint(decode(data, tiny_bundle.PIXEL_SPEC).pixels)
        if stripped
        else file_fingerprint(sha256_of(data))
    )
    seen = UsedPictures(fitted=format_fingerprints([known]))
    seal(tmp_path / "trained", **{**tiny_bundle.seal_arguments(), "used_pictures": seen})
    if stripped:
        note = PngInfo()
        note.add_text("Comment", "stripped and written again")
        Image.open(picture).save(picture, pnginfo=note)
        assert file_fingerprint(sha256_of(picture.read_bytes())) != file_fingerprint(sha256_of(data))
    assert recertify(tmp_path / "trained", cases, tmp_path / "new") == 2
    message = capsys.readouterr().err
    assert "1 of 80 photographs were used to make this model (lines 6)" in message
    assert "3.png" not in message


def test_second_look_at_the_same_cases_must_be_asked_for_by_name(clinic, bundle, tmp_path, capsys):
    cases = clinic(spread(95))
    assert recertify(bundle, cases, tmp_path / "one") == 0
    assert recertify(bundle, cases, tmp_path / "two", "--target", "0.9") == 2
    assert "--second-look" in capsys.readouterr().err
    assert recertify(bundle, cases, tmp_path / "two", "--target", "0.9", "--second-look", "board asked") == 0
    certificate = open_bundle(tmp_path / "two").certificate
    assert certificate.purpose == "board asked"
    assert certificate.confidence_if_selected == pytest.approx(0.9)
    assert len(certificate.ledger) == 2


def test_blanks_are_no_reason_for_a_second_look(clinic, bundle, tmp_path, capsys):
    cases = clinic(spread(95))
    assert recertify(bundle, cases, tmp_path / "one") == 0
    assert recertify(bundle, cases, tmp_path / "two", "--target", "0.9", "--second-look", " ") == 2
    assert "give the reason" in capsys.readouterr().err


def test_looks_within_one_second_that_chose_the_same_threshold_all_count(clinic, bundle, tmp_path):
    cases = clinic(spread(95))
    assert recertify(bundle, cases, tmp_path / "one") == 0
    other_looks(cases.with_name(ledger.LEDGER_FILE_NAME), {}, {"target_sensitivity": 0.94})
    again = ["--target", "0.9", "--second-look", "asked"]
    assert recertify(bundle, cases, tmp_path / "two", *again) == 0
    certificate = open_bundle(tmp_path / "two").certificate
    assert len(certificate.ledger) == 3
    assert certificate.confidence_if_selected == pytest.approx(0.85)


def test_the_very_same_look_again_gives_the_same_certificate(clinic, bundle, tmp_path):
    cases = clinic(spread(95))
    assert recertify(bundle, cases, tmp_path / "one") == 0
    assert recertify(bundle, cases, tmp_path / "again") == 0
    assert open_bundle(tmp_path / "one").certificate == open_bundle(tmp_path / "again").certificate


def test_the_same_cases_under_another_name_of_the_site_are_a_second_look(clinic, bundle, tmp_path, capsys):
    cases = clinic(spread(95))
    assert recertify(bundle, cases, tmp_path / "one") == 0
    other = ["--site", "Clinic B"]
    assert recertify(bundle, cases, tmp_path / "two", *other) == 2
    assert "--second-look" in capsys.readouterr().err
    assert recertify(bundle, cases, tmp_path / "two", *other, "--second-look", "the name was wrong") == 0
    assert len(ledger.read(cases.with_name(ledger.LEDGER_FILE_NAME))) == 2
    assert recertify(bundle, cases, tmp_path / "again", *other) == 0
    assert open_bundle(tmp_path / "two").certificate == open_bundle(tmp_path / "again").certificate


def test_more_cases_of_the_same_site_are_a_second_look_too(clinic, bundle, tmp_path, capsys):
    first = clinic(spread(60))
    assert recertify(bundle, first, tmp_path / "one") == 0
    more = clinic(spread(70), name="later")
    shutil.copy(first.parent / "ledger.jsonl", more.parent)
    assert recertify(bundle, more, tmp_path / "two") == 2
    assert "on some of them" in capsys.readouterr().err


def test_of_two_looks_at_once_one_is_the_second(clinic, bundle, tmp_path):
    cases = clinic(spread(95))
    words = [sys.executable, "-m", "lesion_triage", "recertify", str(bundle), "--cases", str(cases)]
    words += ["--site", "Clinic A"]
    both = [
        subprocess.Popen(
            [*words, "--out", str(tmp_path / f"at-{target}"), "--target", target],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for target in ("0.95", "0.9")
    ]
    errors = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    assert "--second-look" in "".join(errors)
    assert len(ledger.read(cases.with_name(ledger.LEDGER_FILE_NAME))) == 1


def other_looks(ledger_path: Path, *changes: dict[str, object]) -> None:
    """Put looks like the last one, with some changes, in a ledger's place."""
    line = json.loads(ledger_path.read_text().splitlines()[-1])
    ledger_path.write_text("".join(json.dumps({**line, **each}) + "\n" for each in changes))


def test_the_last_look_is_the_one_that_was_written_down_last(clinic, bundle, tmp_path, capsys):
    cases = clinic(spread(62))
    assert recertify(bundle, cases, tmp_path / "one") == 0
    elsewhere = {"cases_sha256": "a" * 64, "files_sha256": "b" * 64, "looked_at": "2026-01-01T00:00:00Z"}
    other_looks(cases.with_name(ledger.LEDGER_FILE_NAME), elsewhere, {"looked_at": "2026-03-01T00:00:00Z"})
    again = [bundle, cases, tmp_path / "two", "--target", "0.9"]
    assert recertify(*again) == 2
    assert "2 threshold(s)" in (said := capsys.readouterr().err)
    assert "last on 2026-03-01T00:00:00Z" in said
    assert recertify(*again, "--second-look", "asked") == 0
    dates = [look.looked_at[:7] for look in open_bundle(tmp_path / "two").certificate.ledger]
    assert dates[1:] == ["2026-01", "2026-03"]


def test_a_look_of_another_model_at_some_of_the_pictures_is_an_earlier_one(clinic, bundle, tmp_path, capsys):
    made = list(spread(62))
    cases = clinic(made)
    assert recertify(bundle, cases, tmp_path / "one") == 0
    ledger_path = cases.with_name(ledger.LEDGER_FILE_NAME)
    another = {"model_sha256": "a" * 64, "cases_sha256": "b" * 64, "files_sha256": "c" * 64}
    pictures = json.loads(ledger_path.read_text())["pictures"]
    assert len(pictures) == 2 * len(made)  # files and pixels
    other_looks(ledger_path, {**another, "pictures": pictures[:1]})
    assert recertify(bundle, cases, tmp_path / "two") == 2
    assert "1 threshold(s) have been chosen" in capsys.readouterr().err
    other_looks(ledger_path, {**another, "pictures": ["0" * 16]})
    assert recertify(bundle, cases, tmp_path / "two") == 0


def test_the_look_of_the_bundles_own_certificate_stands_where_the_ledger_has_it(
    clinic, bundle, tmp_path, capsys
):
    cases = clinic(spread(62))
    assert recertify(bundle, cases, tmp_path / "one") == 0
    ledger_path = cases.with_name(ledger.LEDGER_FILE_NAME)
    other_looks(ledger_path, {"model_sha256": "a" * 64, "looked_at": "2026-01-01T00:00:00Z"}, {})
    own = open_bundle(tmp_path / "one").certificate.issued_at
    assert recertify(tmp_path / "one", cases, tmp_path / "two", "--target", "0.9") == 2
    assert f"last on {own}" in capsys.readouterr().err


def test_looks_that_used_up_the_confidence_leave_none_for_the_old_certificate(
    clinic, bundle, tmp_path, capsys
):
    """Ten looks at 0.9 may be wrong by all there is, at whatever confidence the new one is made."""
    cases = clinic(spread(62))
    assert recertify(bundle, cases, tmp_path / "one") == 0
    days = [
        {"looked_at": f"2026-01-{n:02}T00:00:00Z", "confidence": 0.9, "settings_sha256": f"{n:064}"}
        for n in range(1, 11)
    ]
    other_looks(cases.with_name(ledger.LEDGER_FILE_NAME), *days)
    capsys.readouterr()
    more = ["--target", "0.8", "--confidence", "0.5", "--second-look", "asked"]
    assert recertify(bundle, cases, tmp_path / "two", *more, "--json", str(tmp_path / "told.json")) == 0
    assert "with 0% confidence only" in capsys.readouterr().out
    assert json.loads((tmp_path / "told.json").read_text())["old_certificate"]["confidence_if_selected"] == 0


def test_the_same_photographs_at_another_picture_size_are_a_second_look(clinic, bundle, tmp_path, capsys):
    cases = clinic(spread(95))
    other = tiny_bundle.make_with_size(tmp_path / "larger", 48)
    assert recertify(bundle, cases, tmp_path / "one") == 0
    assert recertify(other.folder, cases, tmp_path / "two") == 2
    assert "--second-look" in capsys.readouterr().err
    assert recertify(other.folder, cases, tmp_path / "two", "--second-look", "a larger picture") == 0
    assert open_bundle(tmp_path / "two").certificate.confidence_if_selected == pytest.approx(0.9)


def test_certified_bundle_knows_the_pictures_that_certified_it(clinic, bundle, tmp_path, capsys):
    cases = clinic(spread(60))
    assert recertify(bundle, cases, tmp_path / "one") == 0
    (cases.parent / "ledger.jsonl").unlink()
    assert recertify(tmp_path / "one", cases, tmp_path / "two") == 2
    assert "--second-look" in capsys.readouterr().err


def test_bundle_whose_graph_changed_after_the_certificate_is_refused(clinic, bundle, tmp_path, capsys):
    with (bundle / "model.onnx").open("ab") as stream:
        stream.write(b"\0")
    assert recertify(bundle, clinic(spread(60)), tmp_path / "new") == 2
    assert "model.onnx" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["bundle", "site"])
def test_nothing_is_overwritten(clinic, bundle, tmp_path, out, capsys):
    cases = clinic(spread(60))
    before = sorted(path.name for path in (tmp_path / out).iterdir())
    assert recertify(bundle, cases, tmp_path / out) == 2
    assert "exists" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / out).iterdir()) == before


def test_a_folder_that_is_there_is_refused_before_any_case_is_read(clinic, bundle, tmp_path, capsys):
    cases = clinic(spread(60))
    cases.unlink()
    (tmp_path / "new").mkdir()
    assert recertify(bundle, cases, tmp_path / "new") == 2
    assert "--out" in (said := capsys.readouterr().err)
    assert "exists; a sealed bundle is never overwritten" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the columns"),
        ("image\n0.png\n", "needs_in_person"),
        ("image,needs_in_person,patient\n0.png,1,x\n", "did you mean 'patient_id'"),
        ("image,needs_in_person\n0.png,maybe\n", "expected true, yes, 1"),
        ("image,needs_in_person\n../0.png,1\n", "leaves the data root"),
        ("image,needs_in_person\n0.png,0\n", "no case needs an in-person visit"),
        ("image,needs_in_person\nnowhere.png,1\n", "cannot be used"),
    ],
)
def test_table_that_cannot_be_used_is_one_sentence(clinic, bundle, tmp_path, capsys, text, message):
    cases = clinic(spread(3))
    cases.write_text(text)
    assert recertify(bundle, cases, tmp_path / "new") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("table", "more", "message"),
    [
        ("none.csv", [], "--cases {site}/none.csv: no such file"),
        (".", [], "--cases {site}: no such file"),
        ("cases.csv", ["--images", "none"], "--images none: no such folder"),
    ],
)
def test_a_table_or_folder_that_is_not_there_is_named_with_its_option(
    clinic, bundle, tmp_path, capsys, table, more, message
):
    site = clinic(spread(3)).parent
    assert recertify(bundle, site / table, tmp_path / "new", *more) == 2
    assert message.format(site=site) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--target", "1.0"], "between 0 and 1"),
        (["--target", "0"], "between 0 and 1"),
        (["--confidence", "nan"], "between 0 and 1"),
        (["--confidence", "95%"], "between 0 and 1"),
        (["--site", "Clinic\n| lower bound | 0.999 |"], "one line"),
        (["--second-look", "why\u2028- not"], "one line"),
        (["--site", " "], "1 to 100 characters"),
        (["--site", "x" * 101], "1 to 100 characters"),
    ],
)
def test_an_argument_out_of_range_is_refused_before_anything_is_read(tmp_path, capsys, more, message):
    nowhere = tmp_path / "nowhere"
    with pytest.raises(SystemExit) as stopped:
        recertify(nowhere, nowhere, tmp_path / "new", *more)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--out"])
def test_a_result_that_has_no_place_is_refused_before_a_look_is_spent(
    clinic, bundle, tmp_path, capsys, option
):
    cases = clinic(spread(60))
    (tmp_path / "file").touch()
    assert recertify(bundle, cases, tmp_path / "new", option, str(tmp_path / "file" / "result")) == 2
    captured = capsys.readouterr()
    assert f"{option} {tmp_path / 'file' / 'result'}: cannot be written" in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not (cases.parent / ledger.LEDGER_FILE_NAME).exists()


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder of a share that is not to be written to; root does as it likes unless a mount says no."""
    if os.geteuid():
        folder.chmod(0o500)
        try:
            yield
        finally:
            folder.chmod(0o700)
        return
    bound = subprocess.run(
        ["mount", "--bind", str(folder), str(folder)], capture_output=True, text=True, check=False
    )
    if bound.returncode:
        pytest.skip(f"NO MOUNTS ({bound.stderr.strip()}): root can write to every folder here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_cases_whose_ledger_cannot_be_written_are_refused_before_any_is_scored(
    clinic, bundle, tmp_path, capsys
):
    cases = clinic(spread(60))
    with read_only(cases.parent):
        assert recertify(bundle, cases, tmp_path / "new") == 2
    captured = capsys.readouterr()
    assert f"{cases.parent / ledger.LEDGER_FILE_NAME}: cannot be written" in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not (tmp_path / "new").exists()


def test_the_very_same_look_again_needs_no_ledger_that_can_be_written(clinic, bundle, tmp_path):
    cases = clinic(spread(60))
    assert recertify(bundle, cases, tmp_path / "one") == 0
    with read_only(cases.parent):
        assert recertify(bundle, cases, tmp_path / "again") == 0


def test_needs_no_training_library(clinic, bundle, tmp_path):
    program = (
        "import sys; from lesion_triage.cli import main; code = main(sys.argv[1:]); "
        "print(sorted({'torch', 'timm', 'sklearn', 'mlflow', 'albumentations', 'scipy', 'matplotlib'} "
        "& set(sys.modules))); sys.exit(code)"
    )
    cases, out = clinic(spread(60)), tmp_path / "new"
    words = ["recertify", str(bundle), "--cases", str(cases), "--site", "Clinic A", "--out", str(out)]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_corrected_outcomes_are_a_second_look(clinic, bundle, tmp_path, capsys):
    cases = clinic(spread(95))
    assert recertify(bundle, cases, tmp_path / "one") == 0
    cases.write_text(cases.read_text().replace("90.png,True", "90.png,False"))
    assert recertify(bundle, cases, tmp_path / "two") == 2
    assert "--second-look" in capsys.readouterr().err


def test_cases_that_chose_the_threshold_are_no_test_of_it_and_each_look_counts_once(
    clinic, bundle, tmp_path, capsys
):
    cases = clinic(spread(95))
    assert recertify(bundle, cases, tmp_path / "one") == 0
    capsys.readouterr()
    assert recertify(tmp_path / "one", cases, tmp_path / "two", "--second-look", "once more") == 0
    said = capsys.readouterr().out
    assert "cannot test its certificate" in said
    assert "HOLDS" not in said
    certificate = open_bundle(tmp_path / "two").certificate
    assert len(certificate.ledger) == 2
    assert certificate.confidence_if_selected == pytest.approx(1 - 3 * 0.05)


@pytest.mark.parametrize(
    ("target", "confidence", "promise"),
    [("0.975", "0.95", "With 95% confidence"), ("0.9", "0.995", "With 99.5% confidence")],
)
def test_no_page_promises_more_than_the_certificate(
    clinic, bundle, tmp_path, capsys, target, confidence, promise
):
    new = tmp_path / "new"
    assert recertify(bundle, clinic(spread(130)), new, "--target", target, "--confidence", confidence) == 0
    assert f">= {target} at {promise[5:]}" in capsys.readouterr().out
    assert main(["certificate", str(new)]) == 0
    percent = {"0.975": "97.5%", "0.9": "90%"}[target]
    page = capsys.readouterr().out
    assert f"{promise}, the policy refers or abstains on at least {percent}" in page
    card = " ".join(open_bundle(new).model_card.split())
    assert f"{promise[0].lower()}{promise[1:]}" in card
    assert f"is at least {percent}" in card


def test_free_text_makes_no_row_of_the_certificates_page(tmp_path, capsys):
    made = tiny_bundle.seal_arguments()
    forged = "x |\n| lower bound of the sensitivity | 0.9999 |"
    certificate = made["certificate"].model_copy(
        update={"site": forged, "purpose": forged, "assumptions": (forged,), "issued_at": forged}
    )
    looks = (ledger.look_from_certificate(certificate, certificate.policy_sha256),)
    seal(tmp_path / "old", **{**made, "certificate": certificate.model_copy(update={"ledger": looks})})
    assert main(["certificate", str(tmp_path / "old")]) == 0
    page = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| lower bound of the sensitivity") for line in page) == 1
    rows = [line.replace("\\|", "").count("|") for line in page if line.startswith(("| issued", "| site"))]
    assert rows == [3, 3]


def test_who_is_sent_up_by_a_counted_red_flag_is_not_called_not_scored(tmp_path, capsys):
    made = tiny_bundle.seal_arguments()
    certificate = made["certificate"].model_copy(update={"red_flags_counted": True})
    for name, issued, head in (
        ("silent", made["certificate"], "| positives | not scored | missed |"),
        ("counted", certificate, "| positives | not scored, or flagged | missed |"),
    ):
        seal(tmp_path / name, **{**made, "certificate": issued})
        assert main(["certificate", str(tmp_path / name)]) == 0
        assert head in capsys.readouterr().out


def test_history_that_no_platform_could_send_is_one_sentence(clinic, bundle, tmp_path, capsys):
    cases = [(logit, needs, {"anatom_site_general": "head|neck"}) for logit, needs, _ in spread(60)]
    assert recertify(bundle, clinic(cases), tmp_path / "new") == 2
    error = capsys.readouterr().err
    assert "line 2: anatom_site_general is no word that a platform can send" in error
    assert error.count("\n") == 1
