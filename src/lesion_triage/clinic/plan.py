"""``lesion-triage plan``: cases that a certificate takes, what it gives and costs. Tables, figure, JSON.

Imports calibrate, bundle, errors and this package.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from lesion_triage.bundle.document import canonical_json
from lesion_triage.calibrate.alarm_delay import GOOD_CASES, AlarmDelay, alarm_delay, good_sensitivity
from lesion_triage.calibrate.certificate import minimum_positives
from lesion_triage.calibrate.planning import (
    MAX_POSITIVES,
    Binormal,
    EmpiricalPopulation,
    Forecast,
    JointForecast,
    SampleSizeStep,
    bonferroni_confidence,
    forecast,
    joint_forecast,
    positives_for_power,
    power,
    sample_size_steps,
)
from lesion_triage.clinic.arguments import save
from lesion_triage.clinic.plan_figure import draw
from lesion_triage.clinic.scores import read_units
from lesion_triage.errors import ConfigError

_AUROC = 0.947  # the best recipe on HAM10000: the mean over the three deals of experiments/ham10000-best
_POWERS = (0.8, 0.9)
_MISSES = (0, 1, 2, 4, 8, 16, 32)
_TIMES_THE_MISSES = (2, 3, 4)
"""Of the share that the target allows: sensitivities whose fall is to be noticed."""


@dataclass(frozen=True)
class Plan:
    """Everything that is printed, drawn and written."""

    target: float
    confidence: float
    population: Binormal | EmpiricalPopulation
    scores: str
    """What the population is, in words."""
    steps: tuple[SampleSizeStep, ...]
    forecasts: Mapping[int, Forecast | None]
    """By number of positive cases; None if they are too few."""
    powers: Mapping[float, Mapping[int, float]]
    """By true sensitivity, then by number of positive cases."""
    enough: Mapping[float, Mapping[float, int | None]]
    """By true sensitivity, then by power: positive cases from which on it is reached; None: out of reach."""
    groups: int
    joint: tuple[JointForecast, ...]
    """Empty for one group."""
    delays: tuple[AlarmDelay, ...]
    """Empty unless shares of follow-up are given."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``plan``."""
    add = parser.add_argument
    add("--target", type=float, default=0.95, metavar="S", help="sensitivity to certify (%(default)s)")
    add("--confidence", type=float, default=0.95, metavar="C", help="one-sided (%(default)s)")
    add("--positives", type=int, nargs="+", metavar="N", help="numbers of positive cases to tabulate")
    add("--misses", type=int, default=10, metavar="K", help="last row of the first table (%(default)s)")
    add("--true-sensitivity", type=float, nargs="+", metavar="S", help="of an existing threshold")
    law = parser.add_mutually_exclusive_group()
    law.add_argument(
        "--auroc", type=float, default=_AUROC, help="of normally distributed scores (%(default)s)"
    )
    law.add_argument(
        "--scores",
        type=Path,
        metavar="CSV",
        help="your scores: columns score, needs_in_person; patient_id if known",
    )
    add("--groups", type=int, default=1, metavar="G", help="groups, each promised the target (%(default)s)")
    add(
        "--follow-up",
        type=float,
        nargs="+",
        default=[],
        metavar="SHARE",
        help="of the cases below the threshold; tells how soon `watch` notices that the sensitivity fell",
    )
    add("--figure", type=Path, metavar="PNG", help="draw the plan; needs matplotlib")
    add("--json", type=Path, metavar="FILE", help="write all numbers")


def main(arguments: argparse.Namespace) -> int:
    """Print the plan; draw and write it if asked. Returns 0.

    Raises:
        CalibrationError: a number out of range.
        DataError: a table of scores that cannot be used.
        ConfigError: matplotlib is missing, or a file cannot be written.
    """
    if arguments.figure is not None and find_spec("matplotlib") is None:
        raise ConfigError(
            f"--figure {arguments.figure}: matplotlib is not installed; pip install matplotlib, or omit "
            "--figure."
        )
    plan = compute_plan(arguments)
    print("\n".join(_lines(plan)))
    if arguments.json is not None:
        save("--json", arguments.json, canonical_json(_document(plan)).encode())
    if arguments.figure is not None:
        save("--figure", arguments.figure, draw(plan))
    return 0


