"""Reads the code blocks of a page, with the invisible comments that say how they are tried.

A comment stands in lines of its own before the block it speaks of:

    <!-- before: COMMAND -->          done first; a reader does not see it
    <!-- let HASH = COMMAND -->       the word HASH in commands of this page stands for what this prints then
    <!-- anew: OUT -->                these files are taken away before each command of the block
    <!-- ends with 2 -->              the exit status that the last command of the block must have
    <!-- not run: REASON -->          the block is only parsed
    <!-- not run, WORDS: REASON -->   so are the lines of it in which WORDS occur
    <!-- shows: about -->             of a block of text: decimals may differ, see ``docs_output``
    <!-- shows: the words -->         of a block of text: numbers are not compared
    <!-- shows: a part -->            of a block of text: lines before and after are left out
    <!-- shows: not checked, REASON -->
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

NOT_RUN_REASONS = (
    "installs packages",
    "downloads a dataset",
    "needs real data",
    "needs several machines",
    "needs containers or a cluster",
    "needs a database server",
    "needs a tracking server",
    "needs two evaluated runs",
    "needs a browser",
    "needs a receiver of callbacks",
    "needs root",
    "needs the command line of SQLite",
    "takes minutes",
    "run on a page of its own",
)
"""The only reasons for which a printed command may go untried."""

_FENCE = re.compile(
    r"(?P<said>(?:^<!--[^\n]*-->[ ]*\n\s*)*)^```(?P<kind>\w+)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL
)
_COMMENT = re.compile(r"^<!--\s*(.*?)\s*-->", re.MULTILINE)
_NOT_RUN_COMMENT = re.compile(r"not run(?:, (?P<words>[^:]+))?: (?P<reason>.+)")


@dataclass(frozen=True)
class Command:
    """One command as the page prints it, continuation lines included."""

    text: str
    line: int
    """Of the page, from 1."""
    not_run: str | None = None
    """Reason, or None: it is run."""
    status: int = 0


@dataclass
class Block:
    """A fenced block."""

    kind: str
    text: str
    line: int
    before: list[str] = field(default_factory=list)
    """Shell lines that prepare what the block needs."""
    commands: list[Command] = field(default_factory=list)
    remade_files: str = ""
    """Files, with spaces between, that each command makes anew."""
    comments: list[str] = field(default_factory=list)
    """The comments before it, as they stand."""
    expected_output: Block | None = None
    """The block of ``text`` that follows: what its commands print."""


def blocks(page: Path) -> list[Block]:
    """All blocks of a page that name their language, in order."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        comments = _COMMENT.findall(match["said"])
        block = Block(match["kind"], match["text"], line, comments=comments)
        if block.kind in ("sh", "python"):
            _apply_comments(block)
        if block.kind == "text" and found and found[-1].kind == "sh":
            found[-1].expected_output = block
        found.append(block)
    return found


def _apply_comments(block: Block) -> None:
    block_reason, line_reasons, status = None, {}, 0
    for comment in block.comments:
        if match := _NOT_RUN_COMMENT.fullmatch(comment):
            if match["words"]:
                line_reasons[match["words"]] = match["reason"]
            else:
                block_reason = match["reason"]
        elif comment.startswith("before: "):
            block.before.append(comment.removeprefix("before: "))
        elif comment.startswith("anew: "):
            block.remade_files = comment.removeprefix("anew: ")
        elif match := re.fullmatch(r"ends with (\d+)", comment):
            status = int(match[1])
    split = (
        [(block.text, block.line)]
        if block.kind == "python"
        else list(_split_commands(block.text, block.line))
    )
    for number, (text, line) in enumerate(split, 1):
        reason = block_reason or next((why for words, why in line_reasons.items() if words in text), None)
        block.commands.append(Command(text, line, reason, status if number == len(split) else 0))


def _split_commands(text: str, first: int) -> Iterator[tuple[str, int]]:
    """Commands of a shell block: lines are joined until the shell would begin."""
    command, first_line = "", first
    for number, line in enumerate(text.splitlines(), first):
        if not command and (not line.strip() or line.lstrip().startswith("#")):
            continue
        first_line = first_line if command else number
        command += line + "\n"
        if not line.endswith("\\") and is_valid_shell(command):
            yield command.strip(), first_line
            command = ""
    if command:
        yield command.strip(), first_line


def is_valid_shell(command: str) -> bool:
    """Whether the shell can read it, without doing anything."""
    tried = subprocess.run(["bash", "-n", "-c", command], capture_output=True, check=False)
    return tried.returncode == 0 and b"here-document" not in tried.stderr


def substitutions(page: Path) -> dict[str, str]:
    """Words that ``let`` comments of a page give a meaning, and the command that prints it."""
    text = page.read_text(encoding="utf-8")
    return dict(re.findall(r"^<!-- let (\w+) = (.*?) -->", text, re.MULTILINE))
