"""An answer as resources of FHIR R4, in plain JSON objects. Imports the bundle's schema and the wire.

A Task with a priority, a preliminary RiskAssessment, a DetectedIssue for each limitation, and a Provenance.
Never a finding or a final report: a clinician writes those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from lesion_triage import __version__
from lesion_triage.bundle.schema import Answer
from triage_server.fhir_case import FhirCase
from triage_server.timestamps import hours_after

SYSTEM_PREFIX = "urn:lesion-triage:"
_REQUEST_PRIORITIES = {1: "asap", 2: "urgent", 3: "routine", 4: "routine"}
"""RequestPriority by priority band. None is ``stat``: nothing here is a matter of life and death."""

Resource = dict[str, Any]


def answer_bundle(answer: Answer, sent: FhirCase, moment: datetime, disposition: str) -> Resource:
    """The whole answer.

    Args:
        answer: of the case.
        sent: what the answer refers to.
        moment: when it was given, with its time zone.
        disposition: the catalogue's sentence for the answer's disposition.
    """
    now = _instant(moment)
    based_on = _based_on(sent)
    risk = _entry({"resourceType": "RiskAssessment", **_risk(answer, sent, now), **based_on})
    issues = [_entry({**issue, **_patient_reference(sent)}) for issue in _issues(answer, sent, now)]
    findings = [risk, *issues]
    task = _entry(_task(answer, sent, moment, disposition, findings))
    targets = [{"reference": one["fullUrl"]} for one in (task, *findings)]
    entries = [task, *findings, _entry(_provenance(answer, now, targets))]
    return {
        "resourceType": "Bundle",
        "id": str(uuid4()),
        "language": answer.language,
        "type": "collection",
        "timestamp": now,
        "entry": entries,
    }


def _task(
    answer: Answer, sent: FhirCase, moment: datetime, disposition: str, findings: Sequence[Resource]
) -> Resource:
    now = _instant(moment)
    task: Resource = {
        "resourceType": "Task",
        "status": "requested",
        "intent": "proposal",
        "priority": _REQUEST_PRIORITIES[answer.priority_band],
        "code": _concept("disposition", answer.disposition.value, disposition),
        "description": disposition,
        "authoredOn": now,
        "input": [
            {"type": _concept("task-input", "finding"), "valueReference": {"reference": one["fullUrl"]}}
            for one in findings
        ],
        "extension": [_extension("priority-band", "valuePositiveInt", answer.priority_band)],
        "note": [{"text": answer.notice}],
    }
    if sent.order:
        task |= {"basedOn": [{"reference": sent.order}], "focus": {"reference": sent.order}}
    if sent.subject:
        task["for"] = {"reference": sent.subject}
    hours = answer.deadline_hours
    due = None if hours is None else hours_after(moment.astimezone(UTC), hours)
    if due is not None:
        task["restriction"] = {"period": {"start": now, "end": _instant(due)}}
    return task


def _risk(answer: Answer, sent: FhirCase, now: str) -> Resource:
    prediction: Resource = {
        "outcome": _concept("outcome", "needs_in_person", "Needs to be seen in person"),
        "rationale": " ".join(reason.text for reason in answer.reasons),
    }
    score = []
    if answer.score is not None:
        # In percent, as R4 reads it: a score of 0.65 would be less than one in a hundred.
        prediction["probabilityDecimal"] = 100 * answer.score
        score = [_extension("score", "valueDecimal", answer.score)]
    photographs = [{"reference": one} for one in sent.photographs if one]
    return {
        "status": "preliminary",
        "subject": _subject_reference(sent),
        "occurrenceDateTime": now,
        "method": _concept("bundle", answer.bundle_sha256, answer.bundle_name),
        "prediction": [prediction],
        **({"basis": photographs} if photographs else {}),
        "extension": [
            _extension("disposition", "valueCode", answer.disposition.value),
            _extension("priority-band", "valuePositiveInt", answer.priority_band),
            *score,
            _extension("threshold", "valueDecimal", answer.threshold),
            _extension("synthetic", "valueBoolean", answer.synthetic),
        ],
        "note": [{"text": answer.note}, {"text": answer.notice}],
    }


def _issues(answer: Answer, sent: FhirCase, now: str) -> Iterator[Resource]:
    """What limits or outranks the score: red flags, uncertified groups, unusable photographs, limits."""
    for flag in answer.red_flags:
        yield _issue("red-flag", flag.code, flag.text, now, severity="high" if flag.refers else "moderate")
    for reason in answer.reasons:
        if reason.code.value in ("uncertified_subgroup", "no_gradable_image"):
            yield _issue(
                "reason", reason.code.value, reason.text, now, advice=reason.coaching, severity="high"
            )
    for image in answer.images:
        photograph = sent.photographs[image.index]
        for reason in image.reasons:
            issue = _issue("reason", reason.code.value, reason.text, now, advice=reason.coaching)
            if photograph:
                issue["implicated"] = [{"reference": photograph}]
            yield {**issue, "severity": "moderate"}
    for limit in answer.limits:
        yield _issue("limit", limit.code, limit.text, now)


def _issue(
    system: str, code: str, text: str, now: str, *, advice: str | None = None, severity: str | None = None
) -> Resource:
    return {
        "resourceType": "DetectedIssue",
        "status": "preliminary",
        "code": _concept(system, code, text),
        "detail": text,
        "identifiedDateTime": now,
        **({"severity": severity} if severity else {}),
        **({"mitigation": [{"action": {"text": advice}}]} if advice else {}),
    }


def _provenance(answer: Answer, now: str, targets: list[Resource]) -> Resource:
    what = {"bundle": answer.bundle_sha256, "certificate": answer.certificate_id}
    return {
        "resourceType": "Provenance",
        "target": targets,
        "recorded": now,
        "agent": [
            {
                "type": {
                    "coding": [
                        {
                            "system": "http://terminology.hl7.org/CodeSystem/provenance-participant-type",
                            "code": "assembler",
                        }
                    ]
                },
                "who": {
                    "identifier": {"system": f"{SYSTEM_PREFIX}software", "value": __version__},
                    "display": f"lesion-triage {__version__}",
                },
            }
        ],
        "entity": [
            {"role": "source", "what": {"identifier": {"system": f"{SYSTEM_PREFIX}{name}", "value": value}}}
            for name, value in what.items()
        ],
    }


def _subject_reference(sent: FhirCase) -> Resource:
    """R4 requires a subject. An identifier or an address may reveal too much, so neither is repeated."""
    if sent.subject:
        return {"reference": sent.subject}
    if sent.names_subject:
        return {"display": "named in the request in a way that is not repeated here"}
    return {"display": "not named in the request"}


def _based_on(sent: FhirCase) -> Resource:
    return {"basedOn": {"reference": sent.order}} if sent.order else {}


def _patient_reference(sent: FhirCase) -> Resource:
    return {"patient": {"reference": sent.patient}} if sent.patient else {}


def _entry(resource: Resource) -> Resource:
    name = str(uuid4())
    return {"fullUrl": f"urn:uuid:{name}", "resource": {**resource, "id": name}}


def _concept(system: str, code: str, display: str | None = None) -> Resource:
    coding = {"system": f"{SYSTEM_PREFIX}{system}", "code": code}
    return {"coding": [coding], "text": display} if display else {"coding": [coding]}


def _extension(name: str, kind: str, value: object) -> Resource:
    return {"url": f"{SYSTEM_PREFIX}{name}", kind: value}


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
