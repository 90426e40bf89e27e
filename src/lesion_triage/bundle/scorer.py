"""From photographs to an answer, by the sealed graph.

Imports numpy, onnxruntime and the rest of the ground floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lesion_triage.bundle.answers import Issuer, answer_for, reason
from lesion_triage.bundle.calibration import score_of
from lesion_triage.bundle.history import NO_HISTORY, History
from lesion_triage.bundle.languages import Languages
from lesion_triage.bundle.messages import Catalogue
from lesion_triage.bundle.pixels import Picture, decode
from lesion_triage.bundle.policy import decide
from lesion_triage.bundle.quality import assess
from lesion_triage.bundle.schema import (
    Answer,
    ImageAnswer,
    PixelSpec,
    Policy,
    QualityLimits,
    ReasonCode,
    SelfTestCase,
)
from lesion_triage.bundle.store import Bundle, open_bundle
from lesion_triage.errors import BundleError, ImageError, ScoringError

MAX_IMAGES_PER_CASE = 16


class Graph:
    """The network as onnxruntime runs it: pixels in, logit and embedding out. Threads may share it.

    One picture at a time, one thread per picture, CPU: so a score has the same bits whether it was computed
    alone or among others. Threads that spin while they wait would steal the other callers' time.
    """

    def __init__(self, data: bytes, spec: PixelSpec) -> None:
        """Load a graph.

        Args:
            data: ONNX file with input ``pixels`` uint8 [N, size_px, size_px, 3] and outputs ``logit``
                float32 [N] and ``embedding`` float32 [N, D].
            spec: gives ``size_px``.

        Raises:
            BundleError: onnxruntime cannot load it, or its inputs and outputs are others.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no ancestor of their own
            raise BundleError(f"model.onnx: onnxruntime cannot load the graph ({error}).") from None
        self._shape = (spec.size_px, spec.size_px, 3)
        self._check_contract()

    def logit(self, pixels: NDArray[np.uint8]) -> float:
        """Logit of one picture, shape (size_px, size_px, 3).

        Raises:
            ScoringError: pixels of another shape or type, or a logit that is not finite.
        """
        return self.logit_and_embedding(pixels)[0]

    def logit_and_embedding(self, pixels: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
        """Logit and embedding, shape (D,), of one picture; see ``logit``."""
        if pixels.shape != self._shape or pixels.dtype != np.uint8:
            raise ScoringError(
                f"Expected pixels of shape {self._shape} and type uint8, "
                f"found {pixels.shape} and {pixels.dtype}; prepare them with bundle.pixels.decode."
            )
        logits, embeddings = self._session.run(["logit", "embedding"], {"pixels": pixels[np.newaxis]})
        logit = float(logits[0])
        if not np.isfinite(logit):
            raise ScoringError(
                f"The graph's logit is {logit}, expected a finite number; the model is broken."
            )
        return logit, embeddings[0]

    def _check_contract(self) -> None:
        found = {
            node.name: (node.type, len(node.shape))
            for node in (*self._session.get_inputs(), *self._session.get_outputs())
        }
        expected = {
            "pixels": ("tensor(uint8)", 4),
            "logit": ("tensor(float)", 1),
            "embedding": ("tensor(float)", 2),
        }
        if found != expected:
            raise BundleError(
                f"model.onnx: expected type and rank of inputs and outputs {expected}, found {found}."
            )
        shape = tuple(self._session.get_inputs()[0].shape[1:])
        if shape != self._shape:
            raise BundleError(
                f"model.onnx: expected pictures of shape {self._shape} as the header says, found {shape}."
            )


@dataclass(frozen=True, slots=True)
class ImageEvidence:
    """What one photograph tells the policy: a logit, or why there is none."""

    logit: float | None
    quality_code: ReasonCode | None
    """None if and only if the photograph is gradable."""


def score_image(graph: Graph, spec: PixelSpec, limits: QualityLimits, data: bytes) -> ImageEvidence:
    """Score one photograph from its file's bytes, as training, evaluation and the server all do.

    Raises:
        ImageError: the file cannot be used.
        ScoringError: the logit is not finite.
    """
    return score_picture(graph, limits, decode(data, spec))


def score_picture(graph: Graph, limits: QualityLimits, picture: Picture) -> ImageEvidence:
    """Score one decoded photograph.

    Raises:
        ScoringError: the logit is not finite.
    """
    _, complaint = assess(picture, limits)
    if complaint is not None:
        return ImageEvidence(logit=None, quality_code=complaint)
    return ImageEvidence(logit=graph.logit(picture.pixels), quality_code=None)


class Scorer:
    """A bundle that answers. Threads may share it."""

    def __init__(self, bundle: Bundle, languages: Languages | None = None) -> None:
        """Load the graph of an opened bundle.

        Args:
            bundle: sealed and verified.
            languages: in which it answers; None: those that we ship, English first.

        Raises:
            BundleError: the graph cannot be loaded or is of another shape than the header says.
        """
        self.bundle = bundle
        self._languages = languages
        self._issuer = Issuer.of(bundle)
        self._graph = Graph(bundle.graph, bundle.header.pixels)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open, verify and load the bundle in ``folder``; ``self_test`` is the caller's to run."""
        return cls(open_bundle(folder))

    @property
    def languages(self) -> Languages:
        """In which it answers.

        Raises:
            ConfigError: a red flag of the policy has no English text, and no other languages were given.
        """
        if self._languages is None:
            self._languages = Languages.for_flags(flag.code for flag in self.bundle.policy.red_flags.flags)
        return self._languages

    def score(
        self, images: Sequence[bytes], history: History = NO_HISTORY, language: str | None = None
    ) -> Answer:
        """Score one case.

        Args:
            images: the files of its photographs, 1 to ``MAX_IMAGES_PER_CASE``.
            history: what is known beside them.
            language: one of ``languages``; None takes the default.

        Raises:
            ConfigError: there are no texts in this language, or none for a red flag of the policy.
            ImageError: a photograph cannot be used; the sentence names it by its place, from 1. The whole
                case is refused: to leave the photograph out could only lower its urgency.
            ScoringError: no photograph or too many, or a logit that is not finite.
        """
        if not 1 <= len(images) <= MAX_IMAGES_PER_CASE:
            raise ScoringError(
                f"The case has {len(images)} photographs, expected 1 to {MAX_IMAGES_PER_CASE}; "
                "send those that show the lesion best."
            )
        catalogue, policy = self.languages.catalogue(language), self.bundle.policy
        evidence = [self._evidence(number, data) for number, data in enumerate(images, start=1)]
        decision = decide(policy, [image.logit for image in evidence], history)
        seen = [_image_answer(policy, index, image, catalogue) for index, image in enumerate(evidence)]
        return answer_for(self._issuer, decision, seen, history, catalogue)

    def self_test(self) -> None:
        """Score the bundle's own pictures through the whole path and compare with what was sealed.

        Catches what a hash cannot: another Pillow or onnxruntime, a processor that computes otherwise.

        Raises:
            BundleError: a logit differs by more than the sealed tolerance, or a disposition at all.
        """
        for case in self.bundle.selftest.cases:
            try:
                found = self._evidence(1, self.bundle.selftest_pictures[case.file])
            except (ImageError, ScoringError) as error:
                raise BundleError(f"Self-test picture '{case.file}' cannot be scored here: {error}") from None
            self._compare(case, found.logit)

    def _evidence(self, number: int, data: bytes) -> ImageEvidence:
        try:
            return score_image(self._graph, self.bundle.header.pixels, self.bundle.policy.quality, data)
        except ImageError as error:
            raise ImageError(error.code, f"Photograph {number}: {error}", index=number - 1) from None
        except ScoringError as error:
            raise ScoringError(f"Photograph {number}: {error}") from None

    def _compare(self, case: SelfTestCase, found: float | None) -> None:
        expected, disposition = case.logit, decide(self.bundle.policy, [found]).disposition
        if expected is None or found is None:
            agrees = expected is found
        else:
            agrees = abs(expected - found) <= self.bundle.selftest.tolerance_logit
        if not agrees or disposition is not case.disposition:
            raise BundleError(
                f"Self-test picture '{case.file}': sealed with logit {expected} ({case.disposition}), "
                f"found {found} ({disposition}) here; do not serve this bundle on this machine, "
                "compare its Pillow and onnxruntime with those that sealed it."
            )


def _image_answer(policy: Policy, index: int, image: ImageEvidence, catalogue: Catalogue) -> ImageAnswer:
    return ImageAnswer(
        index=index,
        gradable=image.logit is not None,
        logit=image.logit,
        score=None if image.logit is None else score_of(policy.calibrator, image.logit),
        reasons=() if image.quality_code is None else (reason(image.quality_code, catalogue),),
    )
