"""One case as each protocol wants it sent, and a DICOM file of it; shared by the tests of the protocols."""

from __future__ import annotations

import base64
import io
import json
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

JSON = {"Content-Type": "application/json"}


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def as_json(*pictures: bytes, **history: Any) -> dict[str, Any]:
    said = {"history": history} if history else {}
    return {"images": [in_base64(picture) for picture in pictures], **said}


def as_tensors(*pictures: bytes, **history: Any) -> dict[str, Any]:
    images = [in_base64(picture) for picture in pictures]
    inputs = [{"name": "image", "datatype": "BYTES", "shape": [len(images)], "data": images}]
    if history:
        inputs.append({"name": "history", "datatype": "BYTES", "shape": [1], "data": [json.dumps(history)]})
    return {"inputs": inputs}


def media(picture: bytes, name: str, **more: Any) -> dict[str, Any]:
    content = {"contentType": "image/jpeg", "data": in_base64(picture)}
    return {"resourceType": "Media", "id": name, "status": "completed", "content": content, **more}


def order(*photographs: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "ServiceRequest",
        "id": "order-1",
        "status": "active",
        "intent": "order",
        "subject": {"reference": "Patient/p1"},
        "supportingInfo": [{"reference": name} for name in photographs],
        **more,
    }


def told(**history: Any) -> dict[str, Any]:
    kinds = {bool: "valueBoolean", int: "valueInteger", float: "valueDecimal", str: "valueString"}
    items = [{"linkId": field, "answer": [{kinds[type(value)]: value}]} for field, value in history.items()]
    return {"resourceType": "QuestionnaireResponse", "status": "completed", "item": items}


def bundle(*resources: dict[str, Any]) -> dict[str, Any]:
    entries = [{"resource": resource} for resource in resources]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def as_fhir(*pictures: bytes, **history: Any) -> dict[str, Any]:
    names = [f"m{index}" for index in range(len(pictures))]
    photographs = [media(picture, name) for picture, name in zip(pictures, names, strict=True)]
    said = [told(**history)] if history else []
    return bundle(order(*(f"Media/{name}" for name in names)), *photographs, *said)


def as_hook(*pictures: bytes, **history: Any) -> dict[str, Any]:
    sent = as_fhir(*pictures, **history)["entry"]
    resources = [entry["resource"] for entry in sent]
    return {
        "hook": "order-select",
        "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
        "context": {
            "userId": "Practitioner/1",
            "patientId": "p1",
            "selections": ["ServiceRequest/order-1"],
            "draftOrders": bundle(resources[0]),
        },
        "prefetch": {"photographs": bundle(*resources[1:]), "history": None, "patient": None},
    }


@dataclass(frozen=True)
class Way:
    """One way in that takes JSON."""

    path: str
    sent: Any

    def request(self, *pictures: bytes, **history: Any) -> dict[str, Any]:
        return {"content": json.dumps(self.sent(*pictures, **history)), "headers": dict(JSON)}


WAYS = {
    "v1": Way("/v1/triage", as_json),
    "batch": Way("/v1/triage/batch", lambda *pictures, **history: {"cases": [as_json(*pictures, **history)]}),
    "open-inference": Way("/v2/models/tiny/infer", as_tensors),
    "fhir": Way("/fhir/$triage", as_fhir),
    "cds-hooks": Way("/cds-services/lesion-triage", as_hook),
}


def dicom(picture: bytes | np.ndarray, name: str = "Mustermann^Erika", **changes: Any) -> bytes:
    """A dermoscopic photograph: a JPEG's bytes encapsulated, or an array of RGB as it is."""
    dataset, meta = Dataset(), FileMetaDataset()
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.7"
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = name, name, "19500101"
    dataset.ImageComments = name
    dataset.SamplesPerPixel, dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 3, 8, 8, 7
    dataset.PixelRepresentation, dataset.PlanarConfiguration = 0, 0
    if isinstance(picture, bytes):
        meta.TransferSyntaxUID = JPEGBaseline8Bit
        dataset.Columns, dataset.Rows = Image.open(io.BytesIO(picture)).size
        dataset.PhotometricInterpretation = "YBR_FULL_422"
        dataset.PixelData = encapsulate([picture])
    else:
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.Rows, dataset.Columns = picture.shape[:2]
        dataset.PhotometricInterpretation = "RGB"
        dataset.PixelData = picture.tobytes() + b"\0" * (picture.size % 2)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some changes are wrong on purpose
        for field, value in changes.items():
            setattr(meta if field == "TransferSyntaxUID" else dataset, field, value)
        dataset.file_meta = meta
        pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()
