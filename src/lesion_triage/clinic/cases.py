"""A clinic's own confirmed cases: read, scored by a bundle as in the server, and checked to be new to it.

Imports bundle, data and calibrate; needs no training library.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.certificate import Unit
from lesion_triage.bundle.policy import decide
from lesion_triage.bundle.schema import Disposition, Policy
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import Bundle, open_bundle
from lesion_triage.calibrate.cases import (
    Case,
    case_scores,
    cases_sha256,
    differing_answers_remarks,
    file_fingerprints,
    files_sha256,
    gather_cases,
    lowest_score_by_unit,
    unit_indices,
)
from lesion_triage.config import Data
from lesion_triage.console import echo, progress_bar
from lesion_triage.data import manifest
from lesion_triage.data.predict import predict
from lesion_triage.data.records import unit_of_analysis, unnamed_lesions, unnamed_photographs
from lesion_triage.data.sources import folder
from lesion_triage.errors import CalibrationError, DataError
from lesion_triage.predictions import Predictions

SPLIT = "external"


@dataclass(frozen=True, eq=False)
class LocalCases:
    """Confirmed cases of one site, scored by one bundle."""

    bundle: Bundle
    table: Predictions
    cases: tuple[Case, ...]
    unit: Unit
    unnamed_lesions: int
    """If patients are counted: lesions that name no patient; each counts as one."""
    unnamed_photographs: int
    """Photographs that name no lesion; each counts as a lesion."""
    synthetic: bool
    citation: tuple[str, ...]
    seen_before: bool
    """Whether some of the pictures have chosen a threshold of this bundle before."""

    @property
    def positives(self) -> tuple[Case, ...]:
        """Cases that need an in-person visit."""
        return tuple(case for case in self.cases if case.needs_in_person)

    @property
    def sha256(self) -> str:
        """Hash of the pictures' pixels, whatever their labels."""
        return cases_sha256(self.cases)

    @property
    def files_sha256(self) -> str:
        """Hash of the pictures' files."""
        return files_sha256(file_fingerprints(self.cases))

    def positive_scores(self) -> NDArray[np.float64]:
        """One per positive unit: the lowest score of its positive cases; +inf if none could be scored."""
        policy = self.bundle.policy
        scores = case_scores(self.positives, policy.calibrator, policy.aggregation)
        return lowest_score_by_unit(scores, unit_indices(self.positives))

    def referred_without_need(self, policy: Policy) -> tuple[int, int]:
        """How many negative cases a policy refers or abstains on, and how many there are."""
        others = [case for case in self.cases if not case.needs_in_person]
        below = sum(_below(policy, case) for case in others)
        return len(others) - below, len(others)

    def none_is_below(self, policy: Policy) -> bool:
        """Whether a policy refers or abstains on every case, some of which need no visit."""
        return len(self.positives) < len(self.cases) and not any(_below(policy, case) for case in self.cases)

    def missed_units(self, policy: Policy) -> tuple[int, int]:
        """How many positive units have a positive case below its threshold, and how many there are."""
        units = unit_indices(self.positives)
        below = [_below(policy, case) for case in self.positives]
        return np.unique(units[np.array(below, dtype=np.bool_)]).size, np.unique(units).size


def _below(policy: Policy, case: Case) -> bool:
    return decide(policy, case.logits, case.history).disposition is Disposition.below_threshold


def read(bundle_folder: Path, table: Path, images: Path | None) -> LocalCases:
    """Score a clinic's confirmed cases.

    Args:
        bundle_folder: a sealed bundle; it must pass its self-test on this machine.
        table: CSV file as for ``data.source: folder``; a row without an outcome is left out and counted.
        images: folder that the table's paths are relative to; None: the table's own folder.

    Raises:
        BundleError: the bundle is incomplete or altered, or fails its self-test.
        DataError: the table or its pictures cannot be used.
        CalibrationError: there is no positive case, or a picture was used to make the model.
    """
    bundle = open_bundle(bundle_folder)
    Scorer(bundle).self_test()
    root = images or table.parent
    if not table.is_file():
        raise DataError(f"--cases {table}: no such file, expected the table of confirmed cases.")
    if not root.is_dir():
        raise DataError(f"--images {root}: no such folder, expected that of the photographs.")
    with progress_bar("reading photographs") as tick:
        source = Data(source="folder", table=str(table.resolve()))
        made = manifest.build(source, root, tick, bundle.header.pixels)
    for reason, names in made.dropped.items():
        echo(f"  dropped {len(names)}: {reason}")
    for remark, names in made.findings.items():
        echo(f"  kept {len(names)}: {remark}")
    known = tuple(record for record in made.records if record.needs_in_person is not None)
    if len(known) < len(made.records):
        echo(f"  left out {len(made.records) - len(known)}: needs_in_person is empty")
    if not any(record.needs_in_person for record in known):
        raise CalibrationError(f"{table}: no case needs an in-person visit, so there is nothing to certify.")
    unnamed = unnamed_lesions(known)
    if unnamed:
        echo(
            f"  {unnamed} of {len({record.lesion_id for record in known})} lesions name no patient_id: each "
            "counts as a patient of its own, and the certificate says so; fill it in where it is known"
        )
    nothing = "0" * 64
    with progress_bar("scoring photographs") as tick:
        scored = predict(
            bundle.graph,
            bundle.header.pixels,
            bundle.policy.quality,
            known,
            root,
            split=SPLIT,
            manifest_sha256=nothing,
            splits_sha256=nothing,
            progress=tick,
        ).behind_gate(bundle.policy.novelty_limit)
    _refuse_fitted(bundle, scored, table, root)
    cases = gather_cases(scored)
    for remark in differing_answers_remarks(cases):
        echo(f"  {remark}")
    certified = set(bundle.used_pictures.certified.splitlines())
    return LocalCases(
        bundle=bundle,
        table=scored,
        cases=cases,
        unit=unit_of_analysis(known),
        unnamed_lesions=unnamed,
        unnamed_photographs=unnamed_photographs(known),
        synthetic=made.synthetic,
        citation=made.citation,
        seen_before=bool(scored.fingerprints() & certified),
    )


def _refuse_fitted(bundle: Bundle, scored: Predictions, table: Path, root: Path) -> None:
    fitted = set(bundle.used_pictures.fitted.splitlines())
    used = {row.image_id for row in scored.rows if {row.file_fingerprint, row.pixel_fingerprint} & fitted}
    if used:
        # By line, not by file name: that may be a person's name.
        raise CalibrationError(
            f"{table}: {len(used)} of {len(scored.rows)} photographs were used to make this model (lines "
            f"{_lines(table, root, used)}), so they cannot certify it; leave them out."
        )


def _lines(table: Path, root: Path, image_ids: Collection[str]) -> str:
    at = folder.line_numbers(root, str(table.resolve()))
    lines = [str(number) for image_id, number in at.items() if image_id in image_ids]
    return ", ".join(lines[:5]) + (", ..." if len(lines) > 5 else "")
