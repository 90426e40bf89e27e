"""Small backlogs of drawn pictures, and the verb as a user calls it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tiny_bundle as tiny
from lesion_triage import cli

KINDS: tuple[tiny.Kind, ...] = ("referred", "below", "black", "unfamiliar")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with both gates; not to be written to."""
    folder = tmp_path_factory.mktemp("bundles") / "gated"
    return tiny.make(folder, novelty_limit=tiny.NOVELTY_LIMIT).folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """One picture of each kind, named after it."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for kind in KINDS:
        (folder / f"{kind}.png").write_bytes(tiny.picture_bytes(kind))
    return folder


@pytest.fixture
def table(pictures: Path) -> Callable[[str], Path]:
    """Writes a CSV file beside the pictures."""

    def write(text: str) -> Path:
        path = pictures / "cases.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def score(bundle: Path, tmp_path: Path) -> Callable[..., int]:
    """``score(cases, *options)``: scores into the folder ``out`` of this test; its exit status."""

    def call(cases: Path, *options: str) -> int:
        words = ["score-batch", str(bundle), "--cases", str(cases), "--out", str(tmp_path / "out")]
        return cli.main([*words, *options])

    return call


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[], list[dict[str, object]]]:
    """What stands in the folder ``out`` of this test."""

    def read() -> list[dict[str, object]]:
        found: pa.Table = pq.read_table(tmp_path / "out" / "cases")
        return list(found.to_pylist())

    return read
