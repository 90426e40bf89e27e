"""The findings as Markdown tables, for the console and for the page. Imports calibrate and this package."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from lesion_triage.bundle.files import write_atomically
from lesion_triage.calibrate.wording import format_percent
from lesion_triage.errors import RunError
from lesion_triage.proof import mapie_comparison
from lesion_triage.proof.findings import Findings
from lesion_triage.proof.splits import Splits
from lesion_triage.proof.trial import Trial

BEGIN, END = "<!-- proof:begin -->", "<!-- proof:end -->"

_MUST = {"keeps": "keep", "breaks": "break", "shown": "-"}


def refresh(page: Path, block: str) -> None:
    """Put the block between the markers of a page and change nothing else.

    Raises:
        RunError: as ``around``.
    """
    before, after = around(page)
    write_atomically(page, f"{before}{BEGIN}\n{block}\n{END}{after}".encode())


def around(page: Path) -> tuple[str, str]:
    """The text before and after the marked block of a page.

    Raises:
        RunError: the page is missing, or does not have both markers exactly once and in order.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"{page}: expected the page that keeps the findings ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise RunError(f"{page}: expected the page that keeps the findings, in UTF-8.") from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in after:
        raise RunError(
            f"{page}: expected the lines '{BEGIN}' and '{END}' once each, in this order; restore them."
        )
    return before, after


def markdown(found: Findings) -> str:
    """All tables, without figures or prose."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(_lines(found))).rstrip()


def verdict(found: Findings) -> str:
    """The result in one line."""
    kept, controls = (
        [one for one in found.trials if one.expected == expected] for expected in ("keeps", "breaks")
    )
    as_they_must = sum(one.passed for one in controls)
    return (
        f"{sum(one.passed for one in kept)} of {len(kept)} promises kept; {as_they_must} of {len(controls)} "
        f"negative controls broke theirs, as they must; findings that are wrong: {len(found.broken)}."
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table that reads well as plain text too: words aligned left, numbers right."""
    lines = [list(head), *(list(row) for row in rows)]
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numbers = [any(map(_is_number, column[1:])) for column in columns]
    rule = ["-" * (width - number) + ":" * number for width, number in zip(widths, numbers, strict=True)]
    return [_line(cells, widths, numbers) for cells in (lines[0], rule, *lines[1:])]


def _line(cells: Sequence[str], widths: Sequence[int], numbers: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if number else cell.ljust(width)
        for cell, width, number in zip(cells, widths, numbers, strict=True)
    )
    return f"| {' | '.join(padded)} |"


def _lines(found: Findings) -> Iterator[str]:
    yield f"**{verdict(found)}**"
    yield ""
    yield (
        f"{found.positives} positive cases with {found.photographs} photographs, {found.negatives} other "
        f"cases; {found.draws:,} draws of each size; seed {found.seed}; SHA-256 of `scores.csv` begins with "
        f"{found.scores_sha256[:16]}."
    )
    for sentence in found.broken:
        yield f"- BROKEN: {sentence}"
    yield from _section("Calibration sets drawn from the held-out cases", _violations(found.in_the_pool))
    yield from _section("What each rule gives: mean specificity", _specificities(found.in_the_pool))
    yield from _section("Several scores of one unit", _violations(found.in_clusters))
    yield from _section("Several groups at once: any of them below the target", _violations(found.jointly))
    yield from _section("What several groups cost: mean specificity", _specificities(found.jointly))
    yield from _section(
        "The whole policy: gates, red flags and score, with refusals and answers drawn at random",
        _violations(found.whole_policy),
    )
    yield from _section(
        "In use: wrong verdicts on a threshold that just keeps, or just breaks, the promise",
        _violations(found.in_use),
    )
    yield from _section("Real splits", _splits(found.over_splits))
    yield from _section("The published table", _steps(found))
    yield from _section("Independent implementations", _comparisons(found))
    yield from _section("MAPIE on the same draws", _peer(found.peer))


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield from ("", f"### {title}", "", *lines)


def _violations(trials: Sequence[Trial]) -> Iterator[str]:
    """A table for each target: share of violations in per cent, and its exact probability in brackets."""

    def cell(one: Trial) -> str:
        exact = "" if one.exact is None else f" ({100 * one.exact:.2f})"
        return f"{100 * one.share:.2f}{exact}"

    yield from _pivot(trials, "draws that violate it, % (exact probability, %)", cell, judged=True)


