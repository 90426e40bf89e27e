"""``lesion-triage summary``: several evaluations of one configuration in one table, as in README.

Imports this package, the configuration file and the errors.

Each row has the mean over the runs and two uncertainties that must not be mixed:

- The effect of the training seed: the smallest and the largest run.
- The effect of the choice of test cases: the 95 % interval of the middle run. For sensitivity, specificity
  and referral rate it is exact, or, if patients have several cases, that of the effective number of cases
  joined with the bootstrap's. For the AUROC it is the bootstrap's, as for a referral rate from an older file
  without an exact interval.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median_low
from typing import Any

from lesion_triage import config_file
from lesion_triage.errors import ConfigError, DataError
from lesion_triage.evaluate.intervals import interval_of

_SLICES = ("all", "histology_confirmed", "without_vidir_molemax")
_METRICS = (
    ("auroc", "AUROC"),
    ("sensitivity", "sensitivity"),
    ("specificity", "specificity"),
    ("referral_rate", "referral rate"),
)
_IN_A_RUN = Path("report", "results.json")
_CONFIG = "config.yaml"  # in a run's folder
_SPLITS_HASH = "splits_sha256"
_MUST_MATCH = ("manifest_sha256", _SPLITS_HASH, "split", "unit")
_REQUIRED = (*_MUST_MATCH, "slices", "parity", "photographs", "positives", "missed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument(
        "results",
        type=Path,
        nargs="+",
        help="results.json of evaluations on the same split, or folders of evaluated runs",
    )
    parser.add_argument("--deals", action="store_true", help="each run has a split of its own")


def main(arguments: argparse.Namespace) -> int:
    """Print the table. Returns 0."""
    print(summary(arguments.results, deals=arguments.deals), end="")
    return 0


def summary(paths: Sequence[Path], *, deals: bool = False) -> str:
    """A Markdown table of ``results.json`` files, all of one split or each of another deal.

    Args:
        paths: the files, or folders of runs that have one.
        deals: each run split the same pictures with another seed, so the mean is over that chance as well.
            Some pictures are in several test splits: the deals are not independent.

    Raises:
        DataError: a file is missing or is no ``results.json``; without ``deals``, the runs were tested on
            different cases; with it, on different pictures, or two on the same split; two are of one bundle.
    """
    paths = [path / _IN_A_RUN if path.is_dir() else path for path in paths]
    runs = [_read(path) for path in paths]
    for key in _MUST_MATCH:
        if len({run[key] for run in runs}) > 1 and not (deals and key == _SPLITS_HASH):
            raise DataError(
                f"these results differ in {key}: a mean over them would mix different cases"
                f"{'; --deals averages over deals' if key == _SPLITS_HASH else ''}."
            )
    if deals and len({run[_SPLITS_HASH] for run in runs}) < len(runs):
        raise DataError("two of these results share a split; --deals expects each from a different deal.")
    _refuse_repeated_bundle(paths, runs)
    first, one = runs[0], "deal" if deals else "seed"
    lines = [
        f"| {first['split']} split, by {first['unit']} | cases (positive) | measure | mean of {len(runs)} "
        f"{one}s | lowest to highest {one} | 95 % interval of the cases, middle {one} |",
        "|---|---|---|---|---|---|",
    ]
    for name in _SLICES:
        parts = [part for run in runs for part in run["slices"] if part["name"] == name]
        lines += _rows(parts) if len(parts) == len(runs) else []
    missed = ", ".join(f"{run['missed']} of {run['positives']}" for run in runs)
    # A case is one lesion, even if the certificate and the intervals count patients.
    lines += ["", f"Positive lesions below the threshold: {missed}.{_parity_text(runs)}"]
    return "\n".join([*lines, *_group_cost_lines(runs), *_recipe_lines(paths)]) + "\n"


def _refuse_repeated_bundle(paths: Sequence[Path], runs: Sequence[dict[str, Any]]) -> None:
    """Raise for one bundle's results twice, as a run that takes over those of another has them too."""
    first: dict[str, Path] = {}
    for path, run in zip(paths, runs, strict=True):
        bundle = run.get("bundle_sha256")
        if bundle and (known := first.setdefault(bundle, path)) is not path:
            raise DataError(f"{known} and {path} are results of one bundle; leave one of them out.")


