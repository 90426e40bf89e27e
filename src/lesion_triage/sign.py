"""``lesion-triage keygen``, ``sign`` and ``verify``: who made a bundle. Imports the bundle package only."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from lesion_triage.bundle import signing
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import open_bundle
from lesion_triage.errors import SignatureError

PASSPHRASE = "LESION_TRIAGE_KEY_PASSPHRASE"  # noqa: S105 - the name of a variable


def add_keygen_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``keygen``."""
    parser.add_argument(
        "stem", type=Path, help="path without extension: STEM.pem and STEM.pub.pem are written"
    )
    _passphrase_argument(parser)


def keygen_main(arguments: argparse.Namespace) -> int:
    """Make a key pair and print the fingerprint."""
    private, public, key_id = signing.generate_key_pair(arguments.stem, _passphrase(arguments))
    print(f"{private}: keep it secret; whoever has it can sign in your name.")
    print(f"{public}: distribute it; send the fingerprint through another channel.")
    print(f"fingerprint {key_id}")
    return 0


def add_sign_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``sign``."""
    parser.add_argument("bundle", type=Path, help="folder of a sealed bundle")
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="private key, from keygen")
    parser.add_argument("--replace", action="store_true", help="replace the existing signature")
    _passphrase_argument(parser)


def sign_main(arguments: argparse.Namespace) -> int:
    """Verify the bundle, run its self-test, write ``signature.json``."""
    key = signing.read_private_key(arguments.key, _passphrase(arguments))
    bundle = open_bundle(arguments.bundle)
    Scorer(bundle).self_test()
    signature = signing.sign(bundle, key, replace=arguments.replace)
    print(f"signed bundle {signature.bundle_sha256} with key {signature.key_id}")
    return 0


def add_verify_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``verify``."""
    parser.add_argument("bundle", type=Path, help="folder of a sealed bundle")
    parser.add_argument(
        "--trusted", type=Path, required=True, metavar="PATH", help="a public key, or a folder of them"
    )


def verify_main(arguments: argparse.Namespace) -> int:
    """Check hashes, signature and self-test, as the server does before it listens."""
    bundle = open_bundle(arguments.bundle)
    signature = signing.verify(bundle, signing.read_trusted_keys(arguments.trusted))
    Scorer(bundle).self_test()
    print(f"bundle {bundle.header.name} {bundle.sha256}")
    print(f"signed {signature.signed_at} with key {signature.key_id}")
    print("every file as sealed, signature by a trusted key, self-test passed")
    if bundle.header.synthetic:
        print("this bundle was made from drawn pictures; it must never be used on people")
    return 0


def _passphrase_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--passphrase-file",
        type=Path,
        metavar="FILE",
        help=f"file whose first line is the private key's passphrase; without it {PASSPHRASE}, else no "
        "encryption",
    )


def _passphrase(arguments: argparse.Namespace) -> bytes | None:
    """Never a command-line argument: other users of the machine can read those."""
    if arguments.passphrase_file is None:
        secret = os.environ.get(PASSPHRASE)
        if secret == "":
            raise SignatureError(f"{PASSPHRASE} is set and empty; give the passphrase, or unset it for none.")
        return None if secret is None else os.fsencode(secret)  # its bytes as they are, UTF-8 or not
    try:
        lines = arguments.passphrase_file.read_bytes().splitlines()
    except OSError as error:
        raise SignatureError(f"{arguments.passphrase_file}: cannot be read ({error.strerror}).") from None
    if not lines or not lines[0]:
        raise SignatureError(f"{arguments.passphrase_file}: expected the passphrase in its first line.")
    passphrase: bytes = lines[0]
    return passphrase
