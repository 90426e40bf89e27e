"""Compares what a page says that a command prints with what it printed. Imports nothing of ours.

Hashes and times are not compared, nor is progress, of which a slow machine prints more. ``...`` in a line
of its own stands for any lines, and around a block that shows *a part*. Where the page says *about*,
decimals may differ by a twentieth and counts by a tenth or by two: a training gives other last digits on
another processor. Where it says *the words*, numbers are not compared: they hang on a single case of such a
training.
"""

from __future__ import annotations

import re
from math import inf

_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]\d+)?")
_MOVING = (
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+00:00)"), "TIME"),
    (re.compile(r"-\d{8}-\d{6}\b"), "-TIME"),
    (re.compile(r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{8,64}\b"), "HASH"),
    (re.compile(r"\b\d+ s\b"), "N s"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:PORT"),
)


_PROGRESS = re.compile(r"[a-z][\w ]*: \d+/\d+")


def missing(shown: str, printed: str, said: list[str]) -> str | None:
    """The first line of ``shown`` that ``printed`` does not have where it should; None if all is there.

    Args:
        shown: the page's block.
        printed: what the commands printed.
        said: the comments before the block.
    """
    far = inf if "shows: the words" in said else 1.0 if "shows: about" in said else 0.0
    if "shows: a part" in said:
        shown = f"...\n{shown}\n..."
    wanted = [_still(line) for line in shown.splitlines() if line.strip()]
    got = [_still(line) for line in printed.splitlines() if line.strip()]
    got = [line for line in got if not _PROGRESS.fullmatch(line)]
    if wanted[:1] != ["..."] and not (got and _alike(wanted[0], got[0], far)):
        return wanted[0]
    at, free = 0, False
    for line in wanted:
        if line == "...":
            free = True
            continue
        ends = range(at, len(got)) if free else range(at, min(at + 1, len(got)))
        found = next((place for place in ends if _alike(line, got[place], far)), None)
        if found is None:
            return line
        at, free = found + 1, False
    return None if free or at == len(got) else f"nothing more, but it also prints: {got[at]}"


def _still(line: str) -> str:
    for pattern, word in _MOVING:
        line = pattern.sub(word, line)
    return " ".join(line.split())


def _alike(one: str, other: str, far: float) -> bool:
    if not far or one == other:
        return one == other
    numbers = [[float(found) for found in _NUMBER.findall(line)] for line in (one, other)]
    return _NUMBER.sub("N", one) == _NUMBER.sub("N", other) and all(
        abs(a - b) <= far * max(0.05 if a != round(a) or b != round(b) else 2.0, 0.1 * max(abs(a), abs(b)))
        for a, b in zip(*numbers, strict=True)
    )
