"""A comparison as Markdown, as a section of a report, and as a page of its own. Imports this package."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from lesion_triage.bundle.files import write_atomically
from lesion_triage.bundle.messages import english_catalogue
from lesion_triage.bundle.schema import Disposition
from lesion_triage.calibrate.paired_comparison import Difference, DiscordantPairs
from lesion_triage.evaluate.comparison import Comparison, PairedCases, changed_cases
from lesion_triage.evaluate.figures import interval_plots, paired_scores
from lesion_triage.evaluate.report_figures import ReportFigure
from lesion_triage.evaluate.report_page import data_uri, jinja_environment, p_value, signed_with_interval

_TITLES = {
    "auroc": "AUROC",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "referral_rate": "Referral rate",
}
_MAX_LISTED = 40
_LETTERS = ("A", "B")


def render_section(comparison: Comparison, pairs: PairedCases) -> str:
    """HTML of the comparison, for the inside of a page."""
    return _render_template("comparison_section.html", comparison, pairs)


def write_comparison(
    folder: Path, comparison: Comparison, pairs: PairedCases, with_case_ids: bool = False
) -> Path:
    """Write ``comparison.json``, ``comparison.md``, figures and, last, ``index.html``.

    Args:
        folder: made if missing.
        comparison: the numbers.
        pairs: the pair behind them.
        with_case_ids: write ``changed_cases.csv`` too, which identifies the cases that changed side and must
            not be passed on.

    Returns:
        The page.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for one in draw_figures(comparison, pairs):
        write_atomically(folder / "figures" / f"{one.name}.png", one.png)
    if with_case_ids:
        write_atomically(folder / "changed_cases.csv", _changed_cases_csv(pairs).encode())
    write_atomically(folder / "comparison.json", comparison.to_json().encode())
    write_atomically(folder / "comparison.md", f"{markdown(comparison)}\n".encode())
    write_atomically(folder / "index.html", _render_template("comparison.html", comparison, pairs).encode())
    return folder / "index.html"


def draw_figures(comparison: Comparison, pairs: PairedCases) -> tuple[ReportFigure, ...]:
    """Two figures: the differences with their intervals, and the scores of both, case by case."""
    compared = comparison.compared
    intervals = {
        _TITLES[one.name]: None
        if one.difference is None
        else interval_plots.Interval(one.difference.value, one.difference.low, one.difference.high)
        for one in compared.differences
    }
    difference_texts = "; ".join(
        f"{_TITLES[one.name]} {signed_with_interval(one.difference)}"
        for one in compared.differences
        if one.difference
    )
    thresholds = comparison.first.threshold, comparison.second.threshold
    return (
        ReportFigure(
            "differences",
            interval_plots.dot_plot(intervals, "B minus A, 95 % paired interval", 0.0, "no difference"),
            "B minus A on the same cases. A higher referral rate means more visits, not better decisions.",
            f"Differences, B minus A: {difference_texts}.",
        ),
        ReportFigure(
            "scores_of_both",
            paired_scores.score_scatter(*pairs.answers(), pairs.first.positive, thresholds, _LETTERS),
            "Score by B against score by A, for the cases that both scored. Triangles: cases that changed "
            "side. Dashed: the thresholds. Of more than 4,000 cases on the same side a sample is shown.",
            f"Scores of both: of {comparison.positives} positive cases {compared.positives.first_only} are "
            f"referred by A alone and {compared.positives.second_only} by B alone; of "
            f"{comparison.cases - comparison.positives} others "
            f"{compared.negatives.first_only} and {compared.negatives.second_only}.",
        ),
    )


def markdown(comparison: Comparison) -> str:
    """The result in a few lines and two tables."""
    lines = [
        f"A: {_describe_bundle(comparison, 0)}.",
        f"B: {_describe_bundle(comparison, 1)}.",
        "",
        f"{comparison.cases} cases of split {comparison.split} that both were tested on, "
        f"{comparison.positives} positive. {_left_out_text(comparison)}",
        "",
        "| measure | A | B | B minus A, 95 % interval |",
        "|---|---|---|---|",
        *(_difference_row(one) for one in comparison.compared.differences),
        "",
        "| cases | referred by A alone | referred by B alone | exact McNemar p |",
        "|---|---|---|---|",
        *(
            f"| {title}, {discordant.cases} | {discordant.first_only} | {discordant.second_only} | "
            f"{_p_value_text(discordant)} |"
            for title, discordant in (
                ("positive", comparison.compared.positives),
                ("others", comparison.compared.negatives),
            )
        ),
        "",
        f"AUROC over the {comparison.compared.scored_by_both} cases that both scored; abstentions count as "
        "referred. Choosing the better of two by this table makes the test split a validation split.",
    ]
    return "\n".join(lines)


def _render_template(template: str, comparison: Comparison, pairs: PairedCases) -> str:
    positions = {one: place for place, one in enumerate(Disposition)}
    crossings = {
        positive: [
            (first, [one.cases for one in comparison.crossings if one.first_disposition is first
                     and one.needs_in_person is positive])
            for first in positions
        ]
        for positive in (True, False)
    }  # fmt: skip
    moved = comparison.compared.positives, comparison.compared.negatives
    return (
        jinja_environment()
        .get_template(template)
        .render(
            found=comparison,
            letters=_LETTERS,
            titles=_TITLES,
            figures={
                one.name: {"uri": data_uri(one.png), "caption": one.caption, "alt": one.alt}
                for one in draw_figures(comparison, pairs)
            },
            dispositions=list(positions),
            crossings=crossings,
            changed=comparison.changed[:_MAX_LISTED],
            changed_total=sum(discordant.first_only + discordant.second_only for discordant in moved),
            left_out=_left_out_text(comparison),
            p_of=_p_value_text,
            notice=english_catalogue().notice,
        )
    )


def _describe_bundle(comparison: Comparison, number: int) -> str:
    side = (comparison.first, comparison.second)[number]
    drawn = ", drawn pictures" if side.synthetic else ""
    return (
        f"bundle {side.name} ({side.bundle_sha256[:16]}{drawn}), certificate {side.certificate_id}, "
        f"threshold {side.threshold:.4f}"
    )


def _left_out_text(comparison: Comparison) -> str:
    parts = [
        f"{count} {what}"
        for count, what in (
            (comparison.only_first, "only in A's test split"),
            (comparison.only_second, "only in B's"),
            (comparison.labels_differ, "with different reference standards"),
        )
        if count
    ]
    return f"Left out: {', '.join(parts)}." if parts else "No case of either test split is left out."


def _difference_row(one: Difference) -> str:
    return (
        f"| {_TITLES[one.name]} | {one.first:.3f} | {one.second:.3f} | "
        f"{signed_with_interval(one.difference)} |"
    )


def _p_value_text(discordant: DiscordantPairs) -> str:
    return (
        "not given: patients have several cases"
        if discordant.p_value is None
        else p_value(discordant.p_value)
    )


def _changed_cases_csv(pairs: PairedCases) -> str:
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
    for name, one in changed_cases(pairs):
        scores = ["" if score is None else repr(score) for score in (one.first_score, one.second_score)]
        dispositions = one.first_disposition.value, one.second_disposition.value
        writer.writerow([name, one.needs_in_person, *scores, *dispositions, one.first_band, one.second_band])
    return buffer.getvalue()
