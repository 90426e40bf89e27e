from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lesion_triage.audit.findings import (
    Finding,
    Measurement,
    Report,
    Table,
    Verdict,
    apply_acceptances,
    refuse_failures,
    verdict_for,
    worst,
)
from lesion_triage.audit.wording import WORDS
from lesion_triage.config import AcceptableCode, Audit
from lesion_triage.errors import AuditError, ManifestError

REASON = "north has a camera of its own; it is reported apart"
FAILED = Finding("source_shortcut", Verdict.FAIL, "The source tells.", subjects=("north",))


def test_the_codes_that_a_configuration_may_accept_are_those_that_may_fail():
    assert set(get_args(AcceptableCode)) == {code for code, words in WORDS.items() if words.acceptable}


@given(st.lists(st.sampled_from(Verdict)))
def test_the_whole_is_as_bad_as_its_worst_part(verdicts):
    found = worst(verdicts)
    assert found == ("fail" if "fail" in verdicts else "warn" if "warn" in verdicts else "pass")


def test_a_number_must_exceed_its_limit_and_an_unknown_one_passes():
    assert [verdict_for(value, 0.6, 0.8) for value in (0.6, 0.61, 0.8, 0.81, float("nan"))] == [
        "pass",
        "warn",
        "warn",
        "fail",
        "pass",
    ]


def test_an_accepted_failure_counts_as_a_warning_and_keeps_its_reason():
    (found,) = apply_acceptances([FAILED], Audit(accept={"source_shortcut": REASON}))
    report = Report((found,))
    assert (found.verdict, report.verdict, found.accepted) == (Verdict.FAIL, Verdict.WARN, REASON)
    refuse_failures(report, Audit(), "page")


def test_a_reason_covers_only_the_sources_that_it_names():
    other = Finding("source_shortcut", Verdict.FAIL, "The source tells.", subjects=("north", "south"))
    config = Audit(accept={"source_shortcut": REASON})
    (found,) = apply_acceptances([other], config)
    assert not found.accepted
    with pytest.raises(
        AuditError, match=r"audit\.accept\.source_shortcut that names north, south; .* not cover"
    ):
        refuse_failures(Report((found,)), config, "page")


@pytest.mark.parametrize(
    ("subject", "covered"),
    [
        *((name, True) for name in ("clinic-10", "t.csv: smoke", "part/x.csv: age", "clinic-2.5", "south")),
        *((name, False) for name in ("clinic-1", "clinic", "10", "x.csv: age", "clinic-2", "5", "part")),
    ],
)
def test_a_reason_for_one_name_does_not_cover_another_that_it_contains(subject, covered):
    config = Audit(
        accept={
            "missingness": "clinic-10 and t.csv:\n  smoke are reported apart, so are part/x.csv: age, "
            "clinic-2.5 and south."
        }
    )
    failed = Finding("missingness", Verdict.FAIL, "It tells.", subjects=(subject,))
    assert bool(apply_acceptances([failed], config)[0].accepted) is covered


@pytest.mark.parametrize("subject", ["a  b", "two\nlines", "skin ", "\u2028skin\ttone"])
def test_the_names_that_a_failure_asks_for_cover_it_whatever_their_blanks(subject):
    failed = Finding("missingness", Verdict.FAIL, f"Mostly by {subject}.", subjects=(subject,))
    with pytest.raises(AuditError) as caught:
        refuse_failures(Report((failed,)), Audit(), "audit.html")
    (asked,) = str(caught.value).splitlines()
    name = asked.partition("that names ")[2].partition(";")[0]
    for spelt in (name, subject):
        config = Audit(accept={"missingness": f"{spelt} is reported apart"})
        assert apply_acceptances([failed], config)[0].accepted


def test_a_failure_stops_with_a_sentence_that_names_it_and_says_how_to_accept_it():
    with pytest.raises(AuditError) as caught:
        refuse_failures(Report((FAILED,)), Audit(), "audit.html")
    sentence = str(caught.value)
    assert "'source_shortcut'" in sentence
    assert "audit.accept.source_shortcut" in sentence
    assert "north" in sentence
    assert "audit.html" in sentence
    assert "\n" not in sentence


def test_leakage_cannot_be_accepted():
    with pytest.raises(ValidationError):
        Audit.model_validate({"accept": {"leakage": REASON}})
    with pytest.raises(AuditError, match="cannot be accepted"):
        refuse_failures(Report((Finding("leakage", Verdict.FAIL, "It leaks."),)), Audit(), "page")


def test_an_acceptance_needs_a_reason():
    with pytest.raises(ValidationError):
        Audit.model_validate({"accept": {"source_shortcut": ""}})


def test_a_report_that_judged_by_other_numbers_is_to_be_made_again():
    """The second format passed over tables with tabs and over rows of another length."""
    content = json.loads(Report((FAILED,)).to_json())
    with pytest.raises(ManifestError, match=r"not a report of this version .* audit again"):
        Report.from_content({**content, "format": 2})


def test_a_report_reads_back_what_it_wrote_but_for_names_of_people():
    finding = Finding(
        "duplicate_files", Verdict.WARN, "Two.", (Measurement("files", 2.0),), local=("IMG_1 = IMG_2",)
    )
    report = Report((finding, FAILED), (Table("t", "c", ("a", "b"), (("x", 1.5),)),), {"photographs": 3})
    text = report.to_json()
    again = Report.from_content(json.loads(text))
    assert again.to_json() == text
    assert "IMG_1" not in text
    assert json.loads(text)["verdict"] == "fail"
