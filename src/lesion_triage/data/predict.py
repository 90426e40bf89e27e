"""Logits of photographs as the server would compute them: files, the bundle's scorer, onnxruntime.

Imports the bundle, predictions and this package; needs no training library.
"""

from __future__ import annotations

from collections.abc import Sequence

from lesion_triage.bundle import fingerprints
from lesion_triage.bundle.document import sha256_of
from lesion_triage.bundle.graph import Graph
from lesion_triage.bundle.parallel import thread_map
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.schema import PixelSpec, QualityLimits
from lesion_triage.bundle.scorer import score_picture
from lesion_triage.config import Roots
from lesion_triage.console import ProgressCallback
from lesion_triage.data.manifest import read_picture
from lesion_triage.data.records import Record, place_of
from lesion_triage.errors import ImageError, PredictionsError
from lesion_triage.predictions import Prediction, Predictions


def predict(
    graph: bytes,
    spec: PixelSpec,
    limits: QualityLimits,
    records: Sequence[Record],
    root: Roots,
    *,
    split: str,
    manifest_sha256: str,
    splits_sha256: str,
    progress: ProgressCallback | None = None,
) -> Predictions:
    """Score every picture of ``records`` through decoder, quality gate and graph, one by one.

    One picture and one thread per call: a larger batch may change the last bit of a logit, and then report,
    certificate and server would refer to different numbers. The table holds the graph's own novelty;
    ``Predictions.behind_gate`` applies a policy's limit.

    Raises:
        PredictionsError: a picture in the manifest cannot be decoded.
        ManifestError: a picture changed since the manifest was made.
    """
    session = Graph(graph, spec)

    def one(record: Record) -> Prediction:
        try:
            picture = decode(read_picture(root, record), spec)
        except ImageError as error:
            raise PredictionsError(f"{place_of(record)}: {error}") from None
        evidence = score_picture(session, limits, picture, advise=False)
        return Prediction(
            image_id=record.image_id,
            case_id=record.case_id,
            unit_id=record.unit_id,
            file_fingerprint=fingerprints.file_fingerprint(record.sha256),
            pixel_fingerprint=fingerprints.pixel_fingerprint(picture.pixels),
            logit=evidence.logit,
            quality_codes=" ".join(evidence.refusals),
            novelty=evidence.novelty,
            needs_in_person=record.needs_in_person,
            diagnosis=record.diagnosis,
            diagnosis_confirm_type=record.diagnosis_confirm_type,
            source=record.source,
            sex=record.sex,
            age_approx=record.age_approx,
            anatom_site_general=record.anatom_site_general,
            fitzpatrick_skin_type=record.fitzpatrick_skin_type,
            history=record.history,
        )

    return Predictions(
        split=split,
        manifest_sha256=manifest_sha256,
        splits_sha256=splits_sha256,
        model_sha256=sha256_of(graph),
        rows=tuple(thread_map(one, records, progress)),
    )
