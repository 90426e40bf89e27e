"""From logits to a sealed bundle and its report: the stages calibrate, export and evaluate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lesion_triage import runs
from lesion_triage.console import echo, progress_bar
from lesion_triage.errors import CalibrationError
from lesion_triage.pipeline.pictures import data_root, records
from lesion_triage.pipeline.training import pixel_cache_of, predict_split, require_positives
from lesion_triage.runs import Run
from lesion_triage.tracking import Tracker

if TYPE_CHECKING:
    from lesion_triage.bundle.certificate import Certificate
    from lesion_triage.calibrate.referral_burden import ReferralBurden
    from lesion_triage.evaluate.results import Results

_USELESS = (
    "WARNING: more than 95 % of negative cases are referred, so this policy barely prioritises. The "
    "certificate still holds; check the learning curve and the findings of the audit."
)


def calibrate_inputs(run: Run) -> object:
    """Everything that decides the policy: the settings, and the schema of the answers."""
    from lesion_triage.bundle.schema import SCHEMA_VERSION

    return SCHEMA_VERSION, run.config.calibrate.model_dump(mode="json")


def ledger_of(run: Run) -> Path:
    """The ledger of looks in which a run's certificate is recorded."""
    from lesion_triage.calibrate import ledger

    return run.folder.parent.parent / ledger.LEDGER_FILE_NAME


def warn_of_second_look(run: Run) -> None:
    """Warn, before hours of training, that certifying on these photographs will need a reason.

    At that point the calibration split is known, and so is whether its files have chosen a threshold before.
    Nothing is refused: a training run that is bit-identical repeats its look, and one may want the training
    alone.
    """
    from lesion_triage.bundle import fingerprints
    from lesion_triage.calibrate import ledger
    from lesion_triage.calibrate.cases import files_sha256

    files = [fingerprints.file_fingerprint(record.sha256) for record in records(run, "calibration")]
    try:
        # Their pixels are not prepared yet.
        earlier = ledger.looks_at_pictures(ledger.read(ledger_of(run)), "", files_sha256(files), files)
    except CalibrationError as error:  # `calibrate` will refuse
        echo(f"  {error}")
        return
    if earlier and not run.config.calibrate.second_look:
        echo(
            "  These calibration photographs, or some of them, were used to choose a threshold before, last "
            f"on {earlier[-1].looked_at}. After training, `calibrate` will require a reason to use them "
            "again: --set calibrate.second_look='...' gives it now (docs/certificate.md)."
        )


def calibrate(run: Run, tracker: Tracker) -> None:
    """Stage 'calibrate': the certified policy, and a line in the ledger of looks."""
    from lesion_triage import predictions
    from lesion_triage.bundle.document import timestamp
    from lesion_triage.bundle.files import write_atomically
    from lesion_triage.calibrate import ledger
    from lesion_triage.calibrate.cases import (
        cases_sha256,
        differing_answers_remarks,
        file_fingerprints,
        files_sha256,
        gather_cases,
    )
    from lesion_triage.calibrate.policy_fit import CaseProvenance, certify
    from lesion_triage.calibrate.referral_burden import measure_referral_burden
    from lesion_triage.data.records import unit_of_analysis, unnamed_lesions, unnamed_photographs

    validation, fitting = predictions.read(run.folder / "predictions", "validation")
    calibration, digest = predictions.read(run.folder / "predictions", "calibration")
    require_positives(run)
    config, ledger_path = run.config.calibrate, ledger_of(run)
    certified = gather_cases(calibration)
    cases, files = cases_sha256(certified), files_sha256(file_fingerprints(certified))
    certifying = records(run, "calibration")
    settings = runs.inputs_sha256(
        calibrate=config.model_dump(mode="json", exclude={"second_look"}),
        validation=fitting,
        calibration=digest,
    )
    with ledger.locked(ledger_path) as looks:
        repeated = ledger.find_repeated_look(looks, cases, calibration.model_sha256, settings)
        before = looks if repeated is None else looks[: looks.index(repeated)]
        earlier = ledger.looks_at_pictures(before, cases, files, calibration.fingerprints())
        if repeated is None:
            ledger.require_second_look_reason(earlier, config.second_look)
        origin = CaseProvenance(
            issued_at=repeated.looked_at if repeated else timestamp(),
            unit=unit_of_analysis(certifying),
            unnamed_lesions=unnamed_lesions(certifying),
            unnamed_photographs=unnamed_photographs(certifying),
            predictions_sha256=digest,
            purpose=repeated.purpose if repeated else config.second_look or "first look",
            ledger=earlier,
            looks_at_these_cases=earlier,
        )
        policy, certificate = certify(validation, calibration, config, origin)
        if repeated is None:
            seen = calibration.fingerprints()
            ledger.append(ledger_path, ledger.entry_from_certificate(certificate, settings, files, seen))
    write_atomically(run.folder / "policy.json", policy.to_json().encode())
    write_atomically(run.folder / "certificate.json", certificate.to_json().encode())
    for remark in differing_answers_remarks(certified):
        echo(f"  {remark}")
    _report_certificate(certificate, tracker)
    _print_referral_burden(measure_referral_burden(policy, validation))


def _report_certificate(certificate: Certificate, tracker: Tracker) -> None:
    from lesion_triage.calibrate.wording import format_percent

    echo(
        f"  threshold {certificate.threshold:.4f} certifies sensitivity >= {certificate.target_sensitivity} "
        f"at {format_percent(certificate.confidence)}% confidence: {certificate.misses_seen} of "
        f"{certificate.positives} positive {certificate.unit}s missed, {certificate.misses_allowed} allowed"
    )
    for row in certificate.groups[1:]:
        what = f"{row.misses_seen} of {row.positives} missed"
        if row.status == "certified":
            echo(f"    {row.by} {row.group}: certified, {what}, {row.misses_allowed} allowed")
        else:
            echo(f"    {row.by} {row.group}: NOT CERTIFIABLE with {row.positives} of {row.minimum_positives}")
    _log_certificate(certificate, tracker)


