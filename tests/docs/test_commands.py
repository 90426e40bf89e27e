"""Every command that a page prints is run, in its order, in a folder where what it names exists."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import docs_environment
import docs_fork
import docs_shell
from docs_blocks import NOT_RUN_REASONS, Command, blocks, is_valid_shell
from lesion_triage import cli
from triage_server import commands

ROOT = Path(__file__).resolve().parents[2]
_OTHER_PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "data/README.md", "experiments/BUNDLES.md")
TUTORIAL = ROOT / "docs" / "tutorial.md"
PAGES = [
    page
    for page in (*(ROOT / name for name in _OTHER_PAGES), *sorted((ROOT / "docs").rglob("*.md")))
    if any(block.commands for block in blocks(page))
]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
PROGRAMS = Path(sys.executable).parent
_MISSING_TOOLS = [tool for tool in ("bash", "curl", "openssl", "python3") if shutil.which(tool) is None]
_tools = pytest.mark.skipif(
    bool(_MISSING_TOOLS),
    reason=f"PAGES NOT TRIED: {', '.join(_MISSING_TOOLS)} not here; `make browser` installs curl and openssl",
)


@pytest.fixture(scope="session")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, docs_shell.Outcome]:
    """The tutorial, followed to its end; its run is the one that the other pages speak of."""
    folder = tmp_path_factory.mktemp("tutorial")
    shutil.copytree(ROOT / "configs", folder / "configs")
    return folder, docs_shell.run(TUTORIAL, folder, PROGRAMS)


@pytest.fixture(scope="session")
def fork_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Address of a process that has imported what commands need; the tutorial does without it."""
    address = tmp_path_factory.mktemp("forks") / "door"
    process = subprocess.Popen([sys.executable, docs_fork.__file__, "serve", str(address)])
    while not address.exists():
        assert process.poll() is None
        time.sleep(0.05)
    yield address
    process.kill()
    process.wait()


@pytest.fixture
def environment(tutorial: tuple[Path, docs_shell.Outcome], tmp_path: Path) -> Path:
    return docs_environment.make(ROOT, tutorial[0], tmp_path / "world")


@_tools
@pytest.mark.pages
@pytest.mark.timeout(1800)  # the fixture's too: a training on drawn pictures
def test_the_tutorial_does_and_prints_what_it_says(tutorial: tuple[Path, docs_shell.Outcome]) -> None:
    assert "\n\n".join(tutorial[1].faults) == ""
    assert tutorial[1].ran > 10


@_tools
@pytest.mark.pages
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != TUTORIAL], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_every_command_of_a_page_does_what_the_page_says(
    page: Path, environment: Path, fork_socket: Path
) -> None:
    outcome = docs_shell.run(page, environment, PROGRAMS, fork_socket)
    print(f"{page.name}: {outcome.ran} run; not run: {outcome.not_run or 'none'}")
    assert "\n\n".join(outcome.faults) == ""


def test_every_command_that_is_not_run_says_why_from_the_closed_list() -> None:
    said = [command for page in PAGES for block in blocks(page) for command in block.commands]
    reasons = Counter(command.not_run for command in said if command.not_run is not None)
    print(f"{len(said)} commands, not run: {dict(reasons)}")
    assert reasons.keys() <= set(NOT_RUN_REASONS)
    assert sum(reasons.values()) < len(said) / 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_can_at_least_be_read_by_the_shell(page: Path) -> None:
    shell = [command for block in blocks(page) if block.kind == "sh" for command in block.commands]
    assert [command.text for command in shell if not is_valid_shell(command.text)] == []


_NOT_RUN_COMMANDS = [
    pytest.param(command, id=f"{page.name}:{command.line}")
    for page in PAGES
    for block in blocks(page)
    for command in block.commands
    if command.not_run is not None and block.kind == "sh"
]


@pytest.mark.parametrize("command", _NOT_RUN_COMMANDS)
def test_a_command_that_is_not_run_is_one_that_could_be(command: Command) -> None:
    for line in command.text.replace("\\\n", " ").splitlines():
        words = docs_shell.split_words(line)
        match words[:1]:
            case ["lesion-triage"]:
                cli.parser(words[1]).parse_args(words[1:])
            case ["make"]:
                assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
            case ["pip"]:
                assert set(re.findall(r"[a-z]+", words[-1].partition("[")[2])) <= EXTRAS.keys()
            case ["python"]:
                assert (ROOT / words[1]).is_file()
            case ["triage-server"]:
                commands.parser().parse_args(words[1:])


def test_no_page_hides_commands_in_a_block_of_another_name() -> None:
    fence = re.compile(r"^ *```(?P<kind>\w*)\n(?P<text>.*?)^ *```", re.MULTILINE | re.DOTALL)
    ours = re.compile(r"^ *(?:\$ )?(?:lesion-triage|triage-server|curl|pip|make|python3?) ", re.MULTILINE)
    pages = (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("experiments/*/README.md"))
    hidden = [
        f"{page.name}: {block['text']}"
        for page in pages
        for block in fence.finditer(page.read_text(encoding="utf-8"))
        if block["kind"] in {"bash", "shell", "console", "zsh"}
        or (block["kind"] == "" and ours.search(block["text"]))
    ]
    assert hidden == []
