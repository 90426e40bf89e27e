"""How the JSON documents of this project are serialised, dated and hashed. Imports pydantic and errors."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints, ValidationError

from lesion_triage.errors import BundleError

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[FiniteFloat, Field(ge=0.0, le=1.0)]


def canonical_json(value: object) -> str:
    """The one serialisation of a value: sorted keys, two-space indent, no NaN, final newline."""
    return json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def sha256_of(data: bytes) -> str:
    """SHA-256 as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def timestamp(created_at: datetime | None = None) -> str:
    """UTC, ISO 8601, whole seconds. Default: SOURCE_DATE_EPOCH if that is set, else the current time.

    Raises:
        BundleError: SOURCE_DATE_EPOCH is not a number, or ``created_at`` has no time zone.
    """
    if created_at is None:
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        try:
            created_at = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
        except (ValueError, OverflowError, OSError):
            raise BundleError(
                f"SOURCE_DATE_EPOCH is '{epoch}', expected seconds since 1970 as a whole number."
            ) from None
    if created_at.tzinfo is None:
        raise BundleError(f"created_at is {created_at} without a time zone; give it one.")
    return created_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def first_problem(error: ValidationError, whole: str = "document") -> str:
    """Where the first problem is and what it is, as "field.0: what"; never what was found there.

    ``whole`` names the place of a problem that no field has.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(step) for step in first["loc"]) or whole
    return f"{place}: {first['msg']}"


class Document(BaseModel):
    """Immutable, rejects unknown fields, and serialises to canonical JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> str:
        """Canonical JSON text of this document."""
        return canonical_json(self.model_dump(mode="json"))

    def sha256(self) -> str:
        """Hash of the canonical JSON text."""
        return sha256_of(self.to_json().encode())
