"""Skin-lesion triage: train, certify, export and serve a needs-in-person threshold. No diagnosis."""

from importlib.metadata import version

__version__ = version("lesion-triage")