def compute_plan(arguments: argparse.Namespace) -> Plan:
    """Compute what the arguments ask for.

    Raises:
        CalibrationError: a number out of range.
        DataError: a table of scores that cannot be used.
    """
    target, confidence = arguments.target, arguments.confidence
    population = (
        EmpiricalPopulation(*read_units(arguments.scores)) if arguments.scores else Binormal(arguments.auroc)
    )
    steps = sample_size_steps(target, confidence, arguments.misses)
    counts = arguments.positives or _default_counts(target, confidence)
    truths = arguments.true_sensitivity or [
        round(target + (1 - target) * part, 6) for part in (0.2, 0.4, 0.6, 0.8)
    ]
    bonferroni_confidence(confidence, arguments.groups)  # refuses less than one group
    return Plan(
        target=target,
        confidence=confidence,
        population=population,
        scores=_describe_population(population, arguments.scores),
        steps=steps,
        forecasts={n: forecast(n, target, confidence, population) for n in counts},
        powers={s: {n: power(n, s, target, confidence) for n in counts} for s in truths},
        enough={
            s: {wanted: positives_for_power(wanted, s, target, confidence) for wanted in _POWERS}
            for s in truths
        },
        groups=arguments.groups,
        joint=tuple(
            joint_forecast(n, arguments.groups, target, confidence, population)
            for n in counts
            if arguments.groups > 1
        ),
        delays=tuple(
            alarm_delay(target, confidence, share, truth)
            for share in arguments.follow_up
            for truth in _falls(target)
        ),
    )


def _falls(target: float) -> list[float]:
    """Sensitivities to which it may have fallen: several times the misses, or half of a low target."""
    falls = [round(1 - times * (1 - target), 6) for times in _TIMES_THE_MISSES]
    return [truth for truth in falls if truth > 0] or [target / 2]


def _default_counts(target: float, confidence: float) -> list[int]:
    """Numbers of positive cases at which few, some and many misses become allowed; always the first."""
    first, *others = (minimum_positives(target, confidence, misses) for misses in _MISSES)
    return [first, *(n for n in others if n <= MAX_POSITIVES)]


def _describe_population(population: Binormal | EmpiricalPopulation, path: Path | None) -> str:
    if isinstance(population, Binormal):
        return f"normal scores with AUROC {population.auroc:g}"
    return (
        f"{path}, {population.positives} positive and {population.negatives} negative cases, "
        f"AUROC {population.auroc:.3f}"
    )


def _lines(plan: Plan) -> Iterator[str]:
    """The tables, each with one sentence on how to read it."""
    yield f"Sensitivity {plan.target:g}, confidence {plan.confidence:g}. Scores: {plan.scores}."
    yield "\n1. How many positive cases, for how many allowed misses\n"
    yield from _table(_STEP_HEAD, [_step_row(step) for step in plan.steps])
    yield _read(
        "this many confirmed positive cases, a number fixed before anybody looks at a score, certify the "
        "target if no more of them are missed than the row allows. Stop at a number of the column "
        "'positives' or go on to the next: the cases in between allow no further miss."
    )
    yield "\n2. A new threshold, chosen on this many positive cases\n"
    yield from _table(_FORECAST_HEAD, [_forecast_row(n, found) for n, found in plan.forecasts.items()])
    yield _read(
        "the certified threshold has this true sensitivity and specificity on average, and in nine draws of "
        "ten between the 5 % and the 95 % column. The cost is the mean loss of specificity against "
        f"{plan.population.specificity_at(plan.target):.3f}, that of a threshold at exactly the target, "
        "which no number of cases can certify."
    )
    yield "\n3. An existing threshold, tested on this many positive cases: how often it is certified\n"
    yield from _table(("positives", *(f"truth {s:g}" for s in plan.powers)), list(_power_rows(plan)))
    yield _read(
        "the probability that no more are missed than table 1 allows, if the true sensitivity is that of the "
        f"column (below the target it is at most {1 - plan.confidence:.2g}). It jumps up at each number "
        "of table 1 and falls between them, so the last rows give the number from which on it stays at least "
        "that high; '-' if that cannot be shown."
    )
    if plan.joint:
        each = bonferroni_confidence(plan.confidence, plan.groups)
        yield f"\n4. The target for each of {plan.groups} groups at once, with this many positives in each\n"
        yield from _table(_JOINT_HEAD, [_joint_row(row) for row in plan.joint])
        yield _read(
            "expected specificity with one common threshold, the lowest that any group needs, and with a "
            f"threshold for each group at confidence {each:.4g}, which takes at least "
            f"{minimum_positives(plan.target, each)} positive cases in each. The groups are assumed to have "
            "the same scores; if one scores lower than the others, the common threshold follows it."
        )
    if plan.delays:
        number = 5 if plan.joint else 4
        yield f"\n{number}. A threshold in use: how soon `watch` notices that it misses more\n"
        yield from _table(_DELAY_HEAD, [_delay_row(row) for row in plan.delays])
        yield _read(
            "if this share of the cases below the threshold is followed up and the true sensitivity is this, "
            "the alarm comes within so many positive cases, known or not, in half of all clinics and in nine "
            f"of ten; then the same if it has fallen to this after {GOOD_CASES} known positive cases at "
            f"{good_sensitivity(plan.target):g}. '-' is beyond the simulation. The probability that a false "
            f"alarm ever comes is at most {1 - plan.confidence:.2g}."
        )


