"""Spoilt and unfamiliar photographs go through the whole policy, and the table says who is missed."""

from __future__ import annotations

from itertools import count as counter

import pytest

import tiny_bundle as tiny
from histories import flag
from lesion_triage.bundle.history import NO_HISTORY, History
from lesion_triage.bundle.red_flags import RedFlags
from lesion_triage.bundle.schema import Disposition
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import Bundle
from lesion_triage.calibrate.metrics import proportion
from lesion_triage.data.corruptions import CORRUPTIONS, corrupt
from lesion_triage.errors import DataError, ImageError
from lesion_triage.evaluate import robustness_figure
from lesion_triage.evaluate.robustness import UNMODIFIED, CaseInput, Row, measure_corruptions, measure_foreign

BLEEDING = RedFlags(flags=(flag({"field": "bleeding", "is": True}, "bleeding"),))


NUMBERS = counter()


def case(
    kind: tiny.Kind, positive: bool, history: History = NO_HISTORY, count: int = 1, unit: str = ""
) -> CaseInput:
    files = tuple(
        (lambda size=size: tiny.picture_bytes(kind, "PNG", (160 + size, 120))) for size in range(count)
    )
    return CaseInput(files, history, positive, unit or f"lesion-{next(NUMBERS)}")


CASES = (
    case("referred", True),
    case("below", True),
    case("below", True, History(bleeding=True)),
    case("below", False, count=2),
    case("referred", False),
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny.make(
        tmp_path_factory.mktemp("robustness") / "bundle",
        red_flags=BLEEDING,
        novelty_limit=tiny.NOVELTY_LIMIT,
    )


@pytest.fixture(scope="module")
def rows(bundle: Bundle) -> tuple[Row, ...]:
    return measure_corruptions(bundle, CASES, corruptions=("dark", "defocused"))


def test_every_corruption_and_severity_has_a_row_after_the_unmodified_ones(rows):
    assert [(row.corruption, row.severity) for row in rows] == [
        (UNMODIFIED, 0),
        *((name, severity) for name in ("dark", "defocused") for severity in range(1, 6)),
    ]
    assert {row.missed.trials for row in rows} == {3}
    assert {row.refused.trials for row in rows} == {6}
    assert {row.referred_others.trials for row in rows} == {2}


def test_unmodified_photographs_are_decided_as_the_server_decides(rows, bundle):
    scorer = Scorer(bundle)
    for name, severity, row in ((None, 0, rows[0]), ("dark", 5, rows[5])):
        below = []
        for one in CASES:
            files = [read() if name is None else corrupt(read(), name, severity) for read in one.files]
            below.append(scorer.score(files, one.history).disposition is Disposition.below_threshold)
        missed = sum(b for b, one in zip(below, CASES, strict=True) if one.needs_in_person)
        others = sum(not b for b, one in zip(below, CASES, strict=True) if not one.needs_in_person)
        assert (row.missed.successes, row.referred_others.successes) == (missed, others)


def test_a_gate_turns_a_miss_into_a_retake(rows):
    """Without gates the dark pictures of a positive lesion would be scored, and left below."""
    assert rows[0].missed.successes == 1  # the one that its history does not save
    darkest = rows[5]
    assert darkest.refused.value == 1.0
    assert sum(darkest.refusals.values()) == darkest.refused.trials == 6
    assert darkest.refusals["image_too_dark"] > 0
    assert darkest.missed.successes == 0 < darkest.missed_without_gates.successes


def test_what_comes_several_times_from_one_patient_is_no_more_evidence_than_once(bundle):
    """Three patients with two missed lesions each, and three with one lesion on two photographs."""
    cases = [case("below", True, unit=f"patient-{number % 3}") for number in range(6)]
    cases += [case("below", False, count=2, unit=f"patient-{number}") for number in range(3, 6)]
    (row,) = measure_corruptions(bundle, cases, corruptions=())
    for found, of, units in ((row.missed, 6, proportion(3, 3)), (row.refused, 12, proportion(0, 6))):
        assert (found.trials, found.value) == (of, units.value)
        assert (found.low, found.high) == pytest.approx((units.low, units.high))
    assert row.missed_without_gates == row.missed
    assert row.referred_others == proportion(0, 3)


def test_familiar_photographs_of_one_patient_make_no_more_pairs_with_those_shown(bundle, tmp_path):
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(tiny.picture_bytes("unfamiliar", "PNG", (160 + number, 120)))
    cases = [case("below", bool(number), count=3, unit=f"patient-{number}") for number in range(5)]
    (found,) = measure_foreign(bundle, cases, {"elsewhere": sorted(tmp_path.iterdir())}, draws=200)
    assert found.auroc is not None
    assert (found.auroc.value, found.auroc.low) == pytest.approx((1.0, proportion(5, 5).low))


@pytest.mark.parametrize("cases", [(), CASES[:3], CASES[3:]])
def test_cases_of_one_class_are_refused(bundle, cases):
    with pytest.raises(DataError, match=r"expected positive and other cases, found [03] positive ones among"):
        measure_corruptions(bundle, cases)


def test_what_is_refused_only_grows_with_the_severity_of_darkness(rows):
    refused = [row.refused.successes for row in rows if row.corruption in (UNMODIFIED, "dark")]
    assert refused == sorted(refused)


def test_photographs_of_something_else_are_counted_by_the_gate_that_stopped_them(bundle, tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(tiny.picture_bytes("unfamiliar", "PNG", (160 + number, 120)))
    (tmp_path / "night.png").write_bytes(tiny.picture_bytes("black"))
    (found,) = measure_foreign(bundle, CASES, {"elsewhere": sorted(tmp_path.iterdir())}, draws=200)
    assert (found.sent_up.successes, found.sent_up.trials) == (4, 4)
    assert (found.unfamiliar.successes, found.refused_by_quality.successes) == (3, 1)
    assert found.auroc is not None
    assert found.auroc.value == 1.0


def test_a_file_that_is_no_photograph_is_named(bundle, tmp_path):
    path = tmp_path / "letter.png"
    path.write_bytes(b"Dear colleague")
    with pytest.raises(ImageError, match=r"letter\.png"):
        measure_foreign(bundle, CASES, {"elsewhere": [path]})


def test_an_unknown_corruption_is_refused(bundle):
    with pytest.raises(DataError, match="no corruption 'rain'"):
        measure_corruptions(bundle, CASES, corruptions=("rain",))


def test_the_figure_is_a_picture(rows):
    png = robustness_figure.figure(rows)
    assert png.startswith(b"\x89PNG")
    assert {row.corruption for row in rows if row.severity} < set(CORRUPTIONS)
