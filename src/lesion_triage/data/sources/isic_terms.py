"""Terms and licences of the ISIC archive, which several datasets use. Imports records."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lesion_triage.data.records import HISTOPATHOLOGY

CONFIRM_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "histopathology": HISTOPATHOLOGY,
        "serial imaging showing no change": "follow_up",
        "single image expert consensus": "consensus",
        "confocal microscopy with consensus dermoscopy": "confocal",
        "single contributor clinical assessment": "clinical",
    }
)
"""The archive's ``diagnosis_confirm_type`` -> ours, the same as for HAM10000."""

DOWNSAMPLED = "_downsampled"
"""Some ids of 2019 end in this: the archive's picture of that id, reduced."""
