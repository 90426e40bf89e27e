"""The secret that signs a delivered answer, as server and receiver both read it. Imports nothing of ours.

An empty or short one would make a signature that anybody can make.
"""

from __future__ import annotations

import base64
import binascii
import secrets

PREFIX = "whsec_"
FEWEST_BYTES, MOST_BYTES = 24, 64
"""Of the Standard Webhooks specification 1.0.0."""


def new_secret() -> str:
    """256 random bits, as receivers and the file of a secret hold them."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def key_of(secret: str) -> bytes | None:
    """The key that a secret is.

    Args:
        secret: base64 behind ``whsec_``, or base64 alone.

    Returns:
        24 to 64 bytes; None: it is no base64, or of another length.
    """
    try:
        key = binascii.a2b_base64(secret.removeprefix(PREFIX).encode("ascii"), strict_mode=True)
    except ValueError:
        return None
    return key if FEWEST_BYTES <= len(key) <= MOST_BYTES else None
