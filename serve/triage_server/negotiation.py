"""Content negotiation: the language of an answer, and whether it may come later.

Imports the standard library. Language lookup follows RFC 4647, section 3.4, with the weights of RFC 9110,
section 12.5.4; preferences follow RFC 7240.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_RANGE = re.compile(
    r"(?P<tag>\*|[a-z]{1,8}(?:-[a-z0-9]{1,8})*)(?:\s*;\s*q=(?P<weight>0(?:\.\d{0,3})?|1(?:\.0{0,3})?))?"
)
_MAX_RANGES = 32


def prefers(headers: Sequence[str], preference: str) -> bool:
    """Whether a Prefer header names this preference, with any parameters."""
    named = ",".join(headers).lower().split(",")[:_MAX_RANGES]
    return any(one.split(";")[0].split("=")[0].strip() == preference for one in named)


def language_for(header: str, offered: Sequence[str], default: str) -> str:
    """The language to answer in.

    An invalid header is not refused: an answer in the default language serves a clinician better than none.

    Args:
        header: value of Accept-Language; empty if there was none.
        offered: BCP 47 tags.
        default: one of them.
    """
    known = {tag.lower(): tag for tag in offered}
    wanted: list[tuple[float, str]] = []
    for part in header.lower().split(",")[:_MAX_RANGES]:
        match = _RANGE.fullmatch(part.strip())
        if match and (weight := float(match["weight"] or 1)) > 0:
            wanted.append((weight, match["tag"]))
    for _, tag in sorted(wanted, key=lambda pair: -pair[0]):
        if tag == "*":
            return default
        subtags = tag.split("-")
        while subtags:
            if found := known.get("-".join(subtags)):
                return found
            subtags.pop()
    return default