def _recipe_lines(paths: Sequence[Path]) -> list[str]:
    """What differs beside the seed, of those files that lie in the folder of a run."""
    recipes = [recipe for path in paths if (recipe := _recipe(path))]
    differing = sorted(
        {key for one in recipes for key in one if any(other.get(key) != one[key] for other in recipes)}
    )
    if not differing:
        return []
    told = f"These runs differ in more than the seed: {', '.join(differing)}."
    return ["", f"{told} The means are over different recipes."]


def _recipe(path: Path) -> dict[str, Any]:
    """What of the configuration decides the result, by key; empty: no run's file, or of another version."""
    try:
        config = config_file.load(path.parent.parent / _CONFIG, frozen=True)
    except ConfigError:
        return {}
    sections = {
        "pixels": config.pixels.model_dump(),
        "model": {**config.model.model_dump(), "weights": Path(config.model.weights).name},
        "train": config.train.recipe(),
        "ensemble": config.ensemble.recipe() if config.ensemble.size > 1 else {"members": 1},
        "calibrate": config.calibrate.model_dump(exclude={"second_look"}),
        "export": config.export.model_dump(),
    }
    return {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}


def _parity_text(runs: Sequence[dict[str, Any]]) -> str:
    """How much torch and ONNX differ, if all runs measured it: a bundle alone cannot."""
    if not all(run["parity"] for run in runs):
        return ""
    parity = max(run["parity"]["largest_score_difference"] for run in runs)
    flips = sum(run["parity"]["decision_flips"] for run in runs)
    photographs = _range_text([run["photographs"] for run in runs])
    return (
        f" Torch against ONNX on {photographs} photographs: largest score difference {parity:.1e}, "
        f"decision flips {flips}."
    )


def _group_cost_lines(runs: Sequence[dict[str, Any]]) -> list[str]:
    """What the promise to every group cost, if anything."""
    whole = [run["slices"][0] for run in runs]
    measured = all(part["metrics"] for part in whole)  # empty where there are too few cases for numbers
    if not measured or not any(run.get("everyone_alone") for run in runs):
        return []
    group_certified = [
        {key: interval_of(part, key)["value"] for key in ("sensitivity", "specificity")} for part in whole
    ]
    # Where the groups cost nothing, everyone alone has what all have.
    everyone_alone = [
        run.get("everyone_alone") or own for run, own in zip(runs, group_certified, strict=True)
    ]
    alone, jointly = ([one["specificity"] for one in of] for of in (everyone_alone, group_certified))
    missed = ", ".join(
        f"{(1 - one['sensitivity']) * run['positives']:.0f}"
        for run, one in zip(runs, everyone_alone, strict=True)
    )
    return [
        "",
        "The cost of certifying every group: had the certificate covered only everyone together, the "
        f"specificity over all cases would be {mean(alone):.3f} ({min(alone):.3f} to {max(alone):.3f}) "
        f"instead of {mean(jointly):.3f}, with {missed} positive lesions below the threshold.",
    ]


def _range_text(numbers: Sequence[int]) -> str:
    lowest, highest = min(numbers), max(numbers)
    return f"{lowest}" if lowest == highest else f"{lowest} to {highest}"


def _rows(parts: Sequence[dict[str, Any]]) -> list[str]:
    rows = []
    cases, positives = (_range_text([part[key] for part in parts]) for key in ("cases", "positives"))
    for key, title in _METRICS:
        estimates = [interval_of(part, key) for part in parts]
        if any(estimate is None for estimate in estimates):
            rows.append(f"| {parts[0]['title']} | | {title} | not estimable | | |")
            continue
        values = [estimate["value"] for estimate in estimates]
        middle = estimates[values.index(median_low(values))]
        rows.append(
            f"| {parts[0]['title']} | {cases} ({positives}) | {title} "
            f"| {mean(values):.3f} | {min(values):.3f} to {max(values):.3f} "
            f"| {middle['low']:.3f} to {middle['high']:.3f} |"
        )
    return rows


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as results ({error}).") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: not the results.json of an evaluation.")
    if lacking := [key for key in _REQUIRED if key not in content]:
        raise DataError(f"{path}: not the results.json of an evaluation, it lacks {', '.join(lacking)}.")
    return content
