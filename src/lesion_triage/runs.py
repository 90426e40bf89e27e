"""A run is one folder; a stage is done when its record says so. Imports config, data and the bundle.

Every stage writes its outputs and then, last, ``stages/<stage>.json`` with the hash of all its inputs and
outputs. A stage whose record still holds is not repeated. If another run of the same name has already done
it from the same inputs, its outputs are taken over from there. Nothing finished is ever overwritten.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lesion_triage import locks
from lesion_triage.bundle.document import canonical_json, sha256_of
from lesion_triage.bundle.files import append_line, remove_with_leftovers, write_atomically
from lesion_triage.config import Config
from lesion_triage.console import echo
from lesion_triage.data.walk import walk_folders
from lesion_triage.errors import RunError

RUNS = Path("experiments/runs")
"""Folder of all runs, unless another is named."""
FROZEN_CONFIG = "config.yaml"
_IDENTITY = "config.sha256"
_OPENINGS = "test_openings.jsonl"
"""In a run folder: one line for each time its test split was opened."""


@dataclass(frozen=True)
class StageRecord:
    """What a finished stage was made from, and what it made."""

    inputs_sha256: str
    outputs: dict[str, str]
    """File relative to the run folder -> SHA-256."""
    seconds: float

    def sha256(self) -> str:
        """Hash of the outputs alone, for the stages that build on them."""
        return sha256_of(canonical_json(self.outputs).encode())


@dataclass(frozen=True)
class Run:
    """One configuration in one folder."""

    config: Config
    folder: Path

    @property
    def cache(self) -> Path:
        """Folder of decoded pictures, shared by all runs beside this one."""
        return self.folder.parent.parent / "cache"

    def record(self, stage: str) -> StageRecord | None:
        """The record of a finished stage, or None."""
        try:
            content = json.loads((self.folder / "stages" / f"{stage}.json").read_text(encoding="utf-8"))
            return StageRecord(**content)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise RunError(
                f"{self.folder}: the record of stage '{stage}' is damaged ({error}); restore "
                f"stages/{stage}.json, or remove it to do the stage again."
            ) from None

    def is_up_to_date(self, stage: str, inputs_sha256: str) -> bool:
        """True if the stage was made from these inputs and its files are unchanged."""
        record = self.record(stage)
        if record is None or record.inputs_sha256 != inputs_sha256:
            return False
        return all(
            (self.folder / name).is_file() and file_sha256(self.folder / name) == digest
            for name, digest in record.outputs.items()
        )

    def record_stage(
        self, stage: str, inputs_sha256: str, outputs: Sequence[str], seconds: float
    ) -> StageRecord:
        """Write the record of a stage, after all its outputs."""
        files = sorted(_files(self.folder, outputs))
        record = StageRecord(
            inputs_sha256, {name: file_sha256(self.folder / name) for name in files}, round(seconds, 1)
        )
        self._write(stage, record)
        return record

    def reuse_stage(self, stage: str, other: Run) -> None:
        """Copy a finished stage from another run."""
        record = other.record(stage)
        assert record is not None
        for name in record.outputs:
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copy2(other.folder / name, target)
        self._write(stage, record)

    def clear(self, outputs: Sequence[str]) -> None:
        """Remove what an interrupted or outdated attempt left behind."""
        for name in outputs:
            remove_with_leftovers(self.folder / name)

    def _write(self, stage: str, record: StageRecord) -> None:
        (self.folder / "stages").mkdir(exist_ok=True)
        content = canonical_json(asdict(record)).encode()
        write_atomically(self.folder / "stages" / f"{stage}.json", content)


def find_or_make(config: Config, root: Path, outdated: Callable[[Run], bool] = lambda run: False) -> Run:
    """The newest run of exactly this configuration, or a new folder for it.

    Two processes that ask at the same time get the same folder: the second waits for the first.

    Args:
        config: the resolved configuration.
        root: folder of all runs, ``experiments/runs``; created if missing.
        outdated: whether the newest run must be left as it is and a new folder made.

    Raises:
        RunError: the disk refuses a folder, a file or the lock.
    """
    identity = config.identity_sha256()
    with ExitStack() as stack:
        with _disk_errors(root):
            stack.enter_context(locks.hold_lock(root / f".{config.name}.lock", _say_waiting))
        for folder in _folders(config.name, root):
            if config_identity(folder) == identity:
                with _disk_errors(root):
                    _write_frozen_config(config, folder)  # again: the data may have moved
                run = Run(config, folder)
                return make(config, root) if outdated(run) else run
        return make(config, root)


def _say_waiting() -> None:
    echo("  another command is choosing a run folder of the same name; waiting for it")


def make(config: Config, root: Path) -> Run:
    """A new folder for this configuration.

    Raises:
        RunError: the disk refuses it.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    with _disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        for attempt in range(100):
            folder = root / f"{config.name}-{stamp}{f'-{attempt}' if attempt else ''}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            _write_frozen_config(config, folder)
            write_atomically(folder / _IDENTITY, f"{config.identity_sha256()}\n".encode())
            return Run(config, folder)
    raise RunError(f"{root}: no free name for a run of '{config.name}'.")


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    """Turn an operating-system error while writing a run's folder into one sentence."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{root}: no run can be started in it ({error}); the runs must be on a disk that is writable, "
            "has room and supports file locks."
        ) from None


def with_absolute_paths(config: Config) -> Config:
    """The configuration with absolute paths.

    Relative paths in a file are resolved against its folder.
    """
    data, model, ensemble = config.data, config.model, config.ensemble
    parts = tuple(part.model_copy(update={"root": _absolute(part.root)}) for part in data.mixture)
    data = data.model_copy(update={"root": _absolute(data.root), "mixture": parts})
    model = model.model_copy(update={"weights": _absolute_weights(model.weights)})
    others = tuple(
        one.model_copy(update={"weights": _absolute_weights(one.weights)}) for one in ensemble.backbones
    )
    ensemble = ensemble.model_copy(update={"backbones": others})
    return config.model_copy(update={"data": data, "model": model, "ensemble": ensemble})


def _write_frozen_config(config: Config, folder: Path) -> None:
    write_atomically(folder / FROZEN_CONFIG, with_absolute_paths(config).to_yaml().encode())


def _absolute(path: Path | None) -> Path | None:
    return path and path.absolute()


def _absolute_weights(weights: str) -> str:
    return weights if weights in ("hub", "none") else str(Path(weights).absolute())


def other_runs(run: Run) -> Iterator[Run]:
    """Other runs of the same name, newest first."""
    for folder in _folders(run.config.name, run.folder.parent):
        if folder != run.folder:
            yield Run(run.config, folder)


def record_test_opening(folder: Path, bundle_sha256: str = "", by: str = "") -> None:
    """Record that a run's test split is about to be opened.

    Args:
        folder: of the run.
        bundle_sha256: of the sealed bundle that it is opened on; empty: on the trained network alone.
        by: the verb; empty: the run's own stage.

    Raises:
        RunError: the disk is full, or refuses; the split has not been opened.
    """
    opened_at = datetime.now(UTC).isoformat(timespec="seconds")
    told = {"opened_at": opened_at, "bundle_sha256": bundle_sha256, "by": by}
    line = {name: value for name, value in told.items() if value}
    path = folder / _OPENINGS
    try:
        append_line(path, json.dumps(line, sort_keys=True))
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror}); each opening of the test split is recorded "
            "first, so it was not opened."
        ) from None


def copy_test_openings(source: Path, folder: Path) -> None:
    """Record in a run, once each, the openings of another run whose results it takes over."""
    known = _test_openings(folder)
    for line in _test_openings(source):
        if line not in known:
            append_line(folder / _OPENINGS, line)


def _test_openings(folder: Path) -> list[str]:
    path = folder / _OPENINGS
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def file_sha256(path: Path) -> str:
    """Hash of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree_fingerprint(root: Path) -> str:
    """Hash of the names, sizes and times of all files below ``root``: has the dataset been changed?

    Files in linked folders are included. A file that has vanished, a link that leads nowhere, and what is in
    a folder that cannot be listed, count as absent; whoever reads them will report that.
    """
    digest = hashlib.sha256()
    for walked in walk_folders(root, on_error=lambda error: None):
        if walked.link_target is not None:
            digest.update(os.fsencode(f"{walked.prefix}\0same as {walked.link_target}\n"))
        for name in walked.names:
            try:
                facts = Path(walked.folder, name).stat()
                seen = f"{facts.st_size}\0{facts.st_mtime_ns}"
            except OSError:
                seen = "absent"
            digest.update(os.fsencode(f"{walked.prefix}{name}\0{seen}\n"))
    return digest.hexdigest()


def inputs_sha256(**parts: Any) -> str:
    """Hash of everything a stage is made from."""
    return sha256_of(canonical_json(parts).encode())


def _folders(name: str, root: Path) -> list[Path]:
    """Run folders of one configuration name, newest first: <name>-<date>-<time>."""
    if not root.is_dir():
        return []
    found = [
        folder
        for folder in root.iterdir()
        if folder.name.startswith(f"{name}-") and folder.name[len(name) + 1 :][:8].isdigit()
    ]
    return sorted(found, key=lambda folder: folder.name, reverse=True)


def config_identity(folder: Path) -> str:
    """Hash of the configuration that a run folder was made for; empty: not recorded."""
    try:
        return (folder / _IDENTITY).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _files(folder: Path, outputs: Iterable[str]) -> Iterator[str]:
    for name in outputs:
        path = folder / name
        if path.is_dir():
            yield from (str(file.relative_to(folder)) for file in path.rglob("*") if file.is_file())
        else:
            yield name
