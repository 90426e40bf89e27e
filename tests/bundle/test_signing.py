"""A signature says who made a bundle, covers every byte of it, and is believed only from a trusted key."""

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny_bundle as tiny
from lesion_triage.bundle import signing
from lesion_triage.bundle.store import open_bundle
from lesion_triage.errors import BundleError, SignatureError


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """Stem of a pair of keys."""
    signing.generate_key_pair(tmp_path / "maker", None)
    return tmp_path / "maker"


def private(pair: Path) -> Ed25519PrivateKey:
    return signing.read_private_key(pair.with_name(pair.name + ".pem"), None)


def trusted(pair: Path):
    return signing.read_trusted_keys(pair.with_name(pair.name + ".pub.pem"))


@pytest.fixture
def signed(tmp_path: Path, pair: Path) -> Path:
    """A signed bundle that a test may spoil."""
    bundle = tiny.make(tmp_path / "bundle")
    signing.sign(bundle, private(pair))
    return bundle.folder


def test_signed_bundle_is_verified_by_its_maker_s_public_key(signed: Path, pair: Path) -> None:
    signature = signing.verify(open_bundle(signed), trusted(pair))
    assert list(trusted(pair)) == [signature.key_id]


def test_signature_is_plain_ed25519_over_purpose_and_statement(signed: Path, pair: Path) -> None:
    """Checked by hand, with nothing of ours but the file."""
    text = (signed / "signature.json").read_text()
    lines = [line for line in text.splitlines(keepends=True) if '"signature":' not in line]
    value = next(line for line in text.splitlines() if '"signature":' in line).split('"')[3]
    message = b"lesion-triage bundle signature, version 1\n" + "".join(lines).encode()
    key = serialization.load_pem_public_key(pair.with_name("maker.pub.pem").read_bytes())
    key.verify(bytes.fromhex(value), message)  # type: ignore[call-arg, union-attr]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is the referee")
def test_fingerprint_is_the_one_that_openssl_prints(pair: Path) -> None:
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", f"{pair}.pub.pem", "-outform", "DER"],
        capture_output=True,
        check=True,
    ).stdout
    assert list(trusted(pair)) == [tiny.sha256_of(der)]


def test_signing_leaves_every_other_file_as_it_was(tmp_path: Path, pair: Path) -> None:
    before = tiny.make(tmp_path / "bundle")
    signing.sign(before, private(pair))
    after = open_bundle(before.folder)
    assert (after.sha256, after.graph, after.policy) == (before.sha256, before.graph, before.policy)
    assert before.signature is None


