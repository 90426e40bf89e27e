"""Makes a real sealed bundle in milliseconds, and draws pictures whose answer is known beforehand.

Needs what serving needs and nothing more; the graph was written by make_tiny_graph.py.
"""

from __future__ import annotations

import io
import math
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from PIL import Image, ImageDraw

from lesion_triage.bundle.calibration import PlattCalibrator
from lesion_triage.bundle.certificate import Certificate, GroupRow, Routes
from lesion_triage.bundle.document import sha256_of
from lesion_triage.bundle.fingerprints import UsedPictures, file_fingerprint, format_fingerprints
from lesion_triage.bundle.graph import Graph
from lesion_triage.bundle.policy import decide
from lesion_triage.bundle.schema import ModelFacts, PixelSpec, Policy, SelfTest, SelfTestCase
from lesion_triage.bundle.scorer import score_image
from lesion_triage.bundle.store import Bundle, seal

Kind = Literal["referred", "below", "black", "unfamiliar"]

GRAPH = Path(__file__).with_name("tiny.onnx").read_bytes()
PIXEL_SPEC = PixelSpec(size_px=32)

NOVELTY_LIMIT = 4.0
"""Above the novelty of all drawn spots on skin, below that of the unfamiliar picture."""

# The tiny graph's logit is (red - blue) / 10 - 5: about +5, about -2, refused by the quality gate; and of a
# novelty above the limit.
_COLOURS: dict[Kind, tuple[str, str]] = {
    "referred": ("rgb(215, 140, 115)", "rgb(150, 60, 50)"),
    "below": ("rgb(205, 185, 175)", "rgb(170, 150, 140)"),
    "black": ("rgb(2, 1, 1)", "rgb(0, 0, 0)"),
    "unfamiliar": ("rgb(70, 62, 56)", "rgb(96, 85, 78)"),
}


def picture_bytes(kind: Kind, format: str = "PNG", size: tuple[int, int] = (160, 120)) -> bytes:
    """A drawn spot on a plain ground, as the bytes of a file."""
    ground, spot = _COLOURS[kind]
    image = Image.new("RGB", size, ground)
    width, height = size
    ImageDraw.Draw(image).ellipse((width * 0.3, height * 0.3, width * 0.7, height * 0.7), fill=spot)
    stream = io.BytesIO()
    image.save(stream, format)
    return stream.getvalue()


def policy(**overrides: Any) -> Policy:
    """A policy that refers from logit 0; the bands follow the threshold unless they are given."""
    threshold = overrides.setdefault("threshold", 0.5)
    overrides.setdefault("band_limits", ((1 + threshold) / 2, threshold, threshold / 2))
    overrides.setdefault("calibrator", PlattCalibrator(slope=1.0, intercept=0.0))
    return Policy(**overrides)


def certificate_for(issued_for: Policy, graph: bytes = GRAPH) -> Certificate:
    """A certificate that speaks of this policy and this graph; its numbers are those of 59 cases, no miss."""
    everyone = GroupRow(
        by="all",
        group="all",
        members=("all",),
        status="certified",
        positives=59,
        positives_abstained=0,
        misses_seen=0,
        misses_allowed=0,
        threshold=issued_for.threshold,
        sensitivity_lower_bound=0.05 ** (1 / 59),
        confidence=0.95,
        minimum_positives=59,
    )
    return Certificate(
        issued_at="2025-01-01T00:00:00Z",
        site="",
        purpose="first look",
        method="order_statistic",
        rule="common_threshold",
        target_sensitivity=0.95,
        confidence=0.95,
        unit="lesion",
        aggregation=issued_for.aggregation,
        positives=59,
        positives_abstained=0,
        misses_allowed=0,
        misses_seen=0,
        routes=Routes(score=59),
        red_flags_counted=False,
        threshold=issued_for.threshold,
        sensitivity_lower_bound=0.05 ** (1 / 59),
        asked=(),
        groups=(everyone,),
        cases_sha256=sha256_of(b"cases"),
        predictions_sha256=sha256_of(b"predictions"),
        manifest_sha256=sha256_of(b"manifest"),
        splits_sha256=sha256_of(b"splits"),
        model_sha256=sha256_of(graph),
        policy_sha256=issued_for.sha256(),
        assumptions=("Drawn pictures: this certificate is for tests.",),
        ledger=(),
        confidence_if_selected=0.95,
    )


