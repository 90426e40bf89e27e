"""Sealing and opening a bundle folder. Imports the schema, the file writer and the exception tree.

A seal shows that nothing changed since it was made. The signature shows who made it: ``bundle.signing``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from pydantic import ValidationError

from lesion_triage import __version__
from lesion_triage.bundle.certificate import Certificate
from lesion_triage.bundle.document import Document, canonical_json, first_problem, sha256_of, timestamp
from lesion_triage.bundle.files import flush, temporary_path, write_atomically
from lesion_triage.bundle.fingerprints import UsedPictures
from lesion_triage.bundle.schema import (
    SCHEMA_VERSION,
    Header,
    ModelFacts,
    PixelSpec,
    Policy,
    SealedFile,
    SelfTest,
)
from lesion_triage.errors import BundleError

HEADER_FILE = "bundle.json"
POLICY_FILE = "policy.json"
CERTIFICATE_FILE = "certificate.json"
GRAPH_FILE = "model.onnx"
MODEL_CARD_FILE = "MODEL_CARD.md"
SELFTEST_FILE = "selftest.json"
SELFTEST_FOLDER = "selftest"
FITTED_FILE = "fitted.txt"
CERTIFIED_FILE = "certified.txt"
SIGNATURE_FILE = "signature.json"
"""Beside the header, not in it: it signs the header's hash. ``bundle.signing`` reads it."""

_HEADER_SIZES, _SIGNATURE_SIZES = range(4_000_001), range(10_001)
"""Allowed sizes of the two files that no header lists. A header usually has a few kB, a signature 600 B."""
_PICTURE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*\.(png|jpg|webp)")

_Document = TypeVar("_Document", bound=Document)


@dataclass(frozen=True)
class Bundle:
    """A verified bundle, in memory: its folder is never read again."""

    folder: Path
    header: Header
    policy: Policy
    certificate: Certificate
    selftest: SelfTest
    graph: bytes
    """The ONNX file: exactly the bytes that were hashed."""
    sha256: str
    """Hash of ``bundle.json``, and through it of every file."""
    selftest_pictures: Mapping[str, bytes]
    """By the name that ``SelfTestCase.file`` gives."""
    model_card: str
    """Markdown, for people."""
    used_pictures: UsedPictures
    """Fingerprints of the pictures that model, calibrator and thresholds were made from."""
    signature: bytes | None = None
    """``signature.json`` as it was read, unchecked; None if the bundle is not signed."""


def seal(
    folder: Path,
    *,
    name: str,
    model: ModelFacts,
    pixels: PixelSpec,
    policy: Policy,
    certificate: Certificate,
    graph: bytes,
    model_card: str,
    selftest: SelfTest,
    selftest_pictures: Mapping[str, bytes],
    synthetic: bool,
    data_citation: Sequence[str],
    used_pictures: UsedPictures,
    created_at: datetime | None = None,
) -> Bundle:
    """Write a bundle and open it again: what is returned has passed every check that a reader makes.

    The files are written in a hidden folder beside ``folder``, the header last, and the folder is then
    renamed: ``folder`` holds the whole bundle or does not exist. The same arguments give the same bytes.

    Args:
        folder: where the bundle goes; must not exist.
        name: for people; appears in every answer.
        model: facts about the graph.
        pixels: how a file becomes pixels.
        policy: from logit to disposition.
        certificate: issued for this policy and this graph.
        graph: ONNX file.
        model_card: Markdown.
        selftest: expectations for ``selftest_pictures``, at least one.
        selftest_pictures: picture files by name, such as ``dark.png``; the names are those in ``selftest``.
        synthetic: True if the model saw drawn pictures only.
        data_citation: licence and citation of every dataset behind the numbers.
        used_pictures: fingerprints of the pictures that model, calibrator and thresholds were made from.
        created_at: with time zone; default: the environment's SOURCE_DATE_EPOCH, else the current time.

    Raises:
        BundleError: ``folder`` exists, or the parts contradict each other.
    """
    _check_certificate(str(folder), certificate, policy, sha256_of(graph))
    _check_selftest(str(folder), selftest, selftest_pictures)
    contents = {
        POLICY_FILE: policy.to_json().encode(),
        CERTIFICATE_FILE: certificate.to_json().encode(),
        GRAPH_FILE: graph,
        MODEL_CARD_FILE: model_card.encode(),
        SELFTEST_FILE: selftest.to_json().encode(),
        FITTED_FILE: used_pictures.fitted.encode(),
        CERTIFIED_FILE: used_pictures.certified.encode(),
    }
    contents |= {f"{SELFTEST_FOLDER}/{file}": selftest_pictures[file] for file in sorted(selftest_pictures)}
    unsealed = Header(
        name=name,
        created_at=timestamp(created_at),
        made_with=f"lesion-triage {__version__}",
        synthetic=synthetic,
        model=model,
        pixels=pixels,
        data_citation=tuple(data_citation),
        files={
            file: SealedFile(sha256=sha256_of(content), size_bytes=len(content))
            for file, content in contents.items()
        },
        seal="0" * 64,
    )
    header = unsealed.model_copy(update={"seal": _compute_seal(unsealed)})
    _write_folder(folder, {**contents, HEADER_FILE: header.to_json().encode()})
    return open_bundle(folder)


