"""What a bundle does and promises, without the hour: the hash by which two makings of it are compared.

Imports the document and the store.
"""

from __future__ import annotations

from typing import Any

from lesion_triage.bundle.document import canonical_json, sha256_of
from lesion_triage.bundle.store import CERTIFICATE, MODEL_CARD, Bundle

_HEADER = ("name", "synthetic", "model", "pixels", "data_citation")
_OCCASION = frozenset({"issued_at", "purpose", "ledger", "confidence_if_selected"})
"""Of a certificate: when it was issued, and what had been looked at before."""
_WRITTEN_FROM_THE_REST = frozenset({CERTIFICATE, MODEL_CARD})


def content_sha256(bundle: Bundle) -> str:
    """Hash of everything that decides an answer or states a promise, and of nothing that only tells when.

    Left out: the dates of header and certificate, earlier looks and what they leave of the confidence, the
    release that sealed it, and the model card, which is written from the rest and names the certificate.
    So the same training makes the same content twice, where ``Bundle.sha256`` differs by the hour.
    """
    header = bundle.header.model_dump(mode="json")
    certificate = bundle.certificate.model_dump(mode="json")
    content: dict[str, Any] = {
        "header": {name: header[name] for name in _HEADER},
        "certificate": {name: value for name, value in certificate.items() if name not in _OCCASION},
        "files": {
            name: file["sha256"]
            for name, file in header["files"].items()
            if name not in _WRITTEN_FROM_THE_REST
        },
    }
    return sha256_of(canonical_json(content).encode())
