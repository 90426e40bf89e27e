"""The certificate as a document. What it promises and why it holds: ``calibrate.certificate``.

Imports pydantic and the document.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lesion_triage.bundle.document import Document, Fraction, Sha256

Unit = Literal["lesion", "patient"]
Rule = Literal["common_threshold", "group_thresholds"]
ALL = "all"
"""``GroupRow.by`` and ``GroupRow.group`` of the row that speaks of every positive unit."""
SITE = "site"
"""``GroupRow.by`` of a row that speaks of one of several pooled sites."""


Dimension = Literal[
    "reference_class", "sex", "age_band", "anatom_site_general", "fitzpatrick_skin_type", "source"
]
KNOWN_WHEN_SERVING = ("sex", "age_band", "anatom_site_general", "fitzpatrick_skin_type")


class GroupBy(Document):
    """One way to tell groups apart, each of which the certificate shall cover."""

    by: Dimension
    """``reference_class``: the class that the data set's reference standard gives, which no new case has."""
    age_edges_years: tuple[Annotated[int, Field(ge=1, le=119)], ...] = (30, 50, 70)
    """For ``by: age_band``: where one band ends and the next begins."""
    small: Literal["report", "merge", "route_up"] = "report"
    """A group with too few positives is named NOT CERTIFIABLE; or joins its parent; or always goes up."""
    parents: dict[str, str] = Field(default_factory=dict)
    """For ``small: merge``: group -> wider group, declared before the data are seen."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if list(self.age_edges_years) != sorted(set(self.age_edges_years)):
            raise ValueError(f"age_edges_years must ascend, found {self.age_edges_years}")
        if self.small == "route_up" and self.by not in KNOWN_WHEN_SERVING:
            raise ValueError(f"{self.by} is not known of a new case, so its small groups cannot be routed up")
        if bool(self.parents) != (self.small == "merge"):
            raise ValueError("small: merge and parents belong together")
        for group in self.parents:
            passed = {group}
            while (group := self.parents.get(group, "")) and group not in passed:
                passed.add(group)
            if group:
                raise ValueError(f"parents lead from '{group}' back to itself")
        return self


class GroupRow(Document):
    """What the calibration data say of one group of positive units.

    A group that is not certified carries no percentage: with so few units none would mean anything.
    """

    by: str
    """What the groups are told apart by, such as ``sex``; ``all`` for everyone together."""
    group: str
    members: tuple[str, ...]
    """The groups as found in the data; several if small ones were merged along the declared hierarchy."""
    status: Literal["certified", "not_certifiable"]
    positives: int = Field(ge=0)
    positives_abstained: int = Field(ge=0)
    """Of these, sent up without regard to the score: not scored or, where they count, with a red flag."""
    misses_seen: int = Field(ge=0)
    """Positive units that the policy leaves below the threshold."""
    misses_allowed: int | None = Field(ge=0)
    threshold: Fraction | None
    """The highest threshold at which this group alone would be certified; None too if it never binds."""
    sensitivity_lower_bound: Fraction | None
    """Clopper-Pearson, one-sided at ``confidence``, for the misses allowed."""
    confidence: Fraction
    """At which this row was certified, or would be; ``group_thresholds`` shares the error among groups."""
    minimum_positives: int = Field(ge=1)
    """Units it takes to certify the target with no miss."""


class Routes(Document):
    """What sent the positive calibration cases up: cases, not units, each counted where it first applies."""

    not_scored: int = Field(default=0, ge=0)
    """No photograph could be scored."""
    score: int = Field(default=0, ge=0)
    uncertified_subgroup: int = Field(default=0, ge=0)
    red_flag: int = Field(default=0, ge=0)
    """A red flag alone."""
    below_threshold: int = Field(default=0, ge=0)
    """Nothing did."""


class Look(Document):
    """One earlier time at which a threshold was chosen on calibration data."""

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
    """Of everything else that decided the result."""


class Certificate(Document):
    """A one-sided exact statement about the sensitivity of the whole policy.

    With probability at least ``confidence`` over the draw of the calibration cases, the policy refers
    or abstains on at least ``target_sensitivity`` of future positive units that are exchangeable with them:
    of all of them, and of each group whose row says ``certified``, together.
    """

    issued_at: str
    """UTC, ISO 8601."""
    site: str
    """Where the cases come from; empty for the data that the model was made with."""
    purpose: str
    method: Literal["order_statistic", "pooled_counts"]
    """``pooled_counts``: sites gave counts of misses on a grid of thresholds, and no case."""
    rule: Rule
    target_sensitivity: Fraction
    confidence: Fraction
    unit: Unit
    """A patient is missed if any of the patient's positive lesions is."""
    aggregation: Literal["max", "mean"]
    positives: int = Field(ge=1)
    """Positive units in the calibration data."""
    positives_abstained: int = Field(ge=0)
    """Of these, sent up without regard to the score: not scored or, where they count, with a red flag."""
    misses_allowed: int = Field(ge=0)
    misses_seen: int = Field(ge=0)
    """Positive calibration units that the policy leaves below the threshold; at most ``misses_allowed``."""
    routes: Routes | None
    """None where sites gave counts and no case."""
    red_flags_counted: bool
    """Whether a positive case that a red flag alone sends up counted as referred. If so, the certificate
    holds only where the same questions are asked."""
    threshold: Fraction
    """The lowest of the policy."""
    sensitivity_lower_bound: Fraction
    """Clopper-Pearson, one-sided at ``confidence``, for the misses allowed: it holds for tied scores too."""
    asked: tuple[GroupBy, ...]
    """The groups that were to be covered, declared before the cases were seen."""
    groups: tuple[GroupRow, ...]
    """Everyone together first, then the groups that were asked for."""
    cases_sha256: Sha256
    """Of the calibration pictures, whatever was said of them."""
    predictions_sha256: Sha256
    """Of the table with their logits and outcomes, or of the counts that were pooled."""
    manifest_sha256: Sha256 | None
    splits_sha256: Sha256 | None
    """None where the calibration data are a site's own, or counts of several sites."""
    model_sha256: Sha256
    policy_sha256: Sha256
    assumptions: tuple[str, ...]
    ledger: tuple[Look, ...]
    """Earlier looks, oldest first: at any data with this model, or at these cases with any model."""
    confidence_if_selected: Fraction
    """What is left if this certificate was preferred to earlier ones on these cases for what they showed."""

    def certificate_id(self) -> str:
        """Short name of this certificate: the first 16 digits of its hash."""
        return self.sha256()[:16]
