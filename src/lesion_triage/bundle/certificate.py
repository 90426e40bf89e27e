"""The certificate as a document. For what it promises and why that holds see ``calibrate.certificate``.

Imports pydantic and the document.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from lesion_triage.bundle.document import Document, Fraction, Sha256

Unit = Literal["lesion", "patient"]
Rule = Literal["common_threshold", "group_thresholds"]
ALL_UNITS = "all"
"""``GroupRow.by`` and ``GroupRow.group`` of the row for all positive units together."""
BY_SITE = "site"
"""``GroupRow.by`` of a row for one of several pooled sites."""


ServedDimension = Literal["sex", "age_band", "anatom_site_general", "fitzpatrick_skin_type"]
KNOWN_WHEN_SERVING = get_args(ServedDimension)
Dimension = Literal["reference_class", ServedDimension, "source"]


def _require_ascending(edges_years: tuple[int, ...]) -> tuple[int, ...]:
    if list(edges_years) != sorted(set(edges_years)):
        raise ValueError(f"age_edges_years must ascend, found {edges_years}")
    return edges_years


AgeEdges = Annotated[tuple[Annotated[int, Field(ge=1, le=119)], ...], AfterValidator(_require_ascending)]
"""Ages, in years, at which one age band ends and the next begins; ascending."""


class GroupBy(Document):
    """One way to divide cases into groups, each of which the certificate is asked to cover."""

    by: Dimension
    """``reference_class``: the class from the dataset's reference standard, which no new case has."""
    age_edges_years: AgeEdges = (30, 50, 70)
    """For ``by: age_band``: the boundaries between bands."""
    small: Literal["report", "merge", "route_up"] = "report"
    """A group with too few positives is reported as NOT CERTIFIABLE, joins its parent, or always goes up."""
    parents: dict[str, str] = Field(default_factory=dict)
    """For ``small: merge``: group -> wider group, declared before the data are seen."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.small == "route_up" and self.by not in KNOWN_WHEN_SERVING:
            raise ValueError(f"{self.by} is not known of a new case, so its small groups cannot be routed up")
        if bool(self.parents) != (self.small == "merge"):
            raise ValueError("small: merge needs parents, and parents need small: merge")
        for group in self.parents:
            passed = {group}
            while (group := self.parents.get(group, "")) and group not in passed:
                passed.add(group)
            if group:
                raise ValueError(f"parents form a cycle through '{group}'")
        return self


class GroupRow(Document):
    """What the calibration data say about one group of positive units.

    A group that is not certified carries no percentage: with so few units it would mean nothing.
    """

    by: str
    """The dimension that divides the groups, such as ``sex``; ``all`` for everyone together."""
    group: str
    members: tuple[str, ...]
    """The groups as found in the data; several if small ones were merged along the declared hierarchy."""
    status: Literal["certified", "not_certifiable"]
    positives: int = Field(ge=0)
    positives_abstained: int = Field(ge=0)
    """Of these, sent up whatever the score: not scored or, where they count, with a red flag."""
    misses_seen: int = Field(ge=0)
    """Positive units that the policy leaves below the threshold."""
    misses_allowed: int | None = Field(ge=0)
    threshold: Fraction | None
    """Highest threshold that certifies this group alone; None if it is not certified or never binds."""
    sensitivity_lower_bound: Fraction | None
    """Clopper-Pearson, one-sided at ``confidence``, for the misses allowed."""
    confidence: Fraction
    """Level of this row, certified or not; ``group_thresholds`` splits the error among the groups."""
    minimum_positives: int = Field(ge=1)
    """Positive units needed to certify the target with no miss."""


class Routes(Document):
    """What sent the positive calibration cases up. Counts cases, not units, each at its first reason."""

    not_scored: int = Field(default=0, ge=0)
    """No photograph could be scored."""
    score: int = Field(default=0, ge=0)
    uncertified_subgroup: int = Field(default=0, ge=0)
    red_flag: int = Field(default=0, ge=0)
    """A red flag alone."""
    below_threshold: int = Field(default=0, ge=0)
    """Nothing sent it up."""


class Look(Document):
    """One earlier choice of a threshold on calibration data."""

    looked_at: str
    """UTC, ISO 8601."""
    purpose: str
    site: str
    cases_sha256: Sha256
    positives: int = Field(ge=1)
    target_sensitivity: Fraction
    confidence: Fraction
    threshold: Fraction
    model_sha256: Sha256
    settings_sha256: Sha256
    """Hash of everything else that decided the result."""


class Certificate(Document):
    """A one-sided exact statement about the sensitivity of the whole policy.

    With probability at least ``confidence`` over the draw of the calibration cases, the policy refers
    or abstains on at least ``target_sensitivity`` of future positive units that are exchangeable with them:
    of all of them, and of each group whose row says ``certified``, together.
    """

    issued_at: str
    """UTC, ISO 8601."""
    site: str
    """Origin of the cases; empty for the data that the model was made with."""
    purpose: str
    method: Literal["order_statistic", "pooled_counts"]
    """``pooled_counts``: sites gave counts of misses on a grid of thresholds, and no cases."""
    rule: Rule
    target_sensitivity: Fraction
    confidence: Fraction
    unit: Unit
    """A patient is missed if any of the patient's positive lesions is missed."""
    aggregation: Literal["max", "mean"]
    positives: int = Field(ge=1)
    """Positive units in the calibration data."""
    positives_abstained: int = Field(ge=0)
    """Of these, sent up whatever the score: not scored or, where they count, with a red flag."""
    misses_allowed: int = Field(ge=0)
    misses_seen: int = Field(ge=0)
    """Positive calibration units that the policy leaves below the threshold; at most ``misses_allowed``."""
    routes: Routes | None
    """None if sites gave counts and no cases."""
    red_flags_counted: bool
    """Whether a positive case that a red flag alone sends up counted as referred. If so, the certificate
    holds only where the same questions are asked."""
    threshold: Fraction
    """Lowest threshold of the policy."""
    sensitivity_lower_bound: Fraction
    """Clopper-Pearson, one-sided at ``confidence``, for the misses allowed; it holds with tied scores too."""
    asked: tuple[GroupBy, ...]
    """The groups to be covered, declared before the cases were seen."""
    groups: tuple[GroupRow, ...]
    """All units together first, then the groups that were asked for."""
    cases_sha256: Sha256
    """Hash of the calibration pictures, independent of their labels and history."""
    predictions_sha256: Sha256
    """Hash of the table of their logits and outcomes, or of the pooled counts."""
    manifest_sha256: Sha256 | None
    splits_sha256: Sha256 | None
    """None if the calibration data are a site's own, or counts from several sites."""
    model_sha256: Sha256
    policy_sha256: Sha256
    assumptions: tuple[str, ...]
    ledger: tuple[Look, ...]
    """Earlier looks, oldest first: at any data with this model, or at these cases with any model."""
    confidence_if_selected: Fraction
    """Confidence left if this certificate was chosen over earlier ones on these cases for its result."""

    def certificate_id(self) -> str:
        """Short name of this certificate: the first 16 digits of its hash."""
        return self.sha256()[:16]
