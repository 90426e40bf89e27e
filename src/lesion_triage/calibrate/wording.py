"""What a certificate assumes and promises, in words. Imports the certificate as a document."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from lesion_triage.bundle.certificate import ALL_UNITS, BY_SITE, Certificate, GroupRow, Rule, Unit

_ALWAYS = (
    "Future cases are exchangeable with the calibration cases: the same population, cameras, way of referral "
    "and reference standard. Another site, camera or population voids the certificate until it is issued "
    "again there.",
    "The calibration cases chose neither the model nor its calibrator.",
    "A case is scored as it was here: the same graph, pixel preparation, gates and aggregation.",
    "A case that cannot be scored counts as referred: it goes up, and is not sent away if no better "
    "photograph comes.",
    "The confidence is over the draw of the calibration cases, not over the fate of one patient.",
)
_FLAGS = {
    False: (
        "Red flags are not counted: the promise holds whether a history is sent or not, and a red flag can "
        "only send more cases up."
    ),
    True: (
        "A case that only a red flag sends up counts as referred. So the certificate holds only where the "
        "same questions are asked, and answered as often as here."
    ),
}
_UNITS: dict[Unit, str] = {
    "lesion": (
        "The unit is the lesion, because patients are not identified in these data; several lesions of one "
        "patient are taken as independent."
    ),
    "patient": "The unit is the patient, who counts as missed if any of the patient's positive lesions is.",
}
_RULES: dict[Rule, str] = {
    "common_threshold": (
        "One threshold serves everyone: the lowest that any certified group needs. So all their promises "
        "hold together with the stated confidence, for future cases in which these groups are as frequent as "
        "among the calibration cases."
    ),
    "group_thresholds": (
        "Each certified group has a threshold of its own and an equal share of the error, so all their "
        "promises hold together with the stated confidence. A case of any other group goes up."
    ),
}


def format_percent(share: float) -> str:
    """A target or a confidence in percent, such as ``97.5``, unrounded: rounding could overstate it."""
    # Twelve decimals remove only binary rounding noise, as in 1 - 3 * 0.05.
    digits = f"{Decimal(repr(round(share, 12))).scaleb(2):f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def what_refers(certificate: Certificate) -> str:
    """From which score on a case is referred, as a bundle's card says it."""
    if certificate.rule == "group_thresholds":
        return (
            "A score at or above the threshold of its certified group refers; the lowest of these thresholds "
            f"is {certificate.threshold:.6f}."
        )
    return f"Score >= {certificate.threshold:.6f} refers."


def assumptions(
    unit: Unit,
    rule: Rule,
    rows: Sequence[GroupRow],
    earlier_looks: int,
    *,
    red_flags_counted: bool,
    unnamed_lesions: int = 0,
    unnamed_photographs: int = 0,
) -> tuple[str, ...]:
    """The sentences under which a certificate holds.

    Args:
        unit: what is counted.
        rule: how the groups were certified.
        rows: everyone together first, then the groups or the sites.
        earlier_looks: how often these cases have chosen a threshold before.
        red_flags_counted: whether a positive case that only a red flag sends up counted as referred.
        unnamed_lesions: lesions that name no patient, if patients are counted.
        unnamed_photographs: photographs that name no lesion; used only if lesions are counted. If patients
            are, those that name no patient either are among ``unnamed_lesions``.
    """
    parts = [row for row in rows if row.by not in (ALL_UNITS, BY_SITE)]
    without = [f"{row.by} {row.group} ({row.positives})" for row in rows[1:] if row.status != "certified"]
    looks = _earlier_looks_sentence(earlier_looks, pooled=any(row.by == BY_SITE for row in rows))
    said = [*_ALWAYS, _FLAGS[red_flags_counted], _UNITS[unit], looks]
    if unnamed_photographs and unit == "lesion":
        said.insert(
            said.index(_UNITS[unit]) + 1, _unnamed_parts_sentence(unnamed_photographs, "photograph", "lesion")
        )
    if unnamed_lesions:
        said.insert(
            said.index(_UNITS[unit]) + 1, _unnamed_parts_sentence(unnamed_lesions, "lesion", "patient")
        )
    if len(rows) > 1:
        said.append(_RULES[rule])
    if not parts:
        said.append(
            "The statement is about all positive cases together; it promises nothing for a subgroup, or for "
            "a single condition, taken alone."
        )
    if without:
        said.append(
            "Not certifiable, for want of positive cases: "
            + ", ".join(without)
            + ". Nothing is promised for these groups taken alone."
        )
    return tuple(said)


def _unnamed_parts_sentence(number: int, part: str, whole: str) -> str:
    """Sentence on parts that name no whole: lesions without a patient, photographs without a lesion."""
    count = (
        f"1 {part} names no {whole} and counts"
        if number == 1
        else f"{number} {part}s name no {whole} and count"
    )
    return f"{count} as a {whole} each: if several are of one {whole}, they are taken as independent."


def _earlier_looks_sentence(earlier: int, *, pooled: bool) -> str:
    """Of counts the certificate knows what its bundle was certified on, and what the counts tell of it."""
    by_itself = (
        " What a site chose by itself is counted if its counts tell it, and is in the ledger of that site."
    )
    sites = by_itself if pooled else ""
    if not earlier:
        once = "No earlier threshold is known here" if pooled else "These cases chose a threshold once, here"
        return f"{once}.{sites}"
    times = "once" if earlier == 1 else f"{earlier} times"
    return (
        f"These cases{', or some of them,' if pooled else ''} had chosen a threshold {times} before (see the "
        "ledger). If this certificate was preferred for what it showed, its confidence is the one stated for "
        f"a selected certificate.{sites}"
    )
