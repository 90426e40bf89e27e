"""From an experiment's documents to named, comparable cells. Imports evaluate and the errors.

A cell is named ``document.part.number``, such as ``seed-0.all.auroc`` or ``mean.all.auroc``. A cell without a
value (a metric that cannot be estimated) is None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from lesion_triage.errors import DataError
from lesion_triage.evaluate.intervals import interval_of

Value = float | str | None
Cells = dict[str, Value]

_COUNT_FIELDS = (
    "cases",
    "positives",
    "missed",
    "abstained",
    "positives_abstained",
    "photographs",
    "threshold",
)
_WAIT_FIELDS = ("relative", "standard_error_relative", "minutes")


def cells_of(documents: Mapping[str, Any], seeds: Sequence[str] = ()) -> Cells:
    """Every cell of some documents, and the means over those that differ only in the seed.

    Args:
        documents: by name; their keys show what kind each is.
        seeds: names of the documents to average; the averages' cells begin with ``mean.``.

    Raises:
        DataError: a document lacks what its kind requires.
    """
    found: Cells = {}
    for name, document in documents.items():
        try:
            found |= {f"{name}.{key}": value for key, value in _cells(document)}
        except KeyError as error:
            raise DataError(f"document '{name}' lacks {error}, which others of its kind have.") from None
    if len(seeds) > 1 and all(seed in documents for seed in seeds):
        found |= _means(found, seeds)
    return found


def _means(found: Cells, seeds: Sequence[str]) -> Cells:
    means: Cells = {}
    for name in list(found):
        document, _, cell = name.partition(".")
        if document != seeds[0]:
            continue
        values = [found.get(f"{seed}.{cell}") for seed in seeds]
        numbers = [value for value in values if isinstance(value, int | float)]
        if len(numbers) == len(values):
            means |= {
                f"mean.{cell}": mean(numbers),
                f"lowest.{cell}": min(numbers),
                f"highest.{cell}": max(numbers),
            }
    return means


def _cells(document: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    if "slices" in document:
        yield from _result_cells(document)
    elif "rows" in document and "foreign" in document:
        yield from _robustness_cells(document)
    elif "in_the_pool" in document:
        yield from _coverage_cells(document)
    elif "waits" in document:
        yield from _queue_cells(document)
    else:
        yield from flatten(document)


def _result_cells(document: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    """Cells of an evaluation, or of a transfer, which extends one."""
    for name in _COUNT_FIELDS:
        yield name, document[name]
    for part in document["slices"]:
        yield from _slice_cells(part, part["name"])
    yield from flatten(document.get("everyone_alone", {}), "everyone_alone.")
    for name in ("largest_score_difference", "decision_flips"):
        if name in document["parity"]:
            yield f"parity.{name}", document["parity"][name]
    transfer = document.get("transfer")
    if transfer is None:
        return
    for part in transfer["slices"]:
        yield from _slice_cells(part["score_alone"], f"score_alone.{part['name']}")
        for gate in ("refused_by_novelty", "refused_by_quality"):
            yield f"{part['name']}.{gate}", part[gate]["value"]
    for claim in ("policy_claim", "score_claim"):
        yield from flatten(transfer[claim], f"{claim}.")


def _slice_cells(part: Mapping[str, Any], name: str) -> Iterator[tuple[str, Value]]:
    yield f"{name}.cases", part["cases"]
    yield f"{name}.positives", part["positives"]
    for metric in part["metrics"]:
        yield from _estimate_cells(f"{name}.{metric}", interval_of(part, metric))


def _estimate_cells(name: str, estimate: Mapping[str, Any] | None) -> Iterator[tuple[str, Value]]:
    """A number with its interval; that it cannot be estimated is a result, too."""
    yield name, None if estimate is None else estimate["value"]
    if estimate is not None:
        yield f"{name}.low", estimate["low"]
        yield f"{name}.high", estimate["high"]


def _robustness_cells(document: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    for name in ("cases", "positives", "photographs"):
        yield name, document[name]
    for row in document["rows"]:
        prefix = f"{row['corruption']}-{row['severity']}"
        for what in ("missed", "missed_without_gates", "refused", "referred_others"):
            yield f"{prefix}.{what}", row[what]["successes"]
            yield from _estimate_cells(f"{prefix}.{what}.share", row[what])
    for one in document["foreign"]:
        for what in ("sent_up", "unfamiliar", "refused_by_quality", "auroc"):
            yield from _estimate_cells(f"{one['name']}.{what}", one[what])


def _coverage_cells(document: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    for name in ("draws", "positives", "negatives"):
        yield name, document[name]
    yield "broken", len(document["broken"])
    for part in ("in_the_pool", "in_clusters", "jointly", "whole_policy", "in_use"):
        for row in document[part]:
            prefix = f"{part}.{row['what']}, {row['positives']} positives, {row['misses_allowed']} misses"
            prefix = f"{prefix}, target {row['target']}, confidence {row['confidence']}"
            yield f"{prefix}.share", row["share"]
            yield f"{prefix}.passed", str(row["passed"])
            if row["exact"] is not None:
                yield f"{prefix}.exact", row["exact"]
    for row in document["over_splits"]:
        yield f"over_splits.target {row['target']}.p_value", row["p_value"]
        yield f"over_splits.target {row['target']}.total_variation", row["total_variation"]
    for row in document["steps"]:
        yield f"steps.{row['positives']} positives.misses_allowed", row["misses_allowed"]


def _queue_cells(document: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    for name in ("threshold", "prevalence", "load", "readers", "cases"):
        yield name, document[name]
    for group, count in document["cases_in_table"].items():
        yield f"cases_in_table.{group}", count
    for row in document["waits"]:
        hours = row["deadline_hours"]
        order = row["order"] if hours is None else f"{row['order']}, {hours:g} h"
        for what in _WAIT_FIELDS:
            yield f"{order}.{row['group']}.{row['statistic']}.{what}", row[what]


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Value]]:
    """All leaves of any document: keys joined by dots, list items by their name, seed or index."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from flatten(value, f"{prefix}{key}.")
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from flatten(value, f"{prefix}{_label(value, index)}.")
    else:
        yield prefix.removesuffix("."), str(tree) if isinstance(tree, bool) else tree


def _label(item: Any, index: int) -> str:
    if isinstance(item, Mapping):
        for key in ("name", "seed", "detector"):
            if isinstance(item.get(key), str | int):
                return str(item[key])
    return str(index)
