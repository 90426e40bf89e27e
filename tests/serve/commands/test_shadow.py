from __future__ import annotations

import tracemalloc
from fractions import Fraction
from math import comb
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triage_server.audit_log import AuditLog
from triage_server.cli import main
from triage_server.commands.shadow import Tally, exact_interval


def at_least(successes: int, trials: int, chance: Fraction) -> Fraction:
    """Exactly: the chance of so many successes or more."""
    terms = range(successes, trials + 1)
    return sum((comb(trials, k) * chance**k * (1 - chance) ** (trials - k) for k in terms), Fraction(0))


@settings(max_examples=60)
@given(st.data())
def test_beyond_both_ends_lies_half_of_what_the_confidence_leaves(data: st.DataObject) -> None:
    trials = data.draw(st.integers(1, 60))
    successes = data.draw(st.integers(0, trials))
    low, high = exact_interval(successes, trials)
    assert low <= successes / trials <= high
    if successes > 0:
        assert float(at_least(successes, trials, Fraction(low))) == pytest.approx(0.025, rel=1e-6)
    if successes < trials:
        assert float(1 - at_least(successes + 1, trials, Fraction(high))) == pytest.approx(0.025, rel=1e-6)


def test_nothing_seen_has_the_closed_form() -> None:
    assert exact_interval(0, 500) == (0.0, pytest.approx(1 - 0.025 ** (1 / 500)))
    assert exact_interval(500, 500) == (pytest.approx(0.025 ** (1 / 500)), 1.0)
    assert exact_interval(0, 100_000)[1] == pytest.approx(1 - 0.025 ** (1 / 100_000))


def test_interval_of_millions_of_cases_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        low, high = exact_interval(2_000_000, 5_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    half_width = 1.959964 * (0.4 * 0.6 / 5_000_000) ** 0.5  # normal approximation
    assert (0.4 - low, high - 0.4) == pytest.approx((half_width, half_width), rel=1e-3)
    assert peak < 5_000_000  # a byte for each case


def answer(sequence: int, bundle: str = "a") -> dict[str, object]:
    return {"event": "answer", "bundle_sha256": bundle, "sequence": sequence}


def compared(sequence: int, **more: object) -> dict[str, object]:
    """What the shadow 's' said of the answer of that number."""
    of = {"bundle_sha256": "a", "sequence": sequence}
    return {
        **{"event": "shadow", "bundle_sha256": "s", "referral": "same", "band": "down", "request_id": "r"},
        **{"answered": of, **more},
    }


def test_answers_that_no_shadow_saw_are_counted() -> None:
    tally = Tally()
    for line in (answer(1), compared(1), answer(3), answer(4), answer(5, "b"), compared(3)):
        tally.line(line)
    tally.line(compared(4, problem="ScoringError"))
    assert tally.answered("a", "s") == 3
    (pair,) = tally.pairs.values()
    assert (pair.compared, pair.failed, pair.down) == (2, 1, ["1  r  band", "3  r  band"])


def test_cases_moved_down_are_kept_only_to_be_listed() -> None:
    tally = Tally(lists_cases=False)
    for line in (answer(1), compared(1)):
        tally.line(line)
    (pair,) = tally.pairs.values()
    assert (pair.counts["band", "down"], pair.down) == (1, [])


def test_answers_given_before_the_shadow_s_first_word_are_counted() -> None:
    tally = Tally()
    for number in range(1, 11):
        tally.line(answer(number))
    for number in (4, 3, 5, 10):  # in the order of the scoring threads
        tally.line(compared(number))
    assert tally.answered("a", "s") == 8  # from number 3 on


def test_answers_in_files_that_were_put_elsewhere_count_once_they_were_compared() -> None:
    tally = Tally()
    for line in (compared(7), answer(12), compared(9), compared(12), answer(15)):
        tally.line(line)
    assert tally.answered("a", "s") == 4


def test_log_without_shadows_and_altered_logs_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "audit"
    AuditLog(folder, 2**20, {"event": "opened"}).close({"event": "closed"})
    assert main(["shadow", "report", str(folder)]) == 2
    assert "no shadow has scored" in capsys.readouterr().err
    file = next(folder.glob("*.jsonl"))
    file.write_bytes(file.read_bytes().replace(b"opened", b"openeD"))
    assert main(["shadow", "report", str(folder)]) == 2
    assert "line 1" in capsys.readouterr().err
    assert main(["shadow", "report", str(folder), "--confidence", "95"]) == 2
    assert "--confidence" in capsys.readouterr().err
