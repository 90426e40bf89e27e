"""A hash of what a bundle does and promises, without its dates: tells whether two bundles are equivalent.

Imports the document and the store.
"""

from __future__ import annotations

from typing import Any

from lesion_triage.bundle.document import canonical_json, sha256_of
from lesion_triage.bundle.store import CERTIFICATE_FILE, MODEL_CARD_FILE, Bundle

_HASHED_HEADER_FIELDS = ("name", "synthetic", "model", "pixels", "data_citation")
_UNHASHED_CERTIFICATE_FIELDS = frozenset({"issued_at", "purpose", "ledger", "confidence_if_selected"})
"""Fields of a certificate that say when it was issued and what had been looked at before."""
_DERIVED_FILES = frozenset({CERTIFICATE_FILE, MODEL_CARD_FILE})


def content_sha256(bundle: Bundle) -> str:
    """Hash of everything that decides an answer or states a promise.

    Left out: the dates of header and certificate, earlier looks and the confidence they leave, the release
    that sealed the bundle, and the model card, which is derived from the rest and names the certificate.
    Repeating the same run thus gives the same hash, although ``Bundle.sha256`` differs with the time.
    """
    header = bundle.header.model_dump(mode="json")
    certificate = bundle.certificate.model_dump(mode="json")
    content: dict[str, Any] = {
        "header": {name: header[name] for name in _HASHED_HEADER_FIELDS},
        "certificate": {
            name: value for name, value in certificate.items() if name not in _UNHASHED_CERTIFICATE_FIELDS
        },
        "files": {
            name: file["sha256"] for name, file in header["files"].items() if name not in _DERIVED_FILES
        },
    }
    return sha256_of(canonical_json(content).encode())