def test_same_bundle_key_and_time_give_the_same_signature(
    tmp_path: Path, pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    made = [signing.sign(tiny.make(tmp_path / name), private(pair)) for name in ("one", "other")]
    assert made[0] == made[1]
    assert made[0].signed_at == "1970-01-02T00:00:00Z"


def test_unsigned_bundle_is_refused(tmp_path: Path, pair: Path) -> None:
    with pytest.raises(SignatureError, match="not signed"):
        signing.verify(tiny.make(tmp_path / "bundle"), trusted(pair))


def test_bundle_signed_by_a_stranger_is_refused(signed: Path, tmp_path: Path) -> None:
    signing.generate_key_pair(tmp_path / "stranger", None)
    with pytest.raises(SignatureError, match="none of the 1 trusted"):
        signing.verify(open_bundle(signed), trusted(tmp_path / "stranger"))


def test_stranger_cannot_sign_under_the_maker_s_fingerprint(signed: Path, pair: Path, tmp_path: Path) -> None:
    signing.generate_key_pair(tmp_path / "stranger", None)
    genuine = signing.read_signature(open_bundle(signed))
    forged = private(tmp_path / "stranger").sign(genuine.statement()).hex()
    (signed / "signature.json").write_text(genuine.model_copy(update={"signature": forged}).to_json())
    with pytest.raises(SignatureError, match="does not match"):
        signing.verify(open_bundle(signed), trusted(pair))


def test_signature_of_another_bundle_is_refused(signed: Path, pair: Path, tmp_path: Path) -> None:
    other = tiny.make(tmp_path / "other", threshold=0.6).folder
    shutil.copy(signed / "signature.json", other)
    with pytest.raises(SignatureError, match="is the signature of bundle"):
        signing.verify(open_bundle(other), trusted(pair))


def test_signature_made_for_another_purpose_is_refused(signed: Path, pair: Path) -> None:
    genuine = signing.read_signature(open_bundle(signed))
    elsewhere = private(pair).sign(genuine.statement().split(b"\n", 1)[1]).hex()
    (signed / "signature.json").write_text(genuine.model_copy(update={"signature": elsewhere}).to_json())
    with pytest.raises(SignatureError, match="does not match"):
        signing.verify(open_bundle(signed), trusted(pair))


def test_every_flipped_byte_of_the_signature_is_found(signed: Path, pair: Path) -> None:
    file = signed / "signature.json"
    whole = file.read_bytes()
    for place in range(len(whole)):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << (place % 8)
        file.write_bytes(spoilt)
        with pytest.raises(SignatureError) as caught:
            signing.verify(open_bundle(signed), trusted(pair))
        assert "\n" not in str(caught.value)
    file.write_bytes(whole)
    signing.verify(open_bundle(signed), trusted(pair))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_flipped_bit_anywhere_in_a_signed_bundle_is_found(
    signed: Path, pair: Path, data: st.DataObject
) -> None:
    files = sorted(path for path in signed.rglob("*") if path.is_file())
    file = data.draw(st.sampled_from(files))
    whole = file.read_bytes()
    spoilt = bytearray(whole)
    spoilt[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        file.write_bytes(spoilt)
        with pytest.raises(BundleError):
            signing.verify(open_bundle(signed), trusted(pair))
    finally:
        file.write_bytes(whole)


def test_signature_that_is_a_link_is_refused(signed: Path, tmp_path: Path) -> None:
    moved = (signed / "signature.json").rename(tmp_path / "elsewhere.json")
    (signed / "signature.json").symlink_to(moved)
    with pytest.raises(BundleError, match="symbolic link"):
        open_bundle(signed)


def test_bundle_exchanged_since_it_was_verified_gets_no_signature_that_verifies(
    tmp_path: Path, pair: Path
) -> None:
    verified = tiny.make(tmp_path / "bundle")
    shutil.rmtree(verified.folder)
    tiny.make(verified.folder, threshold=0.6)
    signing.sign(verified, private(pair))
    with pytest.raises(SignatureError, match="is the signature of bundle"):
        signing.verify(open_bundle(verified.folder), trusted(pair))


def test_signature_is_replaced_only_if_asked(signed: Path, pair: Path, tmp_path: Path) -> None:
    signing.generate_key_pair(tmp_path / "new", None)
    with pytest.raises(SignatureError, match="already signed"):
        signing.sign(open_bundle(signed), private(tmp_path / "new"))
    signing.sign(open_bundle(signed), private(tmp_path / "new"), replace=True)
    signing.verify(open_bundle(signed), trusted(tmp_path / "new"))


# Keys


def test_private_key_is_for_its_owner_s_eyes_only(pair: Path) -> None:
    assert stat.S_IMODE(pair.with_name("maker.pem").stat().st_mode) == 0o600


def test_passphrase_is_needed_to_read_an_encrypted_key(tmp_path: Path) -> None:
    path, _, key_id = signing.generate_key_pair(tmp_path / "locked", b"correct horse")
    assert b"ENCRYPTED" in path.read_bytes()
    assert signing.key_id_of(signing.read_private_key(path, b"correct horse").public_key()) == key_id
    for wrong in (None, b"battery"):
        with pytest.raises(SignatureError):
            signing.read_private_key(path, wrong)


def test_key_is_never_overwritten(pair: Path) -> None:
    before = pair.with_name("maker.pem").read_bytes()
    with pytest.raises(SignatureError, match="never overwritten"):
        signing.generate_key_pair(pair, None)
    assert pair.with_name("maker.pem").read_bytes() == before


def test_both_keys_are_on_the_disk_before_they_are_said_to_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[int] = set()
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (flushed.add(os.fstat(handle).st_ino), fsync(handle)))
    private, public, _ = signing.generate_key_pair(tmp_path / "key", None)
    assert {private.stat().st_ino, public.stat().st_ino} <= flushed


def test_half_a_pair_is_not_left_and_the_next_attempt_is_not_refused_for_it(
    tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    with full_disk(50), pytest.raises(SignatureError, match="cannot be written"):
        signing.generate_key_pair(tmp_path / "key", None)  # in the middle of the private key
    long = "k" * (255 - len(".pub.pem"))  # so the public key's temporary name is longer than a name may be
    with pytest.raises(SignatureError, match="cannot be written"):
        signing.generate_key_pair(tmp_path / long, None)
    assert not list(tmp_path.iterdir())
    signing.generate_key_pair(tmp_path / "key", None)


def test_folder_of_keys_that_may_not_be_listed_is_not_called_empty(
    tmp_path: Path, ordinary_user: Callable[[], AbstractContextManager[None]]
) -> None:
    signing.generate_key_pair(tmp_path / "one", None)
    tmp_path.chmod(0o311)
    try:
        with ordinary_user(), pytest.raises(SignatureError, match=r"cannot be listed \(Permission denied"):
            signing.read_trusted_keys(tmp_path)
    finally:
        tmp_path.chmod(0o755)


def test_folder_of_public_keys_trusts_each_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "trusted"
    folder.mkdir()
    for name in ("one", "other"):
        _, public, _ = signing.generate_key_pair(tmp_path / name, None)
        shutil.copy(public, folder)
    assert len(signing.read_trusted_keys(folder)) == 2


def test_what_is_no_ed25519_public_key_is_not_trusted(tmp_path: Path, pair: Path) -> None:
    rsa = generate_private_key(65537, 2048).public_key()
    encoded = rsa.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "rsa.pem").write_bytes(encoded)
    (tmp_path / "empty").mkdir()
    for path, said in (
        (tmp_path / "rsa.pem", "expected an Ed25519 public key"),
        (pair.with_name("maker.pem"), "not a public key"),
        (tmp_path / "none.pem", "cannot be read"),
        (tmp_path / "empty", r"no \*\.pem file"),
    ):
        with pytest.raises(SignatureError, match=said):
            signing.read_trusted_keys(path)
