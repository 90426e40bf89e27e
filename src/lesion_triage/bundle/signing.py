"""Who made a bundle: an Ed25519 signature beside the header, and the public keys that a site trusts.

Imports cryptography, the store and the document. Only the hash of ``bundle.json`` is signed; through the
header it covers every file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import StringConstraints

from lesion_triage.bundle.document import Document, Sha256, canonical_json, sha256_of, timestamp
from lesion_triage.bundle.files import write_atomically
from lesion_triage.bundle.store import SIGNATURE_FILE, Bundle, read_document
from lesion_triage.errors import BundleError, SignatureError

PRIVATE_SUFFIX = ".pem"
PUBLIC_SUFFIX = ".pub.pem"

_MAX_PASSPHRASE_BYTES = 1023
"""OpenSSL's limit."""
_DOMAIN_PREFIX = b"lesion-triage bundle signature, version 1\n"
"""Prefix of the signed statement (domain separation): no signature made for another purpose fits here."""


class Signature(Document):
    """``signature.json``: the only file of a bundle that the header does not name."""

    schema_version: Literal[1] = 1
    algorithm: Literal["ed25519"] = "ed25519"
    key_id: Sha256
    """Fingerprint of the public key: SHA-256 of its DER form (SubjectPublicKeyInfo)."""
    bundle_sha256: Sha256
    """Hash of ``bundle.json``."""
    signed_at: str
    """UTC, ISO 8601; as claimed by the signer."""
    signature: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
    """Over the purpose and the canonical JSON of every other field."""

    def statement(self) -> bytes:
        """The bytes that are signed."""
        return _DOMAIN_PREFIX + canonical_json(self.model_dump(mode="json", exclude={"signature"})).encode()


def key_id_of(key: Ed25519PublicKey) -> str:
    """Fingerprint of a public key; ``openssl pkey -pubin -outform DER | sha256sum`` prints the same."""
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return sha256_of(encoded)


def sign(
    bundle: Bundle, key: Ed25519PrivateKey, *, replace: bool = False, signed_at: datetime | None = None
) -> Signature:
    """Write the signature of an opened bundle into its folder: what was verified in memory is what is signed.

    Args:
        bundle: to be signed.
        key: the signer's.
        replace: overwrite an existing signature.
        signed_at: with time zone; default: the environment's SOURCE_DATE_EPOCH, else the current time.

    Raises:
        SignatureError: it is signed already, or the folder cannot be written.
    """
    path = bundle.folder / SIGNATURE_FILE
    if bundle.signature is not None and not replace:
        raise SignatureError(f"{path}: the bundle is already signed; replace the signature with --replace.")
    draft = Signature(
        key_id=key_id_of(key.public_key()),
        bundle_sha256=bundle.sha256,
        signed_at=timestamp(signed_at),
        signature="0" * 128,
    )
    signed = draft.model_copy(update={"signature": key.sign(draft.statement()).hex()})
    try:
        write_atomically(path, signed.to_json().encode())
    except OSError as error:
        raise SignatureError(f"{path}: cannot be written ({error.strerror}).") from None
    return signed


def read_signature(bundle: Bundle) -> Signature:
    """Parse the signature of a bundle without checking it; ``verify`` does that.

    Raises:
        SignatureError: there is none, it is malformed, or it was made for another bundle.
    """
    where = bundle.folder / SIGNATURE_FILE
    if bundle.signature is None:
        raise SignatureError(f"{where}: missing, the bundle is not signed; sign it with lesion-triage sign.")
    try:
        signature = read_document(Signature, bundle.signature, where)
    except BundleError as error:
        raise SignatureError(str(error)) from None
    if signature.bundle_sha256 != bundle.sha256:
        raise SignatureError(
            f"{where}: is the signature of bundle {signature.bundle_sha256[:16]}…, expected "
            f"{bundle.sha256[:16]}…; a bundle that was made again must be signed again."
        )
    return signature