def open_bundle(folder: Path) -> Bundle:
    """Read a bundle and verify all of it. Each file is read once; the hashed bytes are what is returned.

    Raises:
        BundleError: the folder cannot be read; a file is missing, extra, a link, or changed by a single bit;
            the header has another schema version, is not canonical JSON or is not the one that was sealed;
            the certificate was issued for another policy or graph.
    """
    try:
        if not folder.is_dir():
            raise BundleError(f"{folder}: no such folder, expected a bundle; seal one with export.")
        present = set(_list_files(folder))
    except OSError as error:
        raise BundleError(
            f"{folder}: cannot be listed ({error.strerror}); let this account read it and the folder in it."
        ) from None
    if HEADER_FILE not in present:
        raise BundleError(
            f"{folder}: no {HEADER_FILE}, which is written last; the bundle is incomplete, copy it again."
        )
    raw_header = _read_limited(folder, HEADER_FILE, _HEADER_SIZES)
    header = _parse_header(folder, raw_header)
    _check_names(folder, present - {HEADER_FILE, SIGNATURE_FILE}, set(header.files))
    contents = {file: _read_sealed(folder, file, sealed) for file, sealed in sorted(header.files.items())}
    policy = read_document(Policy, contents[POLICY_FILE], folder / POLICY_FILE)
    certificate = read_document(Certificate, contents[CERTIFICATE_FILE], folder / CERTIFICATE_FILE)
    selftest = read_document(SelfTest, contents[SELFTEST_FILE], folder / SELFTEST_FILE)
    pictures = {
        file.removeprefix(f"{SELFTEST_FOLDER}/"): content
        for file, content in contents.items()
        if file.startswith(f"{SELFTEST_FOLDER}/")
    }
    _check_certificate(str(folder), certificate, policy, header.files[GRAPH_FILE].sha256)
    _check_selftest(str(folder), selftest, pictures)
    return Bundle(
        folder=folder,
        header=header,
        policy=policy,
        certificate=certificate,
        selftest=selftest,
        graph=contents[GRAPH_FILE],
        sha256=sha256_of(raw_header),
        selftest_pictures=MappingProxyType(pictures),
        model_card=contents[MODEL_CARD_FILE].decode(errors="replace"),
        used_pictures=_parse_used_pictures(folder, contents),
        signature=_read_limited(folder, SIGNATURE_FILE, _SIGNATURE_SIZES)
        if SIGNATURE_FILE in present
        else None,
    )


def _check_certificate(where: str, certificate: Certificate, policy: Policy, graph_sha256: str) -> None:
    """Check that the certificate belongs to this policy and this graph."""
    for what, certified, found in (
        ("threshold", certificate.threshold, policy.threshold),
        ("aggregation", certificate.aggregation, policy.aggregation),
        ("graph", certificate.model_sha256, graph_sha256),
        ("policy", certificate.policy_sha256, policy.sha256()),
    ):
        if certified != found:
            raise BundleError(
                f"{where}: the certificate was issued for {what} {certified}, the bundle has {found}; "
                "certify this policy and this graph together."
            )


def _check_selftest(where: str, selftest: SelfTest, pictures: Mapping[str, bytes]) -> None:
    """Check that the self-test covers exactly these pictures, and at least one."""
    expected = sorted(case.file for case in selftest.cases)
    if not expected or expected != sorted(pictures):
        raise BundleError(
            f"{where}: the self-test expects the pictures {expected}, found {sorted(pictures)}; "
            "expected one picture per case and at least one case."
        )
    for file in expected:
        if not _PICTURE_NAME.fullmatch(file):
            raise BundleError(
                f"{where}: self-test picture '{file}', expected a name of a-z, 0-9, '_' and '-' "
                "with .png, .jpg or .webp."
            )


def _parse_used_pictures(folder: Path, contents: Mapping[str, bytes]) -> UsedPictures:
    try:
        return UsedPictures(
            contents[FITTED_FILE].decode("latin-1"), contents[CERTIFIED_FILE].decode("latin-1")
        )
    except BundleError as error:
        raise BundleError(f"{folder}: {error}") from None


def _compute_seal(header: Header) -> str:
    return sha256_of(canonical_json(header.model_dump(mode="json", exclude={"seal"})).encode())


