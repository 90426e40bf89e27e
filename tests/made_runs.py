"""Writes the folder of a finished run around a tiny bundle, in milliseconds and without torch.

The files have the form that the pipeline gives them; the numbers are the test's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tiny_bundle
from lesion_triage.audit.findings import FORMAT
from lesion_triage.bundle.certificate import Certificate
from lesion_triage.bundle.document import canonical_json
from lesion_triage.bundle.store import Bundle, seal
from lesion_triage.calibrate.metrics import proportion
from lesion_triage.config import Config

AUROC = {"value": 0.9, "low": 0.85, "high": 0.95}


def estimate(right: int, of: int) -> dict[str, float]:
    """A share with its exact interval, as ``results.json`` has it."""
    found = proportion(right, of)
    return {"successes": right, "trials": of, "value": found.value, "low": found.low, "high": found.high}


def slice_(
    name: str, referred: int, positives: int, passed: int, negatives: int, **metrics: Any
) -> dict[str, Any]:
    """One slice: ``referred`` of the positives, ``passed`` of the negatives below the threshold."""
    share = (referred + negatives - passed) / (positives + negatives)
    near = {"value": share, "low": share - 0.05, "high": share + 0.05}
    return {
        "name": name,
        "title": f"Slice {name}",
        "cases": positives + negatives,
        "positives": positives,
        "abstained": 0,
        "metrics": {"auroc": AUROC, "referral_rate": near, **metrics},
        "sensitivity_exact": estimate(referred, positives),
        "specificity_exact": estimate(passed, negatives),
        "note": "",
    }


def make(
    folder: Path,
    *,
    slices: list[dict[str, Any]] | None = None,
    certificate: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    results: dict[str, Any] | None = None,
    audit: dict[str, Any] | None = None,
    synthetic: bool = False,
    **parts: Any,
) -> Path:
    """Write ``folder`` as a run that has been evaluated and audited.

    Args:
        folder: of the run; its parent's parent is where MLflow's local database goes.
        slices: of the results.
        certificate: fields of the certificate that differ from the tiny bundle's.
        config: sections of the configuration that differ.
        results: fields of ``results.json`` that differ.
        audit: fields of the audit that differ.
        synthetic: whether the bundle says so.
        parts: arguments of ``seal`` that differ, or fields of the policy.
    """
    folder.mkdir(parents=True)
    bundle = _bundle(folder / "bundle", certificate or {}, synthetic, parts)
    tree = {
        "name": bundle.header.name,
        "data": {"source": "folder", "root": "/srv/Jane-Doe"},
        **(config or {}),
    }
    (folder / "config.yaml").write_text(Config.model_validate(tree).to_yaml())
    _write(folder / "report" / "results.json", {**_results(bundle, slices), **(results or {})})
    _write(folder / "audit_with_model" / "audit.json", {**_audit(bundle), **(audit or {})})
    return folder


def _bundle(folder: Path, changes: dict[str, Any], synthetic: bool, given: dict[str, Any]) -> Bundle:
    sealing = {name: value for name, value in given.items() if name in ("selftest", "model_card", "name")}
    parts = tiny_bundle.seal_arguments(
        **{name: value for name, value in given.items() if name not in sealing}
    )
    fields = parts["certificate"].model_dump(mode="json")
    parts["certificate"] = Certificate.model_validate({**fields, **changes})
    return seal(folder, **{**parts, "synthetic": synthetic, **sealing})


def _results(bundle: Bundle, slices: list[dict[str, Any]] | None) -> dict[str, Any]:
    certificate = bundle.certificate
    return {
        "schema_version": 1,
        "split": "test",
        "unit": certificate.unit,
        "bundle_sha256": bundle.sha256,
        "model_sha256": certificate.model_sha256,
        "manifest_sha256": certificate.manifest_sha256,
        "splits_sha256": certificate.splits_sha256,
        "parity": {
            "split": "test",
            "images": 300,
            "largest_logit_difference": 1e-6,
            "largest_score_difference": 1e-7,
            "decision_flips": 0,
        },
        "slices": slices or [slice_("all", 95, 100, 120, 200)],
    }


def _audit(bundle: Bundle) -> dict[str, Any]:
    certificate = bundle.certificate
    return {
        "format": FORMAT,
        "verdict": "pass",
        "findings": [],
        "tables": [],
        "facts": {
            "with_model": True,
            "manifest_sha256": certificate.manifest_sha256,
            "model_sha256": certificate.model_sha256,
        },
    }


def _write(path: Path, tree: dict[str, Any]) -> None:
    path.parent.mkdir()
    path.write_text(canonical_json(tree))


def rewrite(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file, also to what the pipeline never writes, such as NaN."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