def _log_certificate(certificate: Certificate, tracker: Tracker) -> None:
    tracker.metrics(
        {
            "certificate.threshold": certificate.threshold,
            "certificate.positives": certificate.positives,
            "certificate.misses_allowed": certificate.misses_allowed,
            "certificate.sensitivity_lower_bound": certificate.sensitivity_lower_bound,
        }
    )
    tracker.tags({"certificate_id": certificate.certificate_id()})


def log_certificate(run: Run, tracker: Tracker) -> None:
    """The tracker keeps the certificate's numbers."""
    from lesion_triage.bundle.certificate import Certificate
    from lesion_triage.bundle.store import read_document

    path = run.folder / "certificate.json"
    _log_certificate(read_document(Certificate, path.read_bytes(), path), tracker)


def _print_referral_burden(burden: ReferralBurden) -> None:
    """Print what the threshold costs, on cases that fitted the calibrator but did not choose it."""
    specificity = "unknown" if burden.specificity is None else f"{burden.specificity:.3f}"
    echo(
        f"  on validation, not on test: specificity {specificity} ({burden.negatives_referred} of "
        f"{burden.negatives} cases without need referred), referral rate {burden.referral_rate:.3f}"
    )
    if burden.is_useless:
        echo(f"  {_USELESS}")


def _print_results(results: Results) -> None:
    """Print the headline of the report, with the 95 % intervals from its table."""
    from lesion_triage.calibrate.referral_burden import USELESS_REFERRAL_SHARE

    whole = results.slices[0]
    numbers = [
        f"{name.replace('_', ' ')} {found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
        for name in ("specificity", "referral_rate")
        if (found := whole.interval(name)) is not None
    ]
    missed = f"{results.missed} of {results.positives} positive cases missed"
    echo(f"  on test: {missed}; {', '.join(numbers) or whole.note}")
    specificity = whole.metrics.get("specificity")
    if specificity is not None and 1 - specificity.value > USELESS_REFERRAL_SHARE:
        echo(f"  {_USELESS}")


def export(run: Run, tracker: Tracker) -> None:
    """Stage 'export': parity check, then the sealed bundle."""
    from lesion_triage.data import manifest
    from lesion_triage.export import sealing

    known, _ = manifest.read(run.folder)
    source_data = sealing.SourceData(known, records(run, "train"), records(run, "validation"), data_root(run))
    sealed = sealing.seal_run(run.folder, run.config, source_data, pixel_cache_of(run))
    bundle, parity = sealed.bundle, sealed.parity
    echo(
        f"  parity on {parity.images} validation photographs: largest score difference "
        f"{parity.largest_score_difference:.1e}, {parity.decision_flips} decision flips"
    )
    echo(f"  sealed {run.folder / 'bundle'} ({bundle.sha256[:16]})")
    tracker.metrics({"export.largest_score_difference": parity.largest_score_difference})
    _log_bundle(run, bundle.sha256, tracker)


def _log_bundle(run: Run, sha256: str, tracker: Tracker) -> None:
    tracker.tags({"bundle_sha256": sha256})
    tracker.artifact(run.folder / "bundle", "bundle")


def log_bundle(run: Run, tracker: Tracker) -> None:
    """The tracker keeps the bundle and its hash; the parity of a reused bundle is in no file."""
    from lesion_triage.bundle.store import open_bundle

    _log_bundle(run, open_bundle(run.folder / "bundle").sha256, tracker)


def evaluate_inputs(run: Run) -> object:
    """Everything that decides the results: the settings, and how they are computed from the predictions."""
    from lesion_triage.evaluate import results

    return results.FORMAT, run.config.evaluate.model_dump()


def evaluate(run: Run, tracker: Tracker) -> None:
    """Stage 'evaluate': record the opening of the test split, and open it on the sealed bundle."""
    from lesion_triage.bundle.store import open_bundle
    from lesion_triage.data import manifest
    from lesion_triage.evaluate import report
    from lesion_triage.export import parity
    from lesion_triage.export.onnx_graph import Views
    from lesion_triage.train import checkpoint

    bundle = open_bundle(run.folder / "bundle")
    runs.record_test_opening(run.folder, bundle.sha256)
    table = predict_split(run, "test", bundle.graph)
    table.write(run.folder / "predictions")
    sealed = bundle.header.model
    with progress_bar("comparing with torch"):
        agreement = parity.compare(
            Views(checkpoint.load_checkpoint(run.folder), sealed.views, sealed.center_crop),
            bundle.header.pixels,
            bundle.policy,
            table,
            records(run, "test"),
            data_root(run),
        )
    known, _ = manifest.read(run.folder)
    echo("  measuring")
    training = records(run, "train")
    results = report.evaluate(table, bundle, run.config.evaluate, asdict(agreement), training)
    echo("  drawing the report")
    index = report.write_report(run.folder / "report", results, table, bundle, known, data_root(run))
    _print_results(results)
    _log_report(run, results.flat(), tracker)
    echo(f"  report: {index}")


def _log_report(run: Run, numbers: Mapping[str, float], tracker: Tracker) -> None:
    tracker.metrics(numbers)
    tracker.artifact(run.folder / "report", "report")


def log_report(run: Run, tracker: Tracker) -> None:
    """The tracker keeps the report and its numbers."""
    from lesion_triage.evaluate.results import flat

    told = json.loads((run.folder / "report" / "results.json").read_text(encoding="utf-8"))
    _log_report(run, flat(told), tracker)
