"""Figures of a report, with captions and alternative texts that state the result. Imports this package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lesion_triage.bundle.store import Bundle
from lesion_triage.calibrate.bootstrap import Estimate
from lesion_triage.calibrate.decision_analysis import NetBenefit
from lesion_triage.calibrate.metrics import Proportion
from lesion_triage.calibrate.queue_figure import draw as draw_queue
from lesion_triage.calibrate.queue_pool import Group, Order
from lesion_triage.calibrate.queue_report import Study, heading
from lesion_triage.calibrate.queueing import FIRST_COME, Discipline
from lesion_triage.evaluate.figures import clinical_utility, discrimination, interval_plots, scores
from lesion_triage.evaluate.groups import GroupResult
from lesion_triage.evaluate.results import Results

DIMENSIONS = {
    "all": "All cases",
    "reference_class": "Class of the reference standard",
    "sex": "Sex",
    "age_band": "Age in years",
    "anatom_site_general": "Site of the body",
    "fitzpatrick_skin_type": "Skin type (Fitzpatrick)",
    "source": "Source",
}
"""Title of each dimension of the certificate, in figures and tables."""

_MOST_ROWS = 30
"""Rows of one forest plot, so that it fits a printed page."""


@dataclass(frozen=True, slots=True)
class ReportFigure:
    """One figure."""

    name: str
    png: bytes
    caption: str
    alt: str


def draw_figures(results: Results, bundle: Bundle, study: Study | None) -> tuple[ReportFigure, ...]:
    """Every figure that there are enough numbers for.

    Args:
        results: of the evaluation.
        bundle: policy and certificate.
        study: of the reading queue; None: no figure of it.
    """
    target = bundle.certificate.target_sensitivity
    found = [
        *_discrimination_figures(results, target),
        *_score_figures(results, bundle),
        *_forest_plots(results, target),
    ]
    found += [*_metadata_figure(results), *_clinical_utility_figures(results)]
    if study is not None:
        found.append(_queue_figure(study))
    return tuple(found)


def _discrimination_figures(results: Results, target: float) -> Iterator[ReportFigure]:
    whole = results.slices[0]
    sensitivity, specificity = whole.sensitivity_exact, whole.specificity_exact
    if sensitivity is None or specificity is None:
        return
    auroc, auprc, ppv = whole.metrics.get("auroc"), whole.metrics.get("auprc"), whole.ppv_exact
    point = f"at the certified threshold sensitivity is {sensitivity.value:.3f}"
    yield ReportFigure(
        "roc",
        discrimination.roc(results.roc, auroc, sensitivity, specificity, target),
        "Receiver operating characteristic with the certified operating point. Abstentions count as "
        "referred; at that point red flags do too, which may lift it off the curve. The AUROC is over the "
        "cases with a score.",
        f"ROC curve, AUROC {_interval_text(auroc)}; {point} and specificity {specificity.value:.3f}.",
    )
    prevalence = results.positives / results.cases
    yield ReportFigure(
        "precision_recall",
        discrimination.precision_recall(
            results.precision_recall, auprc, sensitivity, ppv, prevalence, target
        ),
        "Precision and recall, here called PPV and sensitivity, at the prevalence of this split, with the "
        "certified operating point. At another prevalence the PPV differs: see the predictive values.",
        f"Precision-recall curve, AUPRC {_interval_text(auprc)} where {prevalence:.1%} are positive; {point} "
        f"and the PPV {_interval_text(ppv)}.",
    )


def _score_figures(results: Results, bundle: Bundle) -> Iterator[ReportFigure]:
    if not results.reliability:
        return
    furthest = max(results.reliability, key=lambda one: abs(one.observed.value - one.mean_score))
    outside = sum(not one.observed.low <= one.mean_score <= one.observed.high for one in results.reliability)
    yield ReportFigure(
        "reliability",
        scores.reliability_diagram(results.reliability),
        "Reliability: share of positive cases against the mean score, in bins of equal mass; the table "
        "counts their cases. Both axes have a square-root scale.",
        f"Reliability diagram: in {outside} of {len(results.reliability)} bins the mean score lies outside "
        "the interval of the observed share; they are furthest apart at a mean score of "
        f"{furthest.mean_score:.3f}, where {furthest.observed.value:.3f} are positive.",
    )
    yield ReportFigure(
        "scores",
        scores.distributions(results.histogram, results.threshold, bundle.policy.band_limits),
        "Scores of the cases that need a visit, above, and of the others, below; each with its own scale. "
        "Line: certified threshold. Dots: limits of the bands.",
        f"Distribution of scores: {results.missed} of {results.positives} positive cases lie below the "
        f"threshold of {results.threshold:.4f} and {results.abstained} of all {results.cases} have no score.",
    )


def _forest_plots(results: Results, target: float) -> Iterator[ReportFigure]:
    """Forest plots of at most ``_MOST_ROWS`` groups; a dimension is never split, even if it has more."""
    everyone, parts = results.groups[0], results.groups[1:]
    resampled = "patients" if results.unit == "patient" else "cases"
    if not parts or everyone.sensitivity is None:
        return
    plots: list[list[GroupResult]] = [[]]
    for by in dict.fromkeys(group.by for group in parts):
        members = [group for group in parts if group.by == by]
        if plots[-1] and len(plots[-1]) + len(members) > _MOST_ROWS:
            plots.append([])
        plots[-1] += members
    for number, plot_groups in enumerate(plots, start=1):
        yield ReportFigure(
            f"groups_{number}",
            interval_plots.forest_plot(
                _forest_rows(everyone, plot_groups), ("sensitivity", "specificity", "AUROC"), target
            ),
            "Subgroups; in brackets, how many of the cases need a visit. 95 % intervals: a bootstrap "
            f"of {resampled} for the AUROC, exact for the others unless a patient has several cases. Hollow "
            "mark: the certificate promises nothing for this group, which had too few positive cases.",
            _forest_alt(everyone, plot_groups),
        )


def _forest_rows(everyone: GroupResult, groups: Sequence[GroupResult]) -> list[interval_plots.Row]:
    found = [interval_plots.Row(_row_label("everyone", everyone), "everyone", _intervals(everyone))]
    for by in dict.fromkeys(group.by for group in groups):
        found.append(interval_plots.Row(DIMENSIONS.get(by, by)))
        found += [
            interval_plots.Row(_row_label(group.group, group), group.status, _intervals(group))
            for group in groups
            if group.by == by
        ]
    return found


def _row_label(name: str, group: GroupResult) -> str:
    mark = "NOT CERTIFIABLE: " if group.status == "not_certifiable" else ""
    return f"{mark}{name} ({group.positives:,} of {group.cases:,})"


def _intervals(group: GroupResult) -> tuple[interval_plots.Interval | None, ...]:
    measured: tuple[Estimate | Proportion | None, ...] = (group.sensitivity, group.specificity, group.auroc)
    return tuple(
        None if one is None else interval_plots.Interval(one.value, one.low, one.high) for one in measured
    )


def _forest_alt(everyone: GroupResult, groups: Sequence[GroupResult]) -> str:
    small = [group for group in groups if group.status == "not_certifiable"]
    measured = [group for group in groups if group.sensitivity is not None]
    text = (
        f"Forest plot of {len(groups)} subgroups; sensitivity of everyone "
        f"{_interval_text(everyone.sensitivity)}"
    )
    if measured:
        lowest = min(measured, key=lambda group: group.sensitivity.value if group.sensitivity else 1)
        text += f", lowest for {_group_title(lowest)}, {_interval_text(lowest.sensitivity)}"
    if small:
        text += f"; NOT CERTIFIABLE: {', '.join(map(_group_title, small))}"
    return f"{text}."


def _group_title(group: GroupResult) -> str:
    return f"{DIMENSIONS.get(group.by, group.by).lower()} {group.group}"


def _metadata_figure(results: Results) -> Iterator[ReportFigure]:
    if not results.metadata:
        return
    model = results.metadata[0].model_auroc
    measured = {"Model, on the picture": model} | {one.title: one.auroc for one in results.metadata}
    best = max(results.metadata, key=lambda one: one.auroc.value if one.auroc else 0)
    gain = "" if best.difference is None else f", so the picture adds {_interval_text(best.difference)}"
    yield ReportFigure(
        "metadata",
        interval_plots.dot_plot(
            {
                name: None if one is None else interval_plots.Interval(one.value, one.low, one.high)
                for name, one in measured.items()
            },
            "AUROC, 95 % interval",
            0.5,
            "chance",
        ),
        "The model and logistic regressions that see no picture, fitted on the training split and measured "
        "on the same cases.",
        f"AUROC of the model {_interval_text(model)}, of the best baseline without a picture "
        f"({best.title.lower()}) {_interval_text(best.auroc)}{gain}.",
    )


def _clinical_utility_figures(results: Results) -> Iterator[ReportFigure]:
    if results.decision_curve:
        yield ReportFigure(
            "decision_curve",
            clinical_utility.decision_curve(results.decision_curve, results.policy_decision_curve),
            "Decision curve (Vickers & Elkin 2006). Referring at a probability of p accepts (1 - p) / p "
            "unnecessary visits for one positive case found. Band: 95 %, bootstrap.",
            "Decision curve: referring by score beats referring everybody and nobody "
            f"{_beneficial_range(results.decision_curve)}; the certified policy does "
            f"{_beneficial_range(results.policy_decision_curve)}.",
        )
    if results.predictive_values:
        row = min(results.predictive_values, key=lambda one: abs(one.prevalence - 0.05))
        npv = "not estimable" if row.npv is None else f"{1000 * (1 - row.npv.value):.1f}"
        yield ReportFigure(
            "predictive_values",
            clinical_utility.predictive_values(results.predictive_values, results.positives / results.cases),
            "Predictive values of the policy at other prevalences, all else being equal. "
            + (
                "The bands are exact and hold for all prevalences at once, with at least 95 %."
                if results.predictive_values_exact
                else "The bands hold for all prevalences at once, with 95 %, by the effective number of "
                "cases: a patient has several."
            ),
            f"Predictive values against prevalence: where {row.prevalence:.0%} need a visit, the PPV is "
            f"{_interval_text(row.ppv)}, and of 1,000 cases not referred {npv} need one.",
        )


def _queue_figure(study: Study) -> ReportFigure:
    waits = {one.order: waits for one, waits in study.outcomes.items() if one == Discipline(one.order)}
    wait_texts = []
    labelled_groups: tuple[tuple[Group, str], ...] = (
        ("referred_positives", "referred"),
        ("missed_positives", "missed"),
    )
    orders: tuple[Order, ...] = (FIRST_COME.order, "binary_flag", "four_bands")
    for group, name in labelled_groups:
        times = [
            waits[order][group, "mean"].minutes.value for order in orders if (group, "mean") in waits[order]
        ]
        if len(times) == len(orders):
            wait_texts.append(
                f"positive cases that are {name} wait {times[0]:.0f} minutes first come, {times[1]:.0f} "
                f"with a binary flag and {times[2]:.0f} with four bands"
            )
    return ReportFigure(
        "queue",
        draw_queue(study),
        f"Simulated reading queue: {heading(study)}. The clock runs only while people read.",
        f"Mean waits by order of reading: {'; '.join(wait_texts) or 'no positive case is referred'}.",
    )


def _beneficial_range(curve: Sequence[NetBenefit]) -> str:
    """Threshold probabilities at which a strategy beats both referring everybody and referring nobody."""
    better = [
        row.threshold_probability
        for row in curve
        if row.model and row.refer_all and row.model.value > max(row.refer_all.value, 0) + 1e-12
    ]
    if not better:
        return "at none of the threshold probabilities drawn"
    whole = len(better) == round((better[-1] - better[0]) * 100) + 1
    return f"at threshold probabilities {'' if whole else 'within '}{better[0]:.2f} to {better[-1]:.2f}"


def _interval_text(found: Estimate | Proportion | None) -> str:
    if found is None:
        return "not estimable"
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
