"""API keys of platforms: made by ``triage-server keys``, stored as hashes, one JSON line each.

Imports pydantic, the bundle's documents and files, the lock and the exceptions.

A key is 256 random bits, so a plain SHA-256 of it cannot be reversed by guessing. Slow hashes such as bcrypt
are for passwords that people choose; here they would only make each request expensive.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from lesion_triage.bundle.document import Sha256, timestamp
from lesion_triage.bundle.files import flush
from lesion_triage.errors import ConfigError
from triage_server.exclusive_lock import exclusive_lock

Role = Literal["score", "read", "clinic"]
"""``score``: all of the interface, but not the page. ``read``: the interface without scoring, for monitoring.
``clinic``: as ``read``, and the page with the photographs of all cases; for a person, not for a platform."""

PREFIX = "ltk_"
_KEY = re.compile(r"ltk_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")


class KeyRecord(BaseModel):
    """What is stored of a key. ``sha256`` is of the whole key; the random id in it serves as salt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]
    """Names the key in logs."""
    label: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]
    """Names the platform; stored in this file and in no log."""
    role: Role
    sha256: Sha256
    created_at: str


class KeyFile:
    """The keys of a file as read once; whoever holds them reads the file again when it has changed."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            ConfigError: the file cannot be read, or a line is not a key.
        """
        self._path = path
        self._file_state = _file_state(path)
        self._keys = read_keys(path)

    def has_changed(self) -> bool:
        """Whether the file has changed since it was read."""
        return _file_state(self._path) != self._file_state

    def find(self, token: str) -> KeyRecord | None:
        """The record of a key, None if there is none; compared in constant time."""
        found = _KEY.fullmatch(token)
        record = self._keys.get(found[1]) if found else None
        expected = record.sha256 if record else "0" * 64
        matches = hmac.compare_digest(sha256(token.encode()).hexdigest(), expected)
        return record if matches else None

    def role_of(self, key_id: str) -> Role | None:
        """What a key is for; None if it has been revoked."""
        record = self._keys.get(key_id)
        return record.role if record else None


def read_keys(path: Path) -> Mapping[str, KeyRecord]:
    """Records by key id.

    Raises:
        ConfigError: not readable, writable by everyone, a line is not a key, or an id occurs twice.
    """
    try:
        mode, lines = path.stat().st_mode, path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the keys cannot be read ({error}).") from None
    if mode & stat.S_IWOTH:
        raise ConfigError(
            f"{path}: any user of this machine may write this file, and so add a key; run chmod o-w on it."
        )
    keys: dict[str, KeyRecord] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = KeyRecord.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise ConfigError(f"{path}: line {number} is not a key ({first['msg']}).") from None
        if record.key_id in keys:
            raise ConfigError(f"{path}: line {number} has the key id of an earlier line; remove one of them.")
        keys[record.key_id] = record
    return keys


def new_key(path: Path, label: str, role: Role) -> str:
    """Make a key, append its record to the file, and return the key, which is stored nowhere.

    Raises:
        ConfigError: the label is malformed or taken, or the file cannot be read or written.
    """
    key_id = secrets.token_hex(6)
    key = f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
    try:
        record = KeyRecord(
            key_id=key_id,
            label=label,
            role=role,
            sha256=sha256(key.encode()).hexdigest(),
            created_at=timestamp(),
        )
    except ValidationError:
        raise ConfigError(
            f"'{label}' is not a name for a key: expected 1 to 40 of letters, digits, '.', '_' and '-'."
        ) from None
    path = _resolve_links(path)
    with exclusive_lock(path):
        keys = read_keys(path) if path.exists() else {}
        if label in {one.label for one in keys.values()}:
            raise ConfigError(
                f"{path}: there is already a key named '{label}'; choose another name, or revoke that key."
            )
        write_keys(path, [*keys.values(), record])
    return key


def revoke(path: Path, key_id: str) -> KeyRecord:
    """Remove a key from the file.

    Raises:
        ConfigError: there is no such key, or the file cannot be read or written.
    """
    path = _resolve_links(path)
    with exclusive_lock(path):
        keys = dict(read_keys(path))
        record = keys.pop(key_id, None)
        if record is None:
            raise ConfigError(f"{path}: no key {key_id}; 'triage-server keys list' shows the ids.")
        write_keys(path, list(keys.values()))
    return record


def write_keys(path: Path, records: Sequence[KeyRecord]) -> None:
    """Replace the whole file atomically: a server that reads it meanwhile sees the old or the new one.

    A new file is readable by its owner alone. A file that is replaced keeps mode, owner and group, because
    the server may run as another user than whoever manages keys.

    Raises:
        ConfigError: the file could not be written, or not with its owner and group; it is unchanged. Or it
            was written, but a power cut may undo that; the sentence says which.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text = "".join(record.model_dump_json() + "\n" for record in records)
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            if path.exists():
                _copy_owner_and_mode(path, handle)
            os.fsync(handle)
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: the keys cannot be written ({error.strerror}).") from None
    finally:
        draft.unlink(missing_ok=True)
    try:
        flush(path.parent)  # else a power cut could bring a revoked key back
    except OSError as error:
        raise ConfigError(
            f"{path}: the keys were changed, but a power cut may undo the change ({error.strerror}); "
            "'triage-server keys list' shows the present keys."
        ) from None


def _resolve_links(path: Path) -> Path:
    """The file itself: replacing a link would leave the server with the old file.

    Raises:
        ConfigError: the links form a loop.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # Python versions differ in which
        raise ConfigError(f"{path}: the keys cannot be read ({error}).") from None


def _copy_owner_and_mode(path: Path, handle: int) -> None:
    """Give the open file the owner, group and mode of the file that it will replace."""
    before, draft = path.stat(), os.fstat(handle)
    try:
        if (draft.st_uid, draft.st_gid) != (before.st_uid, before.st_gid):
            os.fchown(handle, before.st_uid, before.st_gid)
        os.fchmod(handle, stat.S_IMODE(before.st_mode))
    except OSError as error:
        raise ConfigError(
            f"{path}: belongs to user {before.st_uid} and group {before.st_gid}, which this user cannot "
            f"give to a new file ({error.strerror}); a server that reads the file would lose access to "
            "it. Nothing was changed: run this as that user in that group, or as root."
        ) from None


def _file_state(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