def verify(bundle: Bundle, trusted: Mapping[str, Ed25519PublicKey]) -> Signature:
    """Check that one of the trusted keys signed exactly this opened bundle, and return the signature.

    Raises:
        SignatureError: no signature, one by another key, or one that does not verify.
    """
    signature = read_signature(bundle)
    where = bundle.folder / SIGNATURE_FILE
    key = trusted.get(signature.key_id)
    if key is None:
        raise SignatureError(
            f"{where}: signed with key {signature.key_id[:16]}…, which is none of the {len(trusted)} trusted "
            "ones; add the signer's public key if you trust the signer."
        )
    try:
        key.verify(bytes.fromhex(signature.signature), signature.statement())
    except InvalidSignature:
        raise SignatureError(
            f"{where}: the signature does not match; bundle or signature was changed, fetch both again."
        ) from None
    return signature


def read_trusted_keys(path: Path) -> dict[str, Ed25519PublicKey]:
    """Read public keys, by fingerprint.

    Args:
        path: one PEM file, or a folder whose ``*.pem`` files are all public keys.

    Raises:
        SignatureError: no key there, an unreadable folder, or a file that is not an Ed25519 public key.
    """
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
    except OSError as error:  # glob would treat it as an empty folder
        raise SignatureError(f"{path}: cannot be listed ({error.strerror}).") from None
    files = [file for file in files if file == path or file.name.endswith(".pem")]
    if not files:
        raise SignatureError(f"{path}: no *.pem file, expected the public keys of those you trust.")
    keys = [_read_public_key(file) for file in files]
    return {key_id_of(key): key for key in keys}


def _read_public_key(file: Path) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(file.read_bytes())
    except OSError as error:
        raise SignatureError(f"{file}: cannot be read ({error.strerror}).") from None
    except (ValueError, UnsupportedAlgorithm):
        raise SignatureError(
            f"{file}: not a public key in PEM; expected the file that ends in {PUBLIC_SUFFIX}."
        ) from None
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError(f"{file}: a {type(key).__name__}, expected an Ed25519 public key.")
    return key


def read_private_key(file: Path, passphrase: bytes | None) -> Ed25519PrivateKey:
    """Read the signer's private key.

    Raises:
        SignatureError: unreadable, not an Ed25519 private key, or a wrong passphrase.
    """
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), passphrase)
    except OSError as error:
        raise SignatureError(f"{file}: cannot be read ({error.strerror}).") from None
    except TypeError:
        problem = "is encrypted and no passphrase was given" if passphrase is None else "is not encrypted"
        raise SignatureError(f"{file}: the key {problem}.") from None
    except (ValueError, UnsupportedAlgorithm):
        raise SignatureError(
            f"{file}: not a private key in PEM, or the wrong passphrase; make one with lesion-triage keygen."
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{file}: a {type(key).__name__}, expected an Ed25519 private key.")
    return key


def generate_key_pair(stem: Path, passphrase: bytes | None) -> tuple[Path, Path, str]:
    """Make a key pair: ``stem.pem``, readable by its owner only, and ``stem.pub.pem``, for everyone.

    Returns:
        The two paths and the fingerprint.

    Raises:
        SignatureError: ``stem`` names no file, the passphrase is too long, one of the files exists, or they
            cannot be written; neither was left behind.
    """
    if stem.name in ("", ".."):
        raise SignatureError(f"{stem}: expected the path of the keys without extension, such as maker.")
    private, public = (stem.with_name(stem.name + suffix) for suffix in (PRIVATE_SUFFIX, PUBLIC_SUFFIX))
    if found := [path for path in (private, public) if os.path.lexists(path)]:
        raise SignatureError(f"{found[0]}: exists; a key is never overwritten, choose another name.")
    key = Ed25519PrivateKey.generate()
    if passphrase and len(passphrase) > _MAX_PASSPHRASE_BYTES:
        raise SignatureError(
            f"The passphrase has {len(passphrase):,} bytes, expected at most {_MAX_PASSPHRASE_BYTES:,}."
        )
    encryption = (
        serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    )
    private_pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    public_pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    created = False
    try:
        # 0600 from the start: a key that was readable for a moment may have been read.
        handle = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        created = True
        with os.fdopen(handle, "wb") as stream:
            stream.write(private_pem)
            stream.flush()
            os.fsync(stream.fileno())  # as the public one: a power cut must not leave a key nobody can use
        write_atomically(public, public_pem)
    except OSError as error:
        if created:  # half a pair would block the next attempt; a file that is not ours stays
            private.unlink(missing_ok=True)
        raise SignatureError(f"{stem}: the keys cannot be written ({error.strerror}).") from None
    return private, public, key_id_of(key.public_key())
