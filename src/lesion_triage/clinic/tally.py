"""``lesion-triage tally``: what a clinic may pass on of its cases, for `pool`: counts, and no case.

Imports bundle, calibrate and this package; needs no training library.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from lesion_triage.bundle.document import canonical_json, sha256_of, timestamp
from lesion_triage.bundle.schema import Policy
from lesion_triage.calibrate import ledger, pooling
from lesion_triage.calibrate.pooling import Tally
from lesion_triage.clinic import cases as local_cases
from lesion_triage.clinic.arguments import require_place, save
from lesion_triage.clinic.cases import LocalCases
from lesion_triage.clinic.recertify import add_case_arguments, warn_if_none_is_below
from lesion_triage.console import echo
from lesion_triage.errors import CalibrationError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    add_case_arguments(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="counts as JSON; names no case"
    )


def main(arguments: argparse.Namespace) -> int:
    """Count the misses of one site."""
    if arguments.out.exists():
        raise CalibrationError(f"{arguments.out}: exists; counts are never overwritten, choose another name.")
    require_place("--out", arguments.out)
    ledger_path = arguments.cases.resolve().with_name(ledger.LEDGER_FILE_NAME)
    looked = any(look.counted and look.site == arguments.site for look in ledger.read(ledger_path))
    if arguments.cases.is_file() and not looked:  # repeating the same counts adds no line
        ledger.require_writable(ledger_path)
    local = local_cases.read(arguments.bundle, arguments.cases, arguments.images)
    made = tally_and_record(local, arguments.site, ledger_path)
    save("--out", arguments.out, made.to_json().encode())
    echo(
        f"  {made.positives} positive {made.unit}s of {made.site}, {made.positives_abstained} not scored; "
        f"their counts are in {arguments.out}, for `lesion-triage pool`"
    )
    warn_if_none_is_below(local)
    if made.looked_before:
        echo(
            f"  {len(made.looked_before)} threshold(s) have been chosen here before, with this model or on "
            "these cases: the counts tell it, and lower confidence_if_selected of the pooled certificate"
        )
    return 0


def tally(local: LocalCases, site: str, looks: Sequence[ledger.Entry] = ()) -> Tally:
    """What a site may pass on: how many positive units lie below each threshold of the common grid.

    Args:
        local: the site's cases, scored by the bundle.
        site: name of the clinic.
        looks: the site's ledger. Its own choices of a threshold are told; what came of counts is not known.

    Raises:
        CalibrationError: some pictures have chosen a threshold of this bundle before, its policy sends groups
            up by their history, or pictures were drawn by a program and the model's were not.
    """
    if local.synthetic and not local.bundle.header.synthetic:
        raise CalibrationError(
            "some of these photographs were drawn by a program (their source begins with 'synthetic'). "
            "Counts do not tell, so a certificate for people would be made from them; leave them out."
        )
    if local.seen_before:
        raise CalibrationError(
            "some of these photographs were already used to choose a threshold of this bundle; count with "
            "the bundle as it was before that, or leave them out."
        )
    if local.bundle.policy.groupings:
        raise CalibrationError(
            "this bundle has a threshold for each group, or some of its groups always go up, and counts of "
            "misses cannot tell groups apart; recertify at each site instead."
        )
    scores = local.positive_scores()
    model = local.bundle.certificate.model_sha256
    chosen = [look for look in looks if not look.counted]
    return Tally(
        site=site,
        counted_at=timestamp(),
        unit=local.unit,
        unnamed_lesions=local.unnamed_lesions,
        unnamed_photographs=local.unnamed_photographs,
        model_sha256=model,
        scoring_sha256=scoring_sha256(local.bundle.policy),
        cases_sha256=local.sha256,
        positives=scores.size,
        positives_abstained=int(np.count_nonzero(np.isposinf(scores))),
        misses=pooling.count_misses(scores),
        looked_before=tuple(
            look.confidence
            for look in ledger.looks_at_pictures(
                chosen, local.sha256, local.files_sha256, local.table.fingerprints(), model
            )
        ),
    )


def tally_and_record(local: LocalCases, site: str, ledger_path: Path) -> Tally:
    """Count, and record it in the site's ledger unless it is there: the cases will choose a threshold.

    Args:
        local: the site's cases, scored by the bundle.
        site: name of the clinic.
        ledger_path: the site's ledger.

    Raises:
        CalibrationError: as ``tally``, or the ledger cannot be read or written.
    """
    read = ledger.read(ledger_path)
    # Repeating the same counts adds no line, so it works even if the ledger cannot be written.
    again = _is_recorded(_entry(tally(local, site, read), local), read)
    with nullcontext(read) if again else ledger.locked(ledger_path) as looks:
        made = tally(local, site, looks)
        entry = _entry(made, local)
        if not _is_recorded(entry, looks):
            ledger.append(ledger_path, entry)
    return made


def _entry(made: Tally, local: LocalCases) -> ledger.Entry:
    """The line that a tally leaves in the ledger."""
    counts = made.model_dump(mode="json", exclude={"counted_at", "looked_before"})
    before = local.bundle.certificate
    return ledger.Entry(
        looked_at=made.counted_at,
        purpose="counted for a pooled threshold; the one named here was in use",
        site=made.site,
        cases_sha256=made.cases_sha256,
        positives=made.positives,
        target_sensitivity=before.target_sensitivity,
        confidence=before.confidence,
        threshold=local.bundle.policy.threshold,
        model_sha256=made.model_sha256,
        settings_sha256=sha256_of(canonical_json(counts).encode()),
        files_sha256=local.files_sha256,
        pictures=tuple(sorted(local.table.fingerprints())),
        counted=True,
    )


def _is_recorded(entry: ledger.Entry, looks: Sequence[ledger.Entry]) -> bool:
    wanted = (entry.cases_sha256, entry.model_sha256, entry.settings_sha256)
    return ledger.find_repeated_look(looks, *wanted) is not None


def scoring_sha256(policy: Policy) -> str:
    """Hash of everything between a logit and a score; recertifying at a site does not change it."""
    parts = policy.model_dump(mode="json", include={"calibrator", "aggregation", "quality", "novelty_limit"})
    return sha256_of(canonical_json(parts).encode())
