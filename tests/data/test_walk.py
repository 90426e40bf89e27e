"""A folder that cannot be listed is an error, not a dataset with fewer pictures."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lesion_triage import runs
from lesion_triage.data.sources.tables import scan_folder
from lesion_triage.data.walk import walk_folders
from lesion_triage.errors import DataError


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # that of pytest is closed to other users
        Path(folder).chmod(0o755)
        for name in ("one", "two"):
            (Path(folder) / name).mkdir()
            (Path(folder) / name / f"{name}.jpg").write_bytes(b"picture")
        yield Path(folder)


@contextmanager
def closed(folder: Path) -> Iterator[None]:
    """The folder is closed to this user, and nobody is root, to whom nothing is closed."""
    folder.chmod(0o000)
    privileged = os.geteuid() == 0
    if privileged:
        os.seteuid(65534)
    try:
        yield
    finally:
        if privileged:
            os.seteuid(0)
        folder.chmod(0o755)


def test_folder_that_cannot_be_listed_is_named(root: Path) -> None:
    with closed(root / "one"), pytest.raises(DataError, match=r"/one: .*listed \(Permission denied\)"):
        scan_folder(root)
    assert scan_folder(root).pictures == {"one": "one/one.jpg", "two": "two/two.jpg"}


def test_link_to_a_folder_that_cannot_be_listed_is_named(root: Path) -> None:
    (root / "two" / "link").symlink_to(root / "one")
    with closed(root / "one"), pytest.raises(DataError, match=r"/link: .*cannot be listed"):
        list(walk_folders(root / "two"))


def test_folder_that_can_be_listed_again_is_a_change(root: Path) -> None:
    """Of one's own pictures, it may hold none that the table names."""
    with closed(root / "one"):
        first = runs.tree_fingerprint(root)
    assert runs.tree_fingerprint(root) != first


def test_root_of_a_disk_has_a_folder_that_only_root_can_list(root: Path) -> None:
    (root / "lost+found").mkdir()
    with closed(root / "lost+found"):
        assert len(scan_folder(root).pictures) == 2
