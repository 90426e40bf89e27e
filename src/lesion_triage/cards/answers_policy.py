"""Answers of a run to checklist items on its policy and its bundle. Imports calibrate."""

from __future__ import annotations

from itertools import takewhile

from lesion_triage.calibrate.wording import format_percent
from lesion_triage.cards.checklist import Answer
from lesion_triage.cards.dossier import (
    AUDIT,
    CASE_SCORES,
    CERTIFICATE,
    CONFIG,
    HEADER,
    OPENINGS,
    POLICY,
    Dossier,
    Pointer,
)


def threshold(dossier: Dossier) -> Answer:
    """The output and how its threshold was found."""
    known = {
        name: dossier.at(CERTIFICATE, name)
        for name in ("target_sensitivity", "confidence", "positives", "misses_allowed", "unit")
    }
    return Answer(
        "A calibrated score in [0, 1], a disposition, a priority band from 1 to 4 and reasons. {refers} "
        "This is certified on {positives} positive {unit}s that had no part in training: at most "
        "{misses_allowed} of them may be left below, so that sensitivity is at least {target}% with "
        "{level}% confidence.{sealed}".format(
            refers=_what_refers(dossier),
            sealed=_sealed_before_the_test(dossier) if dossier.get(OPENINGS) else "",
            target=format_percent(known["target_sensitivity"]),
            level=format_percent(known["confidence"]),
            **known,
        ),
        (Pointer(POLICY, "threshold"), Pointer(CERTIFICATE, "threshold"), Pointer(CERTIFICATE, "confidence")),
    )


def _sealed_before_the_test(dossier: Dossier) -> str:
    """Whether this bundle was sealed before the run first opened its test split; begins with a space."""
    sealed = dossier.bundle_sha256()
    earlier = sum(1 for _ in takewhile(lambda one: one.get("bundle_sha256") != sealed, dossier.at(OPENINGS)))
    if earlier:
        return f" The run had opened its test split before, on another bundle: {earlier} time(s)."
    return " The bundle was sealed before the run opened its test split."


def _what_refers(dossier: Dossier) -> str:
    """The threshold, or that of each group, and which case goes up whatever its score."""
    groupings = dossier.get(POLICY, "groupings", ())
    text = f"A score of {dossier.at(CERTIFICATE, 'threshold'):.6f} or more refers."
    if dossier.at(CERTIFICATE, "rule") == "group_thresholds":
        own = ", ".join(
            f"{one['by']} {group} {limit:.6f}"
            for one in groupings
            for group, limit in one["thresholds"].items()
        )
        text = f"A score at or above the threshold of its group refers: {own}."
    for one in groupings:
        text += f" A case whose {one['by']} is in no certified group goes up."
    return text


def fairness(dossier: Dossier) -> Answer:
    """Groups that the certificate covers, and groups that were not certifiable."""
    rows = dossier.at(CERTIFICATE, "groups")
    asked = [row for row in rows if row["by"] != "all"]
    groups = "; ".join(
        f"{row['by']} {row['group']} {'certified' if row['status'] == 'certified' else 'NOT CERTIFIABLE'} "
        f"({row['positives']} positives)"
        for row in asked
    )
    text = (
        f"The certificate asks for the target in groups too: {groups}."
        if asked
        else ("The certificate promises for everyone together and for no group by itself.")
    )
    return Answer(
        text + " The audit looks for what else tells the label.",
        (Pointer(CERTIFICATE, "groups"), Pointer(AUDIT, "verdict")),
        "why these groups, and fairness at the place of use.",
    )


def specification(dossier: Dossier) -> Answer:
    """How others can compute the same predictions."""
    return Answer(
        "The sealed bundle holds the whole model: ONNX graph, pixel preparation, policy, certificate and "
        "self-test. `lesion-triage score` and the server compute predictions from it, by the same code as "
        "in the evaluation.",
        (Pointer(HEADER, "files"), Pointer(HEADER, "seal")),
    )


def public_evaluation(dossier: Dossier) -> Answer:
    """How others can evaluate it."""
    known = specification(dossier)
    return Answer(known.text, known.evidence, "whether and where this bundle is published.")


def code(dossier: Dossier) -> Answer:
    """Availability of the code."""
    return Answer(
        f"{dossier.at(HEADER, 'made_with')}, Apache-2.0; the frozen configuration and the hashes of "
        "manifest and splits repeat the run.",
        (Pointer(HEADER, "made_with"), Pointer(CONFIG), Pointer(CERTIFICATE, "manifest_sha256")),
    )


def availability(dossier: Dossier) -> Answer:
    """Availability of data and code."""
    citations = "; ".join(map(str, dossier.at(HEADER, "data_citation"))) or "no citation is stated"
    return Answer(
        f"Data: {citations}. Code: {dossier.at(HEADER, 'made_with')}, Apache-2.0.",
        (Pointer(HEADER, "data_citation"), Pointer(HEADER, "made_with")),
        "whether and where bundle and splits are published.",
    )


def no_updating(dossier: Dossier) -> Answer:
    """Model updating: none after the test."""
    openings = len(dossier.at(OPENINGS))
    return Answer(
        f"None: a seal breaks if anything is changed.{_sealed_before_the_test(dossier)} Openings of the test "
        f"split that are recorded: {openings}.",
        (Pointer(OPENINGS), Pointer(HEADER, "seal")),
    )


def poor_input(dossier: Dossier) -> Answer:
    """How a photograph that cannot be used is handled."""
    gate = (
        ", a novelty gate one that is unlike those of training"
        if dossier.get(POLICY, "novelty_limit")
        else ""
    )
    return Answer(
        f"A quality gate refuses a photograph that is too dark, bright, blurred, small or flat{gate}; the "
        "reasons and how to take a better one are in the answer. A case without a usable photograph goes "
        "up, never down. A history that is missing is not read as no.",
        (Pointer(POLICY, "quality"), Pointer(POLICY, "ungradable_band")),
    )


def unfamiliar(dossier: Dossier) -> Answer:
    """How unfamiliar pictures are handled."""
    share = dossier.at(CONFIG, "calibrate.novelty_share")
    limit = dossier.at(POLICY, "novelty_limit")
    return Answer(
        f"A photograph whose novelty reaches {limit:.4g} is not scored and its case goes up; the limit "
        f"sends up at most {format_percent(share)}% of the validation photographs. It compares textures and "
        "colours and does not look for a lesion.",
        (Pointer(POLICY, "novelty_limit"), Pointer(CONFIG, "calibrate.novelty_share")),
    )


def stored(dossier: Dossier) -> Answer:
    """Outputs that are kept."""
    return Answer(
        "The score and decision of every test case are kept in the run; a server writes an audit log, in "
        "which every line carries the hash of the one before.",
        (Pointer(CASE_SCORES),),
    )
