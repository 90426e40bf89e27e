"""A comparison as Markdown, as a section of a report, and as a page of its own. Imports this room."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from lesion_triage.bundle.files import write_atomically
from lesion_triage.bundle.messages import english
from lesion_triage.bundle.schema import Disposition
from lesion_triage.calibrate.paired_comparison import Difference, Discordant
from lesion_triage.evaluate.comparison import Comparison, Pair, changed_cases
from lesion_triage.evaluate.drawing import Drawn
from lesion_triage.evaluate.figures import pair as pair_figure
from lesion_triage.evaluate.figures import rows
from lesion_triage.evaluate.page import environment, p_value, signed, uri

_TITLES = {
    "auroc": "AUROC",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "referral_rate": "Referral rate",
}
_LISTED = 40
_LETTERS = ("A", "B")


def section(found: Comparison, both: Pair) -> str:
    """HTML of the comparison, for the inside of a page."""
    return _html("comparison_section.html", found, both)


def write_comparison(folder: Path, found: Comparison, both: Pair, names: bool = False) -> Path:
    """Write ``comparison.json``, ``comparison.md``, figures and, last, ``index.html``.

    Args:
        folder: made if missing.
        found: the numbers.
        both: the pair behind them.
        names: write ``changed_cases.csv`` too, which identifies the cases that changed side and must not be
            passed on.

    Returns:
        The page.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for one in draw(found, both):
        write_atomically(folder / "figures" / f"{one.name}.png", one.png)
    if names:
        write_atomically(folder / "changed_cases.csv", _names(both).encode())
    write_atomically(folder / "comparison.json", found.to_json().encode())
    write_atomically(folder / "comparison.md", f"{markdown(found)}\n".encode())
    write_atomically(folder / "index.html", _html("comparison.html", found, both).encode())
    return folder / "index.html"


def draw(found: Comparison, both: Pair) -> tuple[Drawn, ...]:
    """Two figures: the differences with their intervals, and the scores of both, case by case."""
    compared = found.compared
    intervals = {
        _TITLES[one.name]: None
        if one.difference is None
        else rows.Interval(one.difference.value, one.difference.low, one.difference.high)
        for one in compared.differences
    }
    told = "; ".join(
        f"{_TITLES[one.name]} {signed(one.difference)}" for one in compared.differences if one.difference
    )
    thresholds = found.first.threshold, found.second.threshold
    return (
        Drawn(
            "differences",
            rows.dots(intervals, "B minus A, 95 % paired interval", 0.0, "no difference"),
            "B minus A on the same cases. A higher referral rate means more visits, not better decisions.",
            f"Differences, B minus A: {told}.",
        ),
        Drawn(
            "scores_of_both",
            pair_figure.scores(*both.said(), both.first.positive, thresholds, _LETTERS),
            "Score by B against score by A, for the cases that both scored. Triangles: cases that changed "
            "side. Dashed: the thresholds. Of more than 4,000 cases on the same side a sample is shown.",
            f"Scores of both: of {found.positives} positive cases {compared.positives.first_only} are "
            f"referred by A alone and {compared.positives.second_only} by B alone; of "
            f"{found.cases - found.positives} others "
            f"{compared.negatives.first_only} and {compared.negatives.second_only}.",
        ),
    )


def markdown(found: Comparison) -> str:
    """The result in a few lines and two tables."""
    lines = [
        f"A: {_side(found, 0)}.",
        f"B: {_side(found, 1)}.",
        "",
        f"{found.cases} cases of split {found.split} that both were tested on, {found.positives} positive. "
        f"{_left_out(found)}",
        "",
        "| measure | A | B | B minus A, 95 % interval |",
        "|---|---|---|---|",
        *(_row(one) for one in found.compared.differences),
        "",
        "| cases | referred by A alone | referred by B alone | exact McNemar p |",
        "|---|---|---|---|",
        *(
            f"| {title}, {of.cases} | {of.first_only} | {of.second_only} | {_p(of)} |"
            for title, of in (("positive", found.compared.positives), ("others", found.compared.negatives))
        ),
        "",
        f"AUROC over the {found.compared.scored_by_both} cases that both scored; abstentions count as "
        "referred. Choosing the better of two by this table makes the test split a validation split.",
    ]
    return "\n".join(lines)


def _html(template: str, found: Comparison, both: Pair) -> str:
    positions = {one: place for place, one in enumerate(Disposition)}
    crossings = {
        positive: [
            (first, [one.cases for one in found.crossings if one.first_disposition is first
                     and one.needs_in_person is positive])
            for first in positions
        ]
        for positive in (True, False)
    }  # fmt: skip
    moved = found.compared.positives, found.compared.negatives
    return (
        environment()
        .get_template(template)
        .render(
            found=found,
            letters=_LETTERS,
            titles=_TITLES,
            figures={
                one.name: {"uri": uri(one.png), "caption": one.caption, "alt": one.alt}
                for one in draw(found, both)
            },
            dispositions=list(positions),
            crossings=crossings,
            changed=found.changed[:_LISTED],
            changed_total=sum(of.first_only + of.second_only for of in moved),
            left_out=_left_out(found),
            p_of=_p,
            notice=english().notice,
        )
    )


def _side(found: Comparison, number: int) -> str:
    side = (found.first, found.second)[number]
    drawn = ", drawn pictures" if side.synthetic else ""
    return (
        f"bundle {side.name} ({side.bundle_sha256[:16]}{drawn}), certificate {side.certificate_id}, "
        f"threshold {side.threshold:.4f}"
    )


def _left_out(found: Comparison) -> str:
    parts = [
        f"{count} {what}"
        for count, what in (
            (found.only_first, "only in A's test split"),
            (found.only_second, "only in B's"),
            (found.labels_differ, "with different reference standards"),
        )
        if count
    ]
    return f"Left out: {', '.join(parts)}." if parts else "No case of either test split is left out."


def _row(one: Difference) -> str:
    return f"| {_TITLES[one.name]} | {one.first:.3f} | {one.second:.3f} | {signed(one.difference)} |"


def _p(of: Discordant) -> str:
    return "not given: patients have several cases" if of.p_value is None else p_value(of.p_value)


def _names(both: Pair) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        [
            "case_id",
            "needs_in_person",
            "score_a",
            "score_b",
            "disposition_a",
            "disposition_b",
            "band_a",
            "band_b",
        ]
    )
    for name, one in changed_cases(both):
        scores = ["" if score is None else repr(score) for score in (one.first_score, one.second_score)]
        dispositions = one.first_disposition.value, one.second_disposition.value
        writer.writerow([name, one.needs_in_person, *scores, *dispositions, one.first_band, one.second_band])
    return buffer.getvalue()
