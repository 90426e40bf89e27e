"""Marked places: what is filled, what is left alone, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lesion_triage.cli import main
from lesion_triage.errors import DataError
from lesion_triage.tables.command import find_drift, find_pages
from lesion_triage.tables.markers import fill_markers
from lesion_triage.tables.recorded_numbers import RecordedNumbers

ROOT = Path(__file__).resolve().parents[2]


def fill(page: str) -> str:
    return fill_markers(page, lambda what: f"[{what}]", lambda name, rest: f"|{name}|{rest}|\n", "page")


def test_a_number_in_a_sentence_is_filled_and_filling_twice_changes_nothing():
    once = fill("AUROC <!-- = a:b .3f -->0.9<!-- / -->, and <!-- = c:d d --><!-- / -->.")
    assert once == "AUROC <!-- = a:b .3f -->[a:b .3f]<!-- / -->, and <!-- = c:d d -->[c:d d]<!-- / -->."
    assert fill(once) == once


def test_a_kept_text_is_filled_below_itself():
    page = "before\n<!-- fill\n| a {x:y d} |\n-->\nold\n<!-- /fill -->\nafter\n"
    once = fill(page)
    assert once == "before\n<!-- fill\n| a {x:y d} |\n-->\n\n| a [x:y d] |\n\n<!-- /fill -->\nafter\n"
    assert fill(once) == once


def test_a_table_is_made_by_its_name():
    once = fill("<!-- table summary a*.json -->\nold\n<!-- /table -->\n")
    assert once == "<!-- table summary a*.json -->\n\n|summary|a*.json|\n\n<!-- /table -->\n"
    assert fill(once) == once


def test_what_stands_in_a_code_block_is_left_alone():
    page = "```\n<!-- = a:b .3f -->0.9<!-- / -->\n<!-- table x -->\n```\ntext\n"
    assert fill(page) == page


@pytest.mark.parametrize("page", ["<!-- = a:b d -->1", "<!-- table x -->\n", "<!-- fill\nx\n-->\n"])
def test_a_mark_that_does_not_end_is_refused(page):
    with pytest.raises(DataError, match="1 markers begin and 0 are complete"):
        fill(page)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    document = {"share": 0.0187, "count": 5977, "each": [{"name": "one", "value": 0.5}], "nothing": None}
    (tmp_path / "found.json").write_text(json.dumps(document))
    return tmp_path


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("found.json:share .3f", "0.019"),
        ("found.json:share %1", "1.9 %"),
        ("found.json:count ,d", "5,977"),
        ("found.json:each.one.value .2f", "0.50"),
        ("found.json:nothing .2f", "not estimable"),
    ],
)
def test_a_format_says_how_a_number_is_written(checkout, what, text):
    assert RecordedNumbers(checkout).number(what) == text


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("found.json:shares .3f", "no cell 'shares'; did you mean 'share'"),
        ("lost.json:share .3f", "cannot be read"),
        ("found.json:each.one.name .3f", "the format does not fit 'one'"),
        ("share", "expected NAME:CELL FORMAT"),
        ("found.json:share range.3f", "a range is of a mean over seeds"),
    ],
)
def test_what_is_not_recorded_is_refused(checkout, what, sentence):
    with pytest.raises(DataError, match=sentence):
        RecordedNumbers(checkout).number(what)


def test_check_names_the_drifted_line_and_write_mends_it(checkout, capsys):
    page = checkout / "README.md"
    page.write_text("It is <!-- = found.json:share .3f -->0.500<!-- / -->.\n")
    assert main(["tables", "--check", "--root", str(checkout)]) == 1
    assert "0.019" in capsys.readouterr().out
    assert "0.500" in page.read_text()
    assert main(["tables", "--write", "--root", str(checkout)]) == 0
    assert page.read_text() == "It is <!-- = found.json:share .3f -->0.019<!-- / -->.\n"
    assert main(["tables", "--check", "--root", str(checkout)]) == 0


@pytest.mark.parametrize("added", ["| too good to be true |", "Found."])
def test_check_names_a_line_that_was_added_by_hand(checkout, capsys, added):
    page = checkout / "README.md"
    page.write_text(
        f"Found.\n\n<!-- fill\n{{found.json:share .3f}}\n-->\n\n0.019\n{added}\n\n<!-- /fill -->\n"
    )
    assert main(["tables", "--check", "--root", str(checkout)]) == 1
    assert f"  -{added}\n" in capsys.readouterr().out


def test_no_page_at_all_is_not_taken_for_pages_without_drift(tmp_path, capsys):
    assert main(["tables", "--check", "--root", str(tmp_path)]) == 2
    assert "found no page" in capsys.readouterr().err


def test_a_table_of_results_from_several_folders_names_the_pattern_that_fits_nothing():
    figures, folder = RecordedNumbers(ROOT), "experiments/ham10000-baseline"
    apart = figures.table("summary", f"{folder}/seed-[01].json {folder}/seed-2.json")
    assert apart == figures.table("summary", f"{folder}/seed-*.json")
    with pytest.raises(DataError, match=r"^elsewhere/seed-\*\.json: no such file"):
        figures.table("summary", f"{folder}/seed-*.json elsewhere/seed-*.json")
    with pytest.raises(DataError, match="names no file"):
        figures.table("deals", "")


def test_no_page_of_this_project_has_drifted_from_its_records():
    """After a new record: lesion-triage tables --write."""
    assert find_drift(ROOT, find_pages(ROOT)) == []


def test_figures_of_this_project_are_marked_where_they_stand():
    marked = {page.relative_to(ROOT).as_posix() for page in find_pages(ROOT) if "<!-- /" in page.read_text()}
    assert {
        "README.md",
        "docs/reading-queue.md",
        "docs/unfamiliar-pictures.md",
        "experiments/dermamnist-28/README.md",
        "experiments/ham-to-pad/README.md",
        "experiments/pad-ufes-20/README.md",
        "experiments/quality-corruptions/README.md",
    } <= marked
