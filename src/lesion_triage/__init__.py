"""Skin-lesion triage: train, certify, export and serve a needs-in-person threshold. No diagnosis."""

import os
from importlib.metadata import version

# Read by onnxruntime as it is loaded: from 1.29 on it reports every session to its maker unless told not to
# (its docs/Privacy.md). Nothing that runs beside patients calls home. Here, as it is imported first.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # so does Ray, of every cluster that it starts

__version__ = version("lesion-triage")
