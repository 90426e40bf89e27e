"""The pipeline from pictures to a report, stage by stage. Each stage imports its own room when it runs.

Stages communicate through the files of the run folder; see ``runs`` for when one is repeated.
"""

from lesion_triage.pipeline.auditing import audited
from lesion_triage.pipeline.finished_run import REPORT, Finished, finished
from lesion_triage.pipeline.pictures import data_root, records
from lesion_triage.pipeline.runner import begin, config_text, follow, reach, track, travel
from lesion_triage.pipeline.stages import STAGES, VERBS, Stage
from lesion_triage.pipeline.training import CURVE, following, one_process, train, training_key

__all__ = [
    "CURVE",
    "REPORT",
    "STAGES",
    "VERBS",
    "Finished",
    "Stage",
    "audited",
    "begin",
    "config_text",
    "data_root",
    "finished",
    "follow",
    "following",
    "one_process",
    "reach",
    "records",
    "track",
    "train",
    "training_key",
    "travel",
]
