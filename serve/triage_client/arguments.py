"""The caller's arguments, checked before anything is sent. Imports httpx and the protocol's errors.

A wrong argument raises the same error as a lost connection, so one ``except TriageError`` queues the case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePath

import httpx

from lesion_triage.bundle.history import History
from triage_client.protocol import UnansweredError

Photograph = bytes | Path
"""The file's bytes, or its path. Its name is not sent."""
_KEY = re.compile(r"[\x21-\x7e]+")
_MAX_PORT = 65535
_LANGUAGE = re.compile(r"[\x20-\x7e]+")


def check_server(url: object) -> None:
    """Refuse what is not a server's address.

    Raises:
        UnansweredError: expected an http or https URL with a host.
    """
    try:
        parsed = httpx.URL(url) if isinstance(url, str | httpx.URL) else None
        if parsed is not None:
            parsed.host.encode("idna")  # as the resolver does: an empty or overlong label raises
    except (httpx.InvalidURL, UnicodeError):
        parsed = None
    if (
        parsed is None
        or parsed.scheme not in ("http", "https")
        or not parsed.host
        or (parsed.port or 0) > _MAX_PORT
    ):
        raise _not_sent_error("url: expected one such as https://triage.example.org, with its scheme")


def check_headers(key: object, language: object) -> None:
    """Refuse what cannot be sent in a header. The key is never quoted.

    Args:
        key: API key or token; None or empty: send none.
        language: as in Accept-Language; None or empty: ask for none.

    Raises:
        UnansweredError: key or language holds a character that no header can.
    """
    if key and not (isinstance(key, str) and _KEY.fullmatch(key)):
        raise _not_sent_error(
            "key: expected letters, digits and signs of ASCII, found others, a space or a line break"
        )
    if language and not (isinstance(language, str) and _LANGUAGE.fullmatch(language)):
        raise _not_sent_error("language: expected one such as 'de' or 'de-CH, de;q=0.9'")


def read_photographs(images: object, history: object) -> list[bytes]:
    """The files of a case's photographs; a path is read.

    Args:
        images: photographs, at least one.
        history: what is known beside them.

    Raises:
        UnansweredError: there is no photograph, a file cannot be read, or an argument has another type.
    """
    if not isinstance(history, History):
        raise _not_sent_error(f"history: expected a History, found {type(history).__name__}")
    if isinstance(images, str | bytes | PurePath) or not isinstance(images, Iterable):
        raise _not_sent_error(f"images: expected a list of bytes or Path, found one {type(images).__name__}")
    files = [_file_bytes(one, index) for index, one in enumerate(images)]
    if not files:
        raise _not_sent_error("images: expected at least one photograph, found none")
    return files


def check_callback(callback: object) -> None:
    """Refuse what is not a callback's name: without one, the answer would come at once and be lost.

    Raises:
        UnansweredError: not text, such as the None of a setting that is missing.
    """
    if not isinstance(callback, str):
        raise _not_sent_error(f"callback: expected its name, found {type(callback).__name__}")


def _file_bytes(photograph: object, index: int) -> bytes:
    if isinstance(photograph, bytes):
        return photograph
    if not isinstance(photograph, Path):
        kind = type(photograph).__name__
        raise _not_sent_error(f"images[{index}]: expected the file's bytes or a Path, found {kind}")
    try:
        return photograph.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise _not_sent_error(f"images[{index}]: the file cannot be read ({type(error).__name__})") from error


def _not_sent_error(sentence: str) -> UnansweredError:
    return UnansweredError(f"{sentence}; nothing was sent, so queue the case as of band 1.")
