"""Every command that a page prints is run, in the order of the page, in a folder where what it names exists."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

import docs_shell
import docs_world
from docs_blocks import REASONS, blocks, parses

ROOT = Path(__file__).resolve().parents[2]
_OTHERS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "data/README.md", "experiments/BUNDLES.md")
TUTORIAL = ROOT / "docs" / "tutorial.md"
PAGES = [
    page
    for page in (*(ROOT / name for name in _OTHERS), *sorted((ROOT / "docs").rglob("*.md")))
    if any(block.commands for block in blocks(page))
]
PROGRAMS = Path(sys.executable).parent


@pytest.fixture(scope="session")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, docs_shell.Outcome]:
    """The tutorial, followed to its end; its run is the one that the other pages speak of."""
    folder = tmp_path_factory.mktemp("tutorial")
    shutil.copytree(ROOT / "configs", folder / "configs")
    return folder, docs_shell.run(TUTORIAL, folder, PROGRAMS)


@pytest.fixture
def world(tutorial: tuple[Path, docs_shell.Outcome], tmp_path: Path) -> Path:
    return docs_world.make(ROOT, tutorial[0], tmp_path / "world")


def test_the_tutorial_does_and_prints_what_it_says(tutorial: tuple[Path, docs_shell.Outcome]) -> None:
    assert tutorial[1].faults == []
    assert tutorial[1].ran > 10


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != TUTORIAL], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_every_command_of_a_page_does_what_the_page_says(page: Path, world: Path) -> None:
    outcome = docs_shell.run(page, world, PROGRAMS)
    print(f"{page.name}: {outcome.ran} run; not run: {outcome.not_run or 'none'}")
    assert "\n\n".join(outcome.faults) == ""


def test_every_command_that_is_not_run_says_why_from_the_closed_list() -> None:
    said = [command for page in PAGES for block in blocks(page) for command in block.commands]
    reasons = Counter(command.not_run for command in said if command.not_run is not None)
    print(f"{len(said)} commands, not run: {dict(reasons)}")
    assert reasons.keys() <= set(REASONS)
    assert sum(reasons.values()) < len(said) / 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_can_at_least_be_read_by_the_shell(page: Path) -> None:
    shell = [command for block in blocks(page) if block.kind == "sh" for command in block.commands]
    assert [command.text for command in shell if not parses(command.text)] == []
