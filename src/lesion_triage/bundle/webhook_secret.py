"""The secret that signs a delivered answer, parsed alike by server and receiver. Imports nothing of ours.

With an empty or short secret anyone could make the signature.
"""

from __future__ import annotations

import base64
import binascii
import secrets

PREFIX = "whsec_"
MIN_BYTES, MAX_BYTES = 24, 64
"""Limits of the Standard Webhooks specification 1.0.0."""


def new_secret() -> str:
    """256 random bits, in the form that receivers and the secret file hold them."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def decode_secret(secret: str) -> bytes | None:
    """Decode a secret to its key.

    Args:
        secret: base64 with the prefix ``whsec_``, or base64 alone.

    Returns:
        24 to 64 bytes; None: not base64, or of another length.
    """
    try:
        key = binascii.a2b_base64(secret.removeprefix(PREFIX).encode("ascii"), strict_mode=True)
    except ValueError:
        return None
    return key if MIN_BYTES <= len(key) <= MAX_BYTES else None