def _specificities(trials: Sequence[Trial]) -> Iterator[str]:
    """Rows that are judged on negative cases too. A specificity above the oracle's is paid for in misses."""
    shown = [one for one in trials if one.specificity is not None]

    def cell(one: Trial) -> str:
        return f"{one.specificity:.3f} of {one.oracle:.3f}"

    yield from _pivot(shown, "specificity, and that of an oracle that knows the truth", cell, judged=False)


def _pivot(
    trials: Sequence[Trial], what: str, cell: Callable[[Trial], str], *, judged: bool
) -> Iterator[str]:
    sizes = sorted({one.positives for one in trials})
    for target in sorted({one.target for one in trials}, reverse=True):
        rows: dict[str, dict[int, Trial]] = {}
        for one in trials:
            if one.target == target:
                rows.setdefault(one.what, {})[one.positives] = one
        limit = next(one.limit for one in trials)
        bound = f"; 'keep': at most {100 * limit:.2f}, 'break': more" if judged else ""
        yield f"Target {target} at {format_percent(trials[0].confidence)}% confidence: {what}{bound}."
        yield ""
        head = ["rule", *(["must"] if judged else []), *(f"n = {size}" for size in sizes)]
        yield from table(head, (_pivot_row(name, row, sizes, cell, judged) for name, row in rows.items()))
        yield ""


def _pivot_row(
    name: str, row: dict[int, Trial], sizes: Sequence[int], cell: Callable[[Trial], str], judged: bool
) -> list[str]:
    must = [_MUST[next(iter(row.values())).expected]] if judged else []
    return [name, *must, *(_judged_cell(row.get(size), cell, judged) for size in sizes)]


def _judged_cell(one: Trial | None, cell: Callable[[Trial], str], judged: bool) -> str:
    if one is None:
        return "-"
    return cell(one) + (" WRONG" if judged and not one.passed else "")


def _splits(splits: Sequence[Splits]) -> Iterator[str]:
    head = ("target", "splits", "mean misses", "by the law", "distance", "by chance", "chi-square p")
    yield from table(
        head,
        (
            (
                f"{one.target:g}",
                f"{one.splits}",
                f"{_mean(one.seen):.3f}",
                f"{_mean(one.law):.3f}",
                f"{one.total_variation:.4f}",
                f"{one.total_variation_by_chance:.4f}",
                f"{one.p_value:.3f}",
            )
            for one in splits
        ),
    )


def _mean(weights: Sequence[float]) -> float:
    return sum(value * weight for value, weight in enumerate(weights)) / sum(weights)


def _steps(found: Findings) -> Iterator[str]:
    head = ("positives", "misses allowed", "published", "fails, %", "with one more miss, %")
    yield from table(
        head,
        (
            (
                f"{step.positives}",
                f"{step.misses_allowed}",
                f"{step.published}",
                f"{100 * step.failure:.2f}",
                f"{100 * step.failure_with_one_more:.2f}",
            )
            for step in found.steps
        ),
    )


def _comparisons(found: Findings) -> Iterator[str]:
    yield from table(
        ("against", "numbers", "largest difference"),
        ((one.what, f"{one.numbers}", f"{one.largest_difference:.1g}") for one in found.comparisons),
    )


def _peer(compared: mapie_comparison.Comparison | None) -> Iterator[str]:
    if compared is None:
        yield "MAPIE was left out or is not installed: nothing was compared."
        return
    ratios = [run.time_ratio for run in compared.duels]
    yield (
        f"MAPIE {compared.version}; one of its certificates takes {min(ratios):.0f} to {max(ratios):.0f} "
        f"times as long as one of ours (median of {compared.duels[0].draws} draws, alternating)."
    )
    yield ""
    yield from table(
        ("target", "positives", "misses allowed: ours", "MAPIE, recall", "MAPIE, miss rate"),
        (
            (f"{one.target:g}", f"{one.positives}", f"{one.ours}", f"{one.recall}", f"{one.miss_rate}")
            for one in compared.granted
        ),
    )
    yield ""
    yield f"Violations in {compared.duels[0].draws} draws, and mean specificity:"
    yield ""
    yield from table(
        ("target", "positives", "ours", "MAPIE, tuned", "MAPIE, defaults", "same threshold"),
        (
            (
                f"{one.target:g}",
                f"{one.positives}",
                f"{one.our_violations}, {one.our_specificity:.3f}",
                f"{one.their_violations}, {one.their_specificity:.3f}",
                f"{one.as_it_comes_violations}, {one.as_it_comes_specificity:.3f}",
                f"{one.same_threshold}",
            )
            for one in compared.duels
        ),
    )


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit()
