"""Requests to the FHIR endpoint, and what of an answer is looked at; shared by its tests."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fhir.resources.R4B.bundle import Bundle
    from fhir.resources.R4B.operationoutcome import OperationOutcome

PATH = "/fhir/$triage"
FHIR = {"Content-Type": "application/fhir+json"}


def sent(ask: Callable[..., httpx.Response], app: Any, document: Any, **headers: str) -> httpx.Response:
    return ask(app, "POST", PATH, content=json.dumps(document), headers=FHIR | headers)


def resources(response: httpx.Response) -> dict[str, list[dict[str, Any]]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/fhir+json"
    Bundle.model_validate(response.json())
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in response.json()["entry"]:
        found.setdefault(entry["resource"]["resourceType"], []).append(entry["resource"])
    return found


def outcome(response: httpx.Response, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/fhir+json"
    OperationOutcome.model_validate(response.json())
    details = response.json()["issue"][0]["details"]
    assert details["coding"][0]["code"] == code
    text: str = details["text"]
    return text


def observation(field: str, **value: Any) -> dict[str, Any]:
    coding = {"system": "urn:lesion-triage:history", "code": field}
    return {"resourceType": "Observation", "status": "final", "code": {"coding": [coding]}, **value}


def years_ago(years: int) -> str:
    """A birth date: so many years ago, and a month, so that no midnight changes the age."""
    day = datetime.now(UTC).date() - timedelta(days=31)
    return day.replace(year=day.year - years, day=min(day.day, 28)).isoformat()
