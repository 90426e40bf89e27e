"""The differences between two bundles, as data and without judgement. Imports the evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lesion_triage.bundle.certificate import GroupRow
from lesion_triage.cards.evidence import BundleEvidence
from lesion_triage.errors import ReportError
from lesion_triage.evaluate.intervals import interval_of

NONE = "not known"
METRICS = ("auroc", "sensitivity", "specificity", "referral_rate")
_TERMS = (
    "site",
    "purpose",
    "method",
    "rule",
    "target_sensitivity",
    "confidence",
    "confidence_if_selected",
    "unit",
    "aggregation",
    "positives",
    "misses_allowed",
    "misses_seen",
    "red_flags_counted",
    "threshold",
    "sensitivity_lower_bound",
)
_HASHES = ("manifest_sha256", "splits_sha256", "cases_sha256", "predictions_sha256")


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that differs."""

    what: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure in one slice, before and after."""

    slice: str
    title: str
    measure: str
    old: dict[str, float] | None
    """``value``, ``low`` and ``high``; None: not measured."""
    new: dict[str, float] | None

    @property
    def change(self) -> float | None:
        """New minus old; None if one of them was not measured."""
        return None if self.old is None or self.new is None else self.new["value"] - self.old["value"]


def sections(old: BundleEvidence, new: BundleEvidence) -> dict[str, tuple[Difference, ...]]:
    """All differences, by section; a section without a difference is empty."""
    before, after = old.bundle, new.bundle
    return {
        "configuration": _between(old.config, new.config),
        "data": _between(_data(old), _data(new)),
        "model": _between(
            {**before.header.model.model_dump(), "graph_sha256": before.certificate.model_sha256},
            {**after.header.model.model_dump(), "graph_sha256": after.certificate.model_sha256},
        ),
        "input": _between(
            _tree(
                {"pixels": before.header.pixels.model_dump(), "quality": before.policy.quality.model_dump()}
            ),
            _tree({"pixels": after.header.pixels.model_dump(), "quality": after.policy.quality.model_dump()}),
        ),
        "policy": _between(_policy(old), _policy(new)),
        "certificate": _between(_certificate(old), _certificate(new)),
        "intended use": _between({"text of the card": old.purpose()}, {"text of the card": new.purpose()}),
    }


def certified_groups(evidence: BundleEvidence) -> dict[str, GroupRow]:
    """Certified groups, everyone together included."""
    rows = evidence.bundle.certificate.groups
    return {f"{row.by} {row.group}": row for row in rows if row.status == "certified"}


def measures(old: BundleEvidence, new: BundleEvidence) -> tuple[Measure, ...]:
    """Results of both by slice, in the order of the new bundle; slices of the old one alone come last.

    Raises:
        ReportError: one of the bundles has two slices of the same name.
    """
    before, after = _slices(old), _slices(new)
    return tuple(
        Measure(
            name,
            str((after.get(name) or before[name])["title"]),
            measure,
            _estimate(before.get(name), measure),
            _estimate(after.get(name), measure),
        )
        for name in [*after, *(name for name in before if name not in after)]
        for measure in METRICS
    )


def same_cases(old: BundleEvidence, new: BundleEvidence) -> bool | None:
    """Whether both were tested on the same cases; None: one has no results."""
    before, after = old.results(), new.results()
    if before is None or after is None:
        return None
    return all(
        before.get(key) == after.get(key) for key in ("split", "unit", "manifest_sha256", "splits_sha256")
    )


def _slices(evidence: BundleEvidence) -> dict[str, dict[str, Any]]:
    results = evidence.results() or {}
    found: dict[str, dict[str, Any]] = {}
    for part in results.get("slices", ()):
        if (name := str(part["name"])) in found:
            raise ReportError(
                f"the results of bundle {evidence.bundle.sha256[:16]} have two slices named '{name}', "
                f"'{found[name]['title']}' and '{part['title']}', so it is ambiguous which one to compare; "
                "evaluate that bundle again."
            )
        found[name] = part
    return found


def _estimate(part: Mapping[str, Any] | None, measure: str) -> dict[str, float] | None:
    if part is None:
        return None
    found = interval_of(part, measure)
    return {key: float(found[key]) for key in ("value", "low", "high")} if found else None


def _data(evidence: BundleEvidence) -> dict[str, Any]:
    certificate = evidence.bundle.certificate
    known = dict(_tree(evidence.data)) if evidence.data else {}
    known.pop("sha256", None)  # the certificate names the manifest
    citations = "; ".join(evidence.bundle.header.data_citation)
    return {**{name: getattr(certificate, name) for name in _HASHES}, "citation": citations, **known}


def _policy(evidence: BundleEvidence) -> dict[str, Any]:
    policy = evidence.bundle.policy
    known = _tree(policy.model_dump(mode="json", exclude={"quality", "red_flags"}))
    return {**known, "red_flags": ", ".join(flag.code for flag in policy.red_flags.flags) or "none"}


def _certificate(evidence: BundleEvidence) -> dict[str, Any]:
    certificate = evidence.bundle.certificate
    rows = {f"group {row.by} {row.group}": row.status for row in certificate.groups}
    return {**{name: getattr(certificate, name) for name in _TERMS}, **rows}


def _tree(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= _tree(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _between(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> tuple[Difference, ...]:
    if old is None or new is None:
        if old is new:
            return ()
        return (Difference("all", NONE if old is None else "known", NONE if new is None else "known"),)
    return tuple(_differing(old, new))


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
    for key in [*new, *(key for key in old if key not in new)]:
        before, after = old.get(key, NONE), new.get(key, NONE)
        if before != after:
            yield Difference(key, before, after)
