"""What a case was answered by is told of it, also when another bundle is served since."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import tiny_bundle
from lesion_triage.bundle.red_flags import Review
from lesion_triage.bundle.store import seal
from lesion_triage.red_flags_file import read_red_flags

FLAGS = read_red_flags(Path(__file__).resolve().parents[3] / "configs" / "red_flags.yaml")
SYNTHETIC, UNREVIEWED, NO_DEADLINE = "Drawn pictures", "No clinician has put a name", "sets no deadline"
OTHER = "Answered by another bundle"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``early``: of drawn pictures, rules without a name, no deadline. ``late``: none of the three."""
    folder = tmp_path_factory.mktemp("bundles")
    review = Review(by="consultant, Example Clinic", reviewed_on=date(2026, 1, 31))
    reviewed = FLAGS.model_copy(update={"reviewed_by": (review,)})
    late = tiny_bundle.seal_arguments(red_flags=reviewed, deadline_hours=48.0, threshold=0.4)
    return {
        "early": tiny_bundle.make(folder / "early", red_flags=FLAGS).folder,
        "late": seal(folder / "late", **{**late, "synthetic": False}).folder,
    }


def limits_shown(browser: Any, path: str) -> set[str]:
    text = browser.get(path).text
    return {said for said in (SYNTHETIC, UNREVIEWED, NO_DEADLINE, OTHER) if said in text}


@pytest.fixture
def answered_then_served(
    bundles: dict[str, Path], app_factory: Callable[..., Any], browse: Any, tmp_path: Path
) -> Iterator[Callable[[str, str], tuple[Any, str]]]:
    """``answered_then_served(first, then)``: a case of the first bundle, at a page that serves the other."""
    with app_factory(tmp_path, bundles["early"]) as open_page:

        def answer_then_serve(first: str, then: str) -> tuple[Any, str]:
            browser = browse(open_page(bundles[first]))
            browser.sign_in()
            number = browser.send_case(tiny_bundle.picture_bytes("referred", "JPEG"), bleeding="yes")
            later = browse(open_page(bundles[then]))
            later.sign_in()
            return later, number

        yield answer_then_serve


def test_what_limits_an_old_answer_stays_with_it(answered_then_served: Any) -> None:
    later, number = answered_then_served("early", "late")
    assert limits_shown(later, f"/ui/cases/{number}") == {SYNTHETIC, UNREVIEWED, OTHER}
    assert limits_shown(later, "/ui") == {NO_DEADLINE, OTHER}
    assert "made from drawn pictures. Never use it on people." in later.get("/ui").text
    assert "no deadline</span>" in later.get("/ui").text
    assert limits_shown(later, "/ui/new") == set()
    later.language = "de"
    text = later.get(f"/ui/cases/{number}").text
    assert "hat keinen Menschen gesehen" in text
    assert "Noch keine Ärztin und kein Arzt" in text


def test_limits_of_the_bundle_that_is_served_are_not_said_of_an_old_answer(answered_then_served: Any) -> None:
    later, number = answered_then_served("late", "early")
    assert limits_shown(later, f"/ui/cases/{number}") == {OTHER}
    assert limits_shown(later, "/ui") == {SYNTHETIC, OTHER}  # the first is said of the page
    assert "goes before all bands" in later.get("/ui").text
    later.read_case(number)
    assert limits_shown(later, "/ui") == {SYNTHETIC, NO_DEADLINE}


def test_case_of_the_bundle_that_is_served_says_what_that_one_says(answered_then_served: Any) -> None:
    for name, said in (("early", {SYNTHETIC, UNREVIEWED}), ("late", set())):
        later, number = answered_then_served(name, name)
        assert limits_shown(later, f"/ui/cases/{number}") == said
