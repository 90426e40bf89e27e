"""Writes the reference from the code: commands, settings, HTTP, the Python interface, errors.

Imports the program's own tables and the writers beside it.
"""

from __future__ import annotations

import json
from pathlib import Path

import reference_cli
import reference_http

from lesion_triage.config import Config

_BUNDLE = (
    "store", "scorer", "graph", "schema", "answers", "policy", "calibration", "certificate", "history",
    "red_flags", "quality", "novelty_gate", "pixels", "metadata_stripping", "signing", "fingerprints",
    "messages", "document",
)  # fmt: skip

_API_PAGES = {
    "api-bundle": (
        "Python: bundles and scoring",
        "The contract between training and serving. It needs no training library: "
        "In a checkout: ``pip install .``. `Scorer` is where to begin.",
        tuple(f"lesion_triage.bundle.{name}" for name in _BUNDLE),
    ),
    "api-certificate": (
        "Python: the certificate",
        "The certificate's arithmetic, for those who check it.",
        ("lesion_triage.calibrate.certificate",),
    ),
    "api-client": (
        "Python: the client",
        "In a checkout: ``pip install '.[client]'``",
        ("triage_client.client", "triage_client.protocol", "triage_client.webhook"),
    ),
    "api-config": (
        "Python: configuration",
        "One class for each section of a configuration file. For editors that complete YAML: "
        ":download:`config.schema.json`.",
        ("lesion_triage.config", "lesion_triage.config_file"),
    ),
    "errors": (
        "Errors",
        "The command line prints the sentence of an error and ends with status 2.",
        ("lesion_triage.errors",),
    ),
}


def write(folder: Path) -> None:
    """Write every page of the reference into ``folder``, which is made."""
    folder.mkdir(parents=True)
    for name, (title, introduction, modules) in _API_PAGES.items():
        (folder / f"{name}.rst").write_text(_api_page(title, introduction, modules), encoding="utf-8")
    (folder / "cli.md").write_text(reference_cli.commands(), encoding="utf-8")
    (folder / "settings.md").write_text(reference_cli.settings(), encoding="utf-8")
    description = reference_http.description()
    (folder / "http.md").write_text(reference_http.page(description), encoding="utf-8")
    (folder / "openapi.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
    schema = json.dumps(Config.model_json_schema(), indent=1)
    (folder / "config.schema.json").write_text(schema, encoding="utf-8")


def _api_page(title: str, introduction: str, modules: tuple[str, ...]) -> str:
    text = f"{title}\n{'=' * len(title)}\n\n{introduction}\n"
    for module in modules:
        if len(modules) > 1:
            text += f"\n{module}\n{'-' * len(module)}\n"
        text += f"\n.. automodule:: {module}\n"
    return text
