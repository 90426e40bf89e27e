from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from lesion_triage import cli
from lesion_triage.config import Split
from lesion_triage.data import manifest as manifests
from lesion_triage.data import published_splits as publishing
from lesion_triage.data import split as splitting
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.records import Record
from lesion_triage.data.split import SPLITS, split
from lesion_triage.errors import SplitError

Make = Callable[[Sequence[Record]], Manifest]


def run_of(folder: Path, known: Manifest, seed: int = 0) -> Path:
    split(known, known.write(folder), Split(seed=seed)).write(folder)
    return folder


@pytest.fixture
def known(record: Callable[..., Record], manifest_of: Make) -> Manifest:
    return manifest_of([record(f"ISIC_{n:03}", needs_in_person=n % 2 == 0) for n in range(60)])


@pytest.fixture
def published(known: Manifest, tmp_path: Path) -> Path:
    path = tmp_path / "published.json"
    assert cli.main(["splits", str(run_of(tmp_path / "run", known)), "--publish", str(path)]) == 0
    return path


def test_a_published_file_names_no_picture_and_every_hash(published: Path, known: Manifest) -> None:
    text = published.read_text(encoding="utf-8")
    assert "ISIC_" not in text
    found = [name for split in SPLITS for name in json.loads(text)["pictures"][split]]
    assert sorted(found) == sorted(sha256(r.image_id.encode()).hexdigest()[:16] for r in known.records)


def test_the_same_data_elsewhere_are_found_the_same(
    published: Path, known: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path / "elsewhere", known)
    assert cli.main(["splits", str(run), "--verify", str(published)]) == 0
    assert "the same splits" in (said := capsys.readouterr().out)
    assert "manifest and files are the same too" in said


def test_copies_of_another_size_are_the_same_splits_and_other_files(
    published: Path, known: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    smaller = replace(
        known, records=tuple(replace(r, sha256=r.sha256[::-1], width_px=12) for r in known.records)
    )
    run = run_of(tmp_path / "elsewhere", smaller)
    assert cli.main(["splits", str(run), "--verify", str(published)]) == 0
    assert "the manifest differs" in capsys.readouterr().out


def test_another_seed_is_counted(
    published: Path, known: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path / "elsewhere", known, seed=1)
    assert cli.main(["splits", str(run), "--verify", str(published)]) == 2
    assert "0 of its 60 pictures are not here, 0 here are not in it" in (said := capsys.readouterr().err)
    assert "split.seed 0" in said
    assert " to " in said


def test_missing_and_additional_pictures_are_counted(
    published: Path, known: Manifest, tmp_path: Path, record: Callable[..., Record]
) -> None:
    other = replace(known, records=(*known.records[2:], record("new", needs_in_person=True)))
    run = run_of(tmp_path / "elsewhere", other)
    splits, _ = splitting.read(run, manifests.read(run)[1])
    with pytest.raises(SplitError, match="2 of its 60 pictures are not here, 1 here are not in it"):
        publishing.verify(splits, published)


@pytest.mark.parametrize("change", [lambda c: c["pictures"]["train"].pop(), lambda c: c.update(seed=7)])
def test_an_altered_file_is_refused(
    published: Path,
    tmp_path: Path,
    change: Callable[[dict[str, object]], object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = json.loads(published.read_text(encoding="utf-8"))
    change(content)
    published.write_text(json.dumps(content), encoding="utf-8")
    assert cli.main(["splits", str(tmp_path / "run"), "--verify", str(published)]) == 2
    assert "altered since it was published" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "", "[]", "{}"])
def test_what_is_no_published_file_is_refused(
    published: Path, tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert cli.main(["splits", str(tmp_path / "run"), "--verify", str(path)]) == 2
    assert "no published file of splits" in capsys.readouterr().err


def test_the_run_s_own_file_is_not_overwritten(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "run" / splitting.FILE
    before = own.read_bytes()
    assert cli.main(["splits", str(tmp_path / "run"), "--publish", str(own)]) == 2
    assert "the run's own file" in capsys.readouterr().err
    assert own.read_bytes() == before


def test_a_file_that_cannot_be_written_is_a_sentence(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path / "nowhere" / "splits.json", tmp_path):
        assert cli.main(["splits", str(tmp_path / "run"), "--publish", str(path)]) == 2
        assert f"{path}: cannot be written" in capsys.readouterr().err


def test_a_run_s_own_file_and_a_published_one_are_not_confused(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "run" / splitting.FILE
    assert cli.main(["splits", str(tmp_path / "run"), "--verify", str(own)]) == 2
    assert "no published file of splits" in capsys.readouterr().err
    own.write_bytes(published.read_bytes())
    assert cli.main(["splits", str(tmp_path / "run"), "--verify", str(published)]) == 2
    assert "no complete file of splits" in capsys.readouterr().err