def _write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write all files in the order given, then rename the folder to its final name."""
    if os.path.lexists(folder):
        raise BundleError(f"{folder}: exists; a sealed bundle is never overwritten, choose another folder.")
    temporary = temporary_path(folder)
    try:
        (temporary / SELFTEST_FOLDER).mkdir(parents=True)
        for file, content in contents.items():
            write_atomically(temporary / file, content)
        for directory in (temporary / SELFTEST_FOLDER, temporary):
            flush(directory)
        temporary.rename(folder)
        flush(folder.parent)
    except OSError as error:
        raise BundleError(
            f"{folder}: the bundle could not be written ({error}); nothing was left behind."
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _list_files(folder: Path, prefix: str = "") -> Iterator[str]:
    """Names of all files, relative, with forward slashes.

    Raises:
        BundleError: a link or a device, which could change after verification, or an unexpected folder.
    """
    for path in sorted((folder / prefix).iterdir()):
        name, mode = prefix + path.name, path.lstat().st_mode
        if stat.S_ISREG(mode):
            yield name
        elif stat.S_ISDIR(mode) and name == SELFTEST_FOLDER:
            yield from _list_files(folder, f"{SELFTEST_FOLDER}/")
        else:
            raise BundleError(
                f"{path}: {_file_kind(mode)} in a bundle, expected plain files only; remove it."
            )


def _file_kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a folder" if stat.S_ISDIR(mode) else "a device or pipe"


def _check_names(folder: Path, present: set[str], sealed: set[str]) -> None:
    required = {
        POLICY_FILE,
        CERTIFICATE_FILE,
        GRAPH_FILE,
        MODEL_CARD_FILE,
        SELFTEST_FILE,
        FITTED_FILE,
        CERTIFIED_FILE,
    }
    if missing := sorted((sealed | required) - present):
        raise BundleError(f"{folder}: {', '.join(missing)} missing; the bundle is incomplete, copy it again.")
    if extra := sorted(present - sealed):
        raise BundleError(f"{folder}: {', '.join(extra)} was not sealed; remove it or copy the bundle again.")
    if unknown := sorted(file for file in sealed - required if not file.startswith(f"{SELFTEST_FOLDER}/")):
        raise BundleError(
            f"{folder}: {', '.join(unknown)} does not belong in a bundle; seal it again with export."
        )


def _read_limited(folder: Path, file: str, sizes: range) -> bytes:
    """Read a file whose size in bytes is one of these; any other is refused before it is in memory."""
    try:
        # O_NOFOLLOW: the file may have become a link since it was listed.
        handle = os.open(
            folder / file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        )
        with os.fdopen(handle, "rb") as stream:
            found = os.fstat(handle).st_size
            content = stream.read(sizes.stop) if found in sizes else b""
    except OSError as error:
        raise BundleError(f"{folder / file}: cannot be read ({error}); copy the bundle again.") from None
    if found not in sizes or len(content) not in sizes:
        expected = f"{sizes[0]} bytes as sealed" if len(sizes) == 1 else f"at most {sizes[-1]:,} bytes"
        raise BundleError(
            f"{folder / file}: expected {expected}, found {max(found, len(content))}; copy the bundle again."
        )
    return content


def _read_sealed(folder: Path, file: str, sealed: SealedFile) -> bytes:
    content = _read_limited(folder, file, range(sealed.size_bytes, sealed.size_bytes + 1))
    if (found := sha256_of(content)) != sealed.sha256:
        raise BundleError(
            f"{folder / file}: changed since it was sealed (expected SHA-256 {sealed.sha256[:16]}…, "
            f"found {found[:16]}…); copy the bundle again."
        )
    return content


def _parse_header(folder: Path, raw: bytes) -> Header:
    path = folder / HEADER_FILE
    try:
        tree = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not readable as JSON ({error}); copy the bundle again.") from None
    version = tree.get("schema_version") if isinstance(tree, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{path}: schema_version is {version!r}, this program reads {SCHEMA_VERSION}; use the release "
            "that sealed the bundle or seal it again."
        )
    header = read_document(Header, raw, path)
    if header.seal != _compute_seal(header):
        raise BundleError(f"{path}: the seal does not match; the header changed since it was sealed.")
    return header


def read_document(kind: type[_Document], raw: bytes, path: Path) -> _Document:
    """Parse a document and require canonical JSON, so that one value has one hash.

    Raises:
        BundleError: not a valid document of this kind, or not canonical.
    """
    try:
        document = kind.model_validate_json(raw)
    except ValidationError as error:
        raise BundleError(f"{path}: not a valid {kind.__name__.lower()} ({first_problem(error)}).") from None
    if document.to_json().encode() != raw:
        raise BundleError(f"{path}: not in canonical JSON; the file was not written by export.")
    return document