def seal_arguments(**policy_overrides: Any) -> dict[str, Any]:
    """The arguments of ``seal``, all but the folder."""
    graph, sealed_policy = Graph(GRAPH, PIXEL_SPEC), policy(**policy_overrides)
    pictures = {f"{kind}.png": picture_bytes(kind) for kind in _COLOURS}
    cases = []
    for file, data in pictures.items():
        said = score_image(graph, PIXEL_SPEC, sealed_policy.quality, data)
        limit = sealed_policy.novelty_limit
        used = score_image(graph, PIXEL_SPEC, sealed_policy.quality, data, novelty_limit=limit)
        disposition = decide(sealed_policy, [used.logit]).disposition
        cases.append(SelfTestCase(file=file, logit=said.logit, novelty=said.novelty, disposition=disposition))
    return {
        "name": "tiny",
        "model": ModelFacts(backbone="mean colour", parameters=4, embedding_width=3, views=1),
        "pixels": PIXEL_SPEC,
        "policy": sealed_policy,
        "certificate": certificate_for(sealed_policy),
        "graph": GRAPH,
        "model_card": "# tiny\n\nA graph for tests: it knows mean colours and nothing else.\n",
        "selftest": SelfTest(cases=tuple(cases)),
        "selftest_pictures": pictures,
        "synthetic": True,
        "data_citation": ("Drawn for the tests; no one's skin.",),
        "used_pictures": UsedPictures(
            fitted=format_fingerprints([file_fingerprint(sha256_of(b"a picture of the training split"))]),
            certified=format_fingerprints(
                [file_fingerprint(sha256_of(b"a picture of the calibration split"))]
            ),
        ),
        "created_at": datetime(2025, 1, 1, tzinfo=UTC),
    }


def make_with_size(folder: Path, size_px: int) -> Bundle:
    """The tiny bundle with pictures of another size, at most 127 px: another graph, about the same logits."""
    dimension = bytes([0x0A, 0x02, 0x08])  # of a tensor's shape in the protocol buffer, before its value
    graph = GRAPH.replace(dimension + bytes([PIXEL_SPEC.size_px]), dimension + bytes([size_px]))
    pixels = PixelSpec(size_px=size_px)
    loaded, made = Graph(graph, pixels), seal_arguments()
    cases = tuple(
        case.model_copy(
            update={
                "logit": said.logit,
                "novelty": said.novelty,
            }
        )
        for case in made["selftest"].cases
        for said in [
            score_image(loaded, pixels, made["policy"].quality, made["selftest_pictures"][case.file])
        ]
    )
    changed = {
        "pixels": pixels,
        "graph": graph,
        "certificate": certificate_for(made["policy"], graph),
        "selftest": SelfTest(cases=cases),
    }
    return seal(folder, **{**made, **changed})


def make(folder: Path, **policy_overrides: Any) -> Bundle:
    """Seal a tiny bundle in ``folder``, which must not exist; keywords are fields of ``Policy``."""
    return seal(folder, **seal_arguments(**policy_overrides))


def make_with_nan_logit(folder: Path) -> Bundle:
    """A bundle whose graph gives no number, and whose self-test has only a picture that never reaches it."""
    weight = struct.pack("<f", 0.1)
    assert GRAPH.count(weight) == 1
    graph, made = GRAPH.replace(weight, struct.pack("<f", math.nan)), seal_arguments()
    changed = {
        "graph": graph,
        "certificate": certificate_for(made["policy"], graph),
        "selftest": SelfTest(cases=tuple(one for one in made["selftest"].cases if one.file == "black.png")),
        "selftest_pictures": {"black.png": made["selftest_pictures"]["black.png"]},
    }
    return seal(folder, **{**made, **changed})
