"""Fixtures of the catalogue's tests: a server on this machine, and an entry whose files lie there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import local_origin
from lesion_triage.data.catalogue.download import RetryPolicy
from lesion_triage.data.catalogue.entry import Dataset
from local_origin import Origin


@pytest.fixture
def origin() -> Iterator[Origin]:
    with local_origin.serve() as made:
        yield made


@pytest.fixture
def fast_retries() -> RetryPolicy:
    """As patient as usual, in milliseconds."""
    return RetryPolicy(max_attempts=3, initial_wait_s=0.001, max_wait_s=0.02)


@pytest.fixture
def entry(origin: Origin) -> Callable[..., Dataset]:
    """An entry of the catalogue whose files lie on the local server."""

    def make(*files: dict[str, object], **changes: object) -> Dataset:
        said = {
            "name": "small",
            "title": "Small",
            "summary": "A dataset for tests.",
            "landing": origin.url,
            "pictures": 2,
            "lesions": None,
            "patients": None,
            "bytes": None,
            "image_type": ["clinical"],
            "lesion_ids": True,
            "patient_ids": False,
            "skin_type": "no",
            "licence": {
                "id": "CC-BY-4.0",
                "name": "Creative Commons Attribution 4.0",
                "url": "https://creativecommons.org/licenses/by/4.0/",
                "redistribution": "yes",
                "commercial_use": "yes",
            },
            "citation": "Nobody 2026",
            "doi": None,
            "registration": None,
            "steps": ["Ask."],
            "files": [
                {"urls": [f"{origin.url}/{file['name']}"], "checksum_from": "the test"}
                | ({} if {"md5", "sha256"} & file.keys() else {"checksum_from": ""})
                | file
                for file in files
            ],
            "layouts": [{"name": "official"}],
            "sources": {"counts": "here", "licence": "here", "files": "here", "layout": "here"},
        }
        return Dataset.model_validate(said | changes)

    return make
