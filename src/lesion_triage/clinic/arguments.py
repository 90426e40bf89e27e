"""Arguments and output files that the verbs of this package share. Imports bundle.files and the errors."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from lesion_triage.bundle.files import write_atomically
from lesion_triage.errors import ConfigError

_LONGEST_SITE = 100


def add_target(parser: argparse.ArgumentParser) -> None:
    """Add ``--target`` and ``--confidence``, for a certificate that is issued again."""
    parser.add_argument("--target", type=_share, help="sensitivity (default: that of the bundle)")
    parser.add_argument("--confidence", type=_share, help="one-sided (default: that of the bundle)")


def add_site(parser: argparse.ArgumentParser) -> None:
    """Add ``--site``."""
    parser.add_argument(
        "--site", type=_site, required=True, help="name of the clinic, printed in the certificate"
    )


def require_place(option: str, path: Path, *, folder: bool = False) -> None:
    """Make sure, before anything is scored or a look is spent, that the result can be written.

    Args:
        option: that named the path, for the error.
        path: of the file or folder to be written.
        folder: a bundle is to be sealed there: it must not exist; missing parent folders are made later.

    Raises:
        ConfigError: ``path`` is a folder where a file is expected, exists where a new folder is expected, or
            nothing can be written beside it.
    """
    if folder and path.exists():
        raise ConfigError(
            f"{option} {path}: exists; a sealed bundle is never overwritten, choose another folder."
        )
    if path.is_dir() and not folder:
        raise ConfigError(f"{option} {path}: is a folder; expected the name of a file.")
    beside = path.absolute().parent
    while folder and not beside.exists():
        beside = beside.parent
    try:
        with tempfile.TemporaryFile(dir=beside):
            pass
    except OSError as error:
        raise ConfigError(f"{option} {path}: cannot be written ({error.strerror}).") from None


def save(option: str, path: Path, content: bytes) -> None:
    """Write a result whole, or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise ConfigError(f"{option} {path}: cannot be written ({error.strerror}).") from None


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, such as 0.95, found '{text}'")
    return share


def one_line(text: str) -> str:
    """Free text for a certificate, without blanks around it. A line break could forge a line of its page.

    Raises:
        argparse.ArgumentTypeError: a line break or another character that cannot be printed.
    """
    if not text.isprintable():
        raise argparse.ArgumentTypeError("expected one line of printable characters")
    return text.strip()


def _site(text: str) -> str:
    if not 1 <= len(text.strip()) <= len(text) <= _LONGEST_SITE:
        raise argparse.ArgumentTypeError(
            f"expected a name of 1 to {_LONGEST_SITE} characters, found {len(text)}"
        )
    return one_line(text)
