"""The stages in order, and the stages that each verb runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lesion_triage.pipeline import auditing, pictures, sealing, training
from lesion_triage.runs import Run
from lesion_triage.tracking import Tracker


@dataclass(frozen=True)
class Stage:
    """One step: what it needs, what decides its result, and its outputs."""

    name: str
    needs: tuple[str, ...]
    decides: Callable[[Run], object]
    """The part of the configuration (and of the disk) that the result depends on."""
    outputs: tuple[str, ...]
    work: Callable[..., None]
    """Takes the run and its tracker; 'train' of an ensemble the folders of its ``members`` too."""
    log_reused: Callable[[Run, Tracker], None] = lambda run, tracker: None
    """Log a stage that was reused from another run."""
    prepare_resume: Callable[[Run, bool], None] = lambda run, required: None
    """Find the state of an interrupted attempt; raise RunError if there is none but must be."""
    scratch: tuple[str, ...] = ()
    """Files from which an interrupted attempt resumes; worthless once the stage is recorded."""


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "manifest",
            (),
            pictures.manifest_inputs,
            ("manifest.csv", "duplicates.csv", "manifest.json"),
            pictures.make_manifest,
            pictures.log_manifest,
        ),
        Stage(
            "split",
            ("manifest",),
            lambda run: run.config.split.model_dump(),
            ("splits.json",),
            pictures.make_split,
            pictures.log_split,
        ),
        Stage(
            "audit",
            ("manifest", "split"),
            auditing.audit_inputs,
            (auditing.AUDIT,),
            auditing.audit_data,
            auditing.report_audit,
        ),
        Stage(
            "train",
            ("manifest", "split"),
            training.train_inputs,
            ("checkpoint.safetensors", training.CURVE),
            training.train,
            training.log_learning_curve,
            training.prepare_resume,
            ("train_state", training.PARTIAL_STATE_COPY),
        ),
        Stage("predict", ("train",), training.predict_inputs, training.PREDICT_OUTPUTS, training.predict),
        Stage(
            "audit_model",
            ("audit", "predict"),
            lambda run: None,
            (auditing.AUDIT_MODEL,),
            auditing.audit_model,
            lambda run, tracker: auditing.report_audit(run, tracker, auditing.AUDIT_MODEL),
        ),
        Stage(
            "calibrate",
            ("predict",),
            sealing.calibrate_inputs,
            ("policy.json", "certificate.json"),
            sealing.calibrate,
            sealing.log_certificate,
        ),
        Stage(
            "export",
            ("train", "calibrate"),
            lambda run: (run.config.name, run.config.export.recipe()),
            ("bundle",),
            sealing.export,
            sealing.log_bundle,
        ),
        Stage(
            "evaluate",
            ("export",),
            sealing.evaluate_inputs,
            ("predictions/test.csv", "predictions/test.json", "report"),
            sealing.evaluate,
            sealing.log_report,
        ),
    )
}
TABLES_AUDIT = Stage(
    "audit_tables",
    ("manifest", "split"),
    auditing.audit_tables_inputs,
    (auditing.AUDIT_TABLES,),
    auditing.audit_tables,
    lambda run, tracker: auditing.report_audit(run, tracker, auditing.AUDIT_TABLES),
)
"""A side branch: no stage builds on it, and its inputs never make a run outdated."""
VERBS: dict[str, tuple[str, ...]] = {
    "manifest": ("manifest",),
    "split": ("manifest", "split"),
    "audit": ("manifest", "split", "audit"),
    "train": ("manifest", "split", "train", "predict"),
    "calibrate": ("calibrate",),
    "export": ("export",),
    "evaluate": ("evaluate",),
    "run": tuple(STAGES),
}
"""Verb -> stages. Quick stages are done if they are missing; training, a threshold or a look at ``test`` must
be asked for. 'audit' continues with the model if there is one. 'train' ends with the exported graph's own
logits, which is what 'calibrate' reads."""
