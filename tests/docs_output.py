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
_VOLATILE = (
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+00:00)"), "TIME"),
    (re.compile(r"-\d{8}-\d{6}\b"), "-TIME"),
    (re.compile(r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{8,64}\b"), "HASH"),
    (re.compile(r"\b\d+ s\b"), "N s"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:PORT"),
)


_PROGRESS = re.compile(r"[a-z][\w ]*: \d+/\d+")


def first_difference(expected: str, printed: str, comments: list[str]) -> str | None:
    """The first line of ``expected`` that ``printed`` does not have where it should; None if all is there.

    Args:
        expected: the page's block.
        printed: what the commands printed.
        comments: the comments before the block.
    """
    tolerance = inf if "shows: the words" in comments else 1.0 if "shows: about" in comments else 0.0
    if "shows: a part" in comments:
        expected = f"...\n{expected}\n..."
    expected_lines = [_normalise(line) for line in expected.splitlines() if line.strip()]
    printed_lines = [_normalise(line) for line in printed.splitlines() if line.strip()]
    printed_lines = [line for line in printed_lines if not _PROGRESS.fullmatch(line)]
    if expected_lines[:1] != ["..."] and not (
        printed_lines and _lines_match(expected_lines[0], printed_lines[0], tolerance)
    ):
        return expected_lines[0]
    position, skipping = 0, False
    for line in expected_lines:
        if line == "...":
            skipping = True
            continue
        candidates = (
            range(position, len(printed_lines))
            if skipping
            else range(position, min(position + 1, len(printed_lines)))
        )
        found = next(
            (place for place in candidates if _lines_match(line, printed_lines[place], tolerance)), None
        )
        if found is None:
            return line
        position, skipping = found + 1, False
    return (
        None
        if skipping or position == len(printed_lines)
        else f"nothing more, but it also prints: {printed_lines[position]}"
    )


def _normalise(line: str) -> str:
    for pattern, word in _VOLATILE:
        line = pattern.sub(word, line)
    return " ".join(line.split())


def _lines_match(one: str, other: str, tolerance: float) -> bool:
    if not tolerance or one == other:
        return one == other
    numbers = [[float(found) for found in _NUMBER.findall(line)] for line in (one, other)]
    return _NUMBER.sub("N", one) == _NUMBER.sub("N", other) and all(
        abs(a - b)
        <= tolerance * max(0.05 if a != round(a) or b != round(b) else 2.0, 0.1 * max(abs(a), abs(b)))
        for a, b in zip(*numbers, strict=True)
    )
