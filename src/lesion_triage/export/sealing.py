"""Everything of a run that serving needs, in one sealed bundle, after the parity gate."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from lesion_triage import predictions
from lesion_triage.bundle import fingerprints
from lesion_triage.bundle.certificate import Certificate
from lesion_triage.bundle.fingerprints import UsedPictures
from lesion_triage.bundle.graph import Graph
from lesion_triage.bundle.policy import decide
from lesion_triage.bundle.schema import ModelFacts, Policy, SelfTest, SelfTestCase
from lesion_triage.bundle.scorer import Scorer, score_image
from lesion_triage.bundle.store import Bundle, seal
from lesion_triage.config import Config, Roots
from lesion_triage.data import pixel_cache
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.records import Record
from lesion_triage.data.synthetic import draw_picture
from lesion_triage.export import parity
from lesion_triage.export.model_card import model_card
from lesion_triage.export.onnx_graph import Views
from lesion_triage.train import checkpoint

_SENSOR_NOISE = 12
"""Standard deviation in grey levels: enough that another way to decode a JPEG moves the logit."""


@dataclass(frozen=True)
class SealedRun:
    """A bundle, and how far its graph differs from the network."""

    bundle: Bundle
    parity: parity.Parity


@dataclass(frozen=True)
class SourceData:
    """The pictures behind a run."""

    manifest: Manifest
    train: Sequence[Record]
    validation: Sequence[Record]
    root: Roots
    """Folder of the dataset."""


def seal_run(folder: Path, config: Config, source_data: SourceData, cache: Path | None) -> SealedRun:
    """Check the graph against the network, seal ``folder/bundle``, and run its self-test.

    The gate uses the validation pictures, not the calibration pictures: the certificate's threshold equals
    the score of one calibration case, so there a difference in the last bit would count as a flip.

    Args:
        folder: of the run.
        config: of the run.
        source_data: its pictures.
        cache: where decoded pictures are kept; None if they are not.

    Raises:
        ParityError: the graph disagrees with the network; no bundle is left.
        BundleError: the sealed bundle does not pass its own self-test.
    """
    manifest = source_data.manifest
    policy = Policy.model_validate_json((folder / "policy.json").read_bytes())
    certificate = Certificate.model_validate_json((folder / "certificate.json").read_bytes())
    graph = (folder / "model.onnx").read_bytes()
    network = checkpoint.load_checkpoint(folder)
    table, _ = predictions.read(folder / "predictions", "validation")
    module = Views(network, config.export.views, config.export.center_crop)
    agreement = parity.compare(module, config.pixels, policy, table, source_data.validation, source_data.root)
    parity.require(agreement, config.export.parity_tolerance)
    pictures = _selftest_pictures(config.seed, config.pixels.size_px)
    facts = ModelFacts(
        backbone=" + ".join(config.served_backbones()),
        parameters=network.exported_parameters,
        embedding_width=network.width,
        views=config.export.views,
        center_crop=config.export.center_crop,
    )
    bundle = seal(
        folder / "bundle",
        name=config.name,
        model=facts,
        pixels=config.pixels,
        policy=policy,
        certificate=certificate,
        graph=graph,
        model_card=model_card(config, manifest, facts, certificate),
        selftest=_selftest(graph, config, policy, pictures),
        selftest_pictures=pictures,
        synthetic=manifest.synthetic,
        data_citation=manifest.citation,
        used_pictures=_seen_fingerprints(folder, config, source_data, cache),
    )
    Scorer(bundle).self_test()
    return SealedRun(bundle, agreement)


def _seen_fingerprints(
    folder: Path, config: Config, source_data: SourceData, cache: Path | None
) -> UsedPictures:
    """Fingerprints of all pictures that chose the model, its calibrator or its threshold."""
    fitted: list[str] = []
    for records in (source_data.train, source_data.validation):
        pixels = pixel_cache.load_pixels(records, source_data.root, config.pixels, cache)
        fitted += (fingerprints.file_fingerprint(record.sha256) for record in records)
        fitted += (fingerprints.pixel_fingerprint(pixels[place]) for place in range(len(records)))
    calibration, _ = predictions.read(folder / "predictions", "calibration")
    seen = UsedPictures(fitted=fingerprints.format_fingerprints(fitted))
    return seen.with_certified(calibration.fingerprints())


def _selftest_pictures(seed: int, size_px: int) -> dict[str, bytes]:
    """Drawn, so that no bundle contains a patient's picture: three lesions and a black frame."""
    irregular = draw_picture("irregular", seed)
    pictures = {
        "drawn-regular": draw_picture("regular", seed),
        "drawn-irregular": irregular,
        "black": Image.new("RGB", (320, 240)),
    }
    encoded = {"drawn-camera.jpg": _as_from_a_camera(irregular, seed, size_px)}
    for name, picture in pictures.items():
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        encoded[f"{name}.png"] = buffer.getvalue()
    return encoded


def _as_from_a_camera(drawing: Image.Image, seed: int, size_px: int) -> bytes:
    """A JPEG on which JPEG decoders differ, because most photographs are JPEG files.

    It lies on its side, its colours are stored coarsely, it is large enough to be decoded at a coarser scale,
    and it has the noise of a sensor: decoders agree about what is smooth.
    """
    enlarged = np.asarray(drawing.resize((6 * size_px, 9 * size_px // 2), Image.Resampling.BICUBIC))
    noise = np.random.default_rng(seed).normal(0, _SENSOR_NOISE, enlarged.shape)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    buffer = io.BytesIO()
    noisy = Image.fromarray((enlarged + noise).clip(0, 255).astype(np.uint8))
    noisy.save(buffer, "JPEG", quality=85, subsampling="4:2:0", exif=exif)
    return buffer.getvalue()


def _selftest(graph: bytes, config: Config, policy: Policy, pictures: dict[str, bytes]) -> SelfTest:
    session = Graph(graph, config.pixels)
    cases = []
    for name, data in pictures.items():
        said = score_image(session, config.pixels, policy.quality, data)
        used = score_image(session, config.pixels, policy.quality, data, novelty_limit=policy.novelty_limit)
        decision = decide(policy, [used.logit])
        cases.append(
            SelfTestCase(file=name, logit=said.logit, novelty=said.novelty, disposition=decision.disposition)
        )
    return SelfTest(cases=tuple(cases))
