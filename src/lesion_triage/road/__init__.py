"""The road from pictures to a report, stage by stage. Each stage imports its own room, and only then.

Stages talk through the files of the run folder; see ``runs`` for when one is repeated.
"""

from lesion_triage.road.auditing import audited
from lesion_triage.road.pictures import data_root, records
from lesion_triage.road.stages import STAGES, VERBS, Stage
from lesion_triage.road.training import following
from lesion_triage.road.travelling import follow, travel

__all__ = ["STAGES", "VERBS", "Stage", "audited", "data_root", "follow", "following", "records", "travel"]
