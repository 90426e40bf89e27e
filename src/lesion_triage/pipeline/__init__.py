"""The pipeline from pictures to a report, stage by stage. Each stage imports its own package when it runs.

Stages communicate through the files of the run folder; see ``runs`` for when one is repeated.
"""

from lesion_triage.pipeline.auditing import load_audit_data
from lesion_triage.pipeline.finished_run import (
    REPORT,
    FinishedRun,
    load_finished_run,
    make_output_folder,
)
from lesion_triage.pipeline.pictures import data_root, records
from lesion_triage.pipeline.runner import (
    config_text,
    ensure_stage,
    join_training,
    open_run,
    open_tracker,
    run_verb,
)
from lesion_triage.pipeline.stages import STAGES, VERBS, Stage
from lesion_triage.pipeline.training import CURVE, is_nonzero_rank, is_single_process, train, training_key

__all__ = [
    "CURVE",
    "REPORT",
    "STAGES",
    "VERBS",
    "FinishedRun",
    "Stage",
    "config_text",
    "data_root",
    "ensure_stage",
    "is_nonzero_rank",
    "is_single_process",
    "join_training",
    "load_audit_data",
    "load_finished_run",
    "make_output_folder",
    "open_run",
    "open_tracker",
    "records",
    "run_verb",
    "train",
    "training_key",
]