def _read(sentence: str) -> str:
    return "\n" + textwrap.fill(f"Read: {sentence}", width=100, break_on_hyphens=False)


_STEP_HEAD = ("misses", "positives", "up to", "share missed", "lower bound")
_FORECAST_HEAD = (
    "positives", "misses", "sensitivity", "5 %", "50 %", "95 %", "specificity", "5 %", "95 %", "cost",
)  # fmt: skip
_DELAY_HEAD = ("follow-up", "truth", "half", "nine in ten", "half, later", "nine in ten, later")
_JOINT_HEAD = ("positives", "misses", "specificity, common", "misses", "specificity, own")


def _step_row(step: SampleSizeStep) -> tuple[str, ...]:
    counts = (str(count) for count in (step.misses, step.positives, step.last))
    return (*counts, f"{step.missed_share:.4f}", f"{step.lower_bound:.4f}")


def _forecast_row(positives: int, found: Forecast | None) -> tuple[str, ...]:
    if found is None:
        return (str(positives), "none", *("-" for _ in _FORECAST_HEAD[2:]))
    sensitivity, specificity = found.sensitivity, found.specificity
    shares = (
        sensitivity.mean, sensitivity.low, found.median_sensitivity, sensitivity.high,
        specificity.mean, specificity.low, specificity.high, found.cost,
    )  # fmt: skip
    return (str(positives), str(found.misses), *(f"{share:.3f}" for share in shares))


def _power_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    for positives in plan.forecasts:
        yield (str(positives), *(f"{powers[positives]:.3f}" for powers in plan.powers.values()))
    for wanted in _POWERS:
        yield (f"{wanted:g} from", *(_or_dash(enough[wanted]) for enough in plan.enough.values()))


def _joint_row(row: JointForecast) -> tuple[str, ...]:
    found = (row.common_misses, row.common_specificity, row.own_misses, row.own_specificity)
    return (str(row.positives), *(_or_dash(value) for value in found))


def _delay_row(row: AlarmDelay) -> tuple[str, ...]:
    delays = (row.median, row.late, row.median_after_good, row.late_after_good)
    return (f"{row.share:g}", f"{row.sensitivity:g}", *(_or_dash(delay) for delay in delays))


def _or_dash(value: float | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Right-aligned columns, as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))


def _document(plan: Plan) -> dict[str, object]:
    return {
        "target_sensitivity": plan.target,
        "confidence": plan.confidence,
        "scores": plan.scores,
        "specificity_at_target": plan.population.specificity_at(plan.target),
        "steps": [asdict(step) for step in plan.steps],
        "new_threshold": [
            {"positives": n, "forecast": None if found is None else asdict(found)}
            for n, found in plan.forecasts.items()
        ],
        "existing_threshold": [
            {
                "true_sensitivity": truth,
                "power": [{"positives": n, "power": value} for n, value in powers.items()],
                "from_here_on": [{"power": p, "positives": n} for p, n in plan.enough[truth].items()],
            }
            for truth, powers in plan.powers.items()
        ],
        "groups": plan.groups,
        "joint": [asdict(row) for row in plan.joint],
        "alarm_delays": [asdict(row) for row in plan.delays],
    }
