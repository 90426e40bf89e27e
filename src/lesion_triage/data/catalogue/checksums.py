"""Whether a file is the one that was published. Imports the entries only."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lesion_triage.data.catalogue.entry import RemoteFile

_CHUNK = 1 << 20


def describe_mismatch(wanted: RemoteFile, size_bytes: int, sha256: str, md5: str) -> str:
    """In which respects a file differs from what was published, in words; empty if in none."""
    for what, published, found in (
        ("bytes", wanted.size_bytes, size_bytes),
        ("SHA-256", wanted.sha256, sha256),
        ("MD5", wanted.md5, md5),
    ):
        if published is not None and published != found:
            return f"expected {what} {published} ({wanted.checksum_from or 'as published'}), found {found}"
    return ""


def sha256_and_md5(path: Path) -> tuple[str, str]:
    """SHA-256 and MD5 of a file, in one pass. Some publishers state MD5 only; it detects accidents."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK):
            sha256.update(block)
            md5.update(block)
    return sha256.hexdigest(), md5.hexdigest()
