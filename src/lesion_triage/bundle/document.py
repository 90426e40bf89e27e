"""How every JSON document of this project is spelt and hashed. Imports pydantic and nothing of ours."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[FiniteFloat, Field(ge=0.0, le=1.0)]


def canonical_json(value: object) -> str:
    """One spelling for one value: sorted keys, two-space indent, no NaN, final newline."""
    return json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def sha256_of(data: bytes) -> str:
    """SHA-256 as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


class Document(BaseModel):
    """Immutable, strict about unknown fields, and written in canonical JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> str:
        """Canonical JSON text of this document."""
        return canonical_json(self.model_dump(mode="json"))

    def sha256(self) -> str:
        """Hash of the canonical JSON text."""
        return sha256_of(self.to_json().encode())
