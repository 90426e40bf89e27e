"""A clinic's folder, and the bundle that it certifies again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

import synthetic_clinic
import tiny_bundle

Write = Callable[..., Path]


@pytest.fixture
def clinic(tmp_path: Path) -> Write:
    """Writes ``cases.csv`` and the pictures; each case is (logit, needs_in_person, other columns)."""

    def write(cases: Iterable[tuple[float, object, dict[str, object]]], name: str = "site") -> Path:
        return synthetic_clinic.write(tmp_path / name, cases)

    return write


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Refers from logit 0, where a positive case of the clinic's may or may not lie."""
    return tiny_bundle.make(tmp_path / "bundle").folder
