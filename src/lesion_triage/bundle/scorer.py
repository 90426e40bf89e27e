"""From photographs to an answer, by the sealed graph.

Imports numpy, onnxruntime and the rest of the ground floor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lesion_triage.bundle.answers import Issuer, answer_for, reason
from lesion_triage.bundle.beside import from_both_ends
from lesion_triage.bundle.calibration import score_of
from lesion_triage.bundle.gates import unfamiliar
from lesion_triage.bundle.history import NO_HISTORY, History
from lesion_triage.bundle.in_step import Steps, alone
from lesion_triage.bundle.languages import Languages
from lesion_triage.bundle.messages import Catalogue
from lesion_triage.bundle.pixels import Picture, decode
from lesion_triage.bundle.policy import Decision, decide
from lesion_triage.bundle.quality import Assessment, assess
from lesion_triage.bundle.schema import (
    Answer,
    Disposition,
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


@dataclass(frozen=True, slots=True, eq=False)
class GraphOutput:
    """What the graph says of one picture."""

    logit: float
    embedding: NDArray[np.float32]
    """Shape (D,)."""
    novelty: float
    """How unlike the photographs of training: at least 0, their mean is about 1."""


class Graph:
    """The network as onnxruntime runs it: pixels in, logit, embedding and novelty out. Threads may share it.

    One picture at a time, one thread per picture, CPU: so a score has the same bits whether it was computed
    alone or among others. Threads that spin while they wait would steal the other callers' time.
    """

    def __init__(self, data: bytes, spec: PixelSpec) -> None:
        """Load a graph.

        Args:
            data: ONNX file with input ``pixels`` uint8 [N, size_px, size_px, 3] and outputs ``logit``
                float32 [N], ``embedding`` float32 [N, D] and ``novelty`` float32 [N].
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
        return self.run(pixels).logit

    def run(self, pixels: NDArray[np.uint8]) -> GraphOutput:
        """All that the graph says of one picture, shape (size_px, size_px, 3).

        Raises:
            ScoringError: pixels of another shape or type, or a logit or a novelty that is not finite.
        """
        if pixels.shape != self._shape or pixels.dtype != np.uint8:
            raise ScoringError(
                f"Expected pixels of shape {self._shape} and type uint8, "
                f"found {pixels.shape} and {pixels.dtype}; prepare them with bundle.pixels.decode."
            )
        logits, embeddings, novelties = self._session.run(
            ["logit", "embedding", "novelty"], {"pixels": pixels[np.newaxis]}
        )
        logit, novelty = float(logits[0]), float(novelties[0])
        for name, value in (("logit", logit), ("novelty", novelty)):
            if not np.isfinite(value):
                raise ScoringError(
                    f"The graph's {name} is {value}, expected a finite number; the model is broken."
                )
        return GraphOutput(logit, embeddings[0], novelty)

    def _check_contract(self) -> None:
        found = {
            node.name: (node.type, len(node.shape))
            for node in (*self._session.get_inputs(), *self._session.get_outputs())
        }
        expected = {
            "pixels": ("tensor(uint8)", 4),
            "logit": ("tensor(float)", 1),
            "embedding": ("tensor(float)", 2),
            "novelty": ("tensor(float)", 1),
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
    refusals: tuple[ReasonCode, ...]
    """Why the photograph is not scored; empty if and only if it has a logit."""
    advice: tuple[ReasonCode, ...] = ()
    """What would make a better photograph; the policy does not see it."""
    novelty: float | None = None
    """The graph's; None if the photograph never reached it."""


def score_image(
    graph: Graph, spec: PixelSpec, limits: QualityLimits, data: bytes, *, novelty_limit: float | None = None
) -> ImageEvidence:
    """Score one photograph from its file's bytes, as training, evaluation and the server all do.

    Raises:
        ImageError: the file cannot be used.
        ScoringError: the logit or the novelty is not finite.
    """
    return score_picture(graph, limits, decode(data, spec), novelty_limit=novelty_limit)


def score_picture(
    graph: Graph,
    limits: QualityLimits,
    picture: Picture,
    *,
    novelty_limit: float | None = None,
    advise: bool = True,
) -> ImageEvidence:
    """Score one decoded photograph.

    Args:
        graph: the network.
        limits: of the quality gate.
        picture: the photograph.
        novelty_limit: of the novelty gate. None leaves that gate to the reader: a table of predictions holds
            what the graph said, and ``Predictions.behind_gate`` applies the policy's limit.
        advise: False: the evidence has no advice; nothing else of it changes.

    Raises:
        ScoringError: the logit or the novelty is not finite.
    """
    quality = assess(picture, limits, advise=advise)
    return _evidence(quality, partial(graph.run, picture.pixels), novelty_limit)


def _evidence(
    quality: Assessment, network: Callable[[], GraphOutput], novelty_limit: float | None
) -> ImageEvidence:
    if quality.refusals:
        return ImageEvidence(None, quality.refusals, quality.advice)
    found = network()
    if unfamiliar(found.novelty, novelty_limit):
        refusals = (ReasonCode.out_of_distribution,)
        return ImageEvidence(None, refusals, quality.advice, found.novelty)
    return ImageEvidence(found.logit, (), quality.advice, found.novelty)


@dataclass(frozen=True, slots=True)
class Judgement:
    """One case before anything is put into words."""

    decision: Decision
    images: tuple[ImageEvidence, ...]
    """In the order given."""


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
        catalogue = self.languages.catalogue(language)
        return self.answer(self.judge(images, history), history, catalogue)

    def judge(self, images: Sequence[bytes], history: History = NO_HISTORY) -> Judgement:
        """Score one case without a word: whoever keeps codes only need not have a catalogue.

        Args:
            images: the files of its photographs, 1 to ``MAX_IMAGES_PER_CASE``.
            history: what is known beside them.

        Raises:
            ImageError, ScoringError: as ``score``.
        """
        return alone(self.judging(images, history))

    def judging(
        self,
        images: Sequence[bytes],
        history: History = NO_HISTORY,
        helpers: Executor | None = None,
        *,
        advise: bool = True,
    ) -> Steps[Judgement]:
        """``judge`` in three steps: what comes before the network, the network, and what comes after it.

        Args:
            images: the files of its photographs, 1 to ``MAX_IMAGES_PER_CASE``.
            history: what is known beside them.
            helpers: threads that have nothing else to do. They share the photographs, and judge their
                quality while the networks run; of a photograph that is refused the network was for nothing.
            advise: False: the evidence has no advice; nothing else of it changes.

        Raises:
            ImageError, ScoringError: as ``score``.
        """
        if not 1 <= len(images) <= MAX_IMAGES_PER_CASE:
            raise ScoringError(
                f"The case has {len(images)} photographs, expected 1 to {MAX_IMAGES_PER_CASE}; "
                "send those that show the lesion best."
            )
        pictures = self._pictures(images, helpers)
        del images  # photographs are large, and more cases may be decoded before the next step of this one
        networks: list[Callable[[], GraphOutput]]
        networks = [partial(self._graph.run, picture.pixels) for picture in pictures]
        gates = [partial(assess, picture, self.bundle.policy.quality, advise=advise) for picture in pictures]
        if helpers is None:
            qualities = [gate() for gate in gates]
        else:
            outcomes = from_both_ends([*networks, *gates], helpers)
            networks = [outcome.result for outcome in outcomes[: len(pictures)]]
            qualities = [outcome.result() for outcome in outcomes[len(pictures) :]]
        yield
        evidence = tuple(
            self._seen(number, quality, network)
            for number, (quality, network) in enumerate(zip(qualities, networks, strict=True), start=1)
        )
        yield
        decision = decide(self.bundle.policy, [image.logit for image in evidence], history)
        return Judgement(decision, evidence)

    def answer(self, judged: Judgement, history: History, catalogue: Catalogue) -> Answer:
        """Put a judged case into words.

        Args:
            judged: from ``judge``.
            history: the same that it was judged with.
            catalogue: one of ``languages``.
        """
        policy = self.bundle.policy
        seen = [_image_answer(policy, index, image, catalogue) for index, image in enumerate(judged.images)]
        return answer_for(self._issuer, judged.decision, seen, history, catalogue)

    def self_test(self) -> None:
        """Score the bundle's own pictures through the whole path and compare with what was sealed.

        Catches what a hash cannot: another Pillow or onnxruntime, a processor that computes otherwise.

        Raises:
            BundleError: a logit or a novelty differs by more than the sealed tolerance, or a disposition.
        """
        bundle = self.bundle
        for case in bundle.selftest.cases:
            data = bundle.selftest_pictures[case.file]
            try:
                served = self.judge([data])
                # Drawn pictures are unfamiliar to most models: the gate would hide what the graph computes.
                evidence = score_image(self._graph, bundle.header.pixels, bundle.policy.quality, data)
            except (ImageError, ScoringError) as error:
                raise BundleError(f"Self-test picture '{case.file}' cannot be scored here: {error}") from None
            self._compare(case, evidence, served.decision.disposition)

    def _pictures(self, images: Sequence[bytes], helpers: Executor | None) -> list[Picture]:
        reading = [partial(self._decoded, number, data) for number, data in enumerate(images, start=1)]
        if helpers is None:
            return [read() for read in reading]  # the first that cannot be read spares the others
        return [outcome.result() for outcome in from_both_ends(reading, helpers)]

    def _decoded(self, number: int, data: bytes) -> Picture:
        try:
            return decode(data, self.bundle.header.pixels)
        except ImageError as error:
            raise ImageError(error.code, f"Photograph {number}: {error}", index=number - 1) from None

    def _seen(self, number: int, quality: Assessment, network: Callable[[], GraphOutput]) -> ImageEvidence:
        try:
            return _evidence(quality, network, self.bundle.policy.novelty_limit)
        except ScoringError as error:
            raise ScoringError(f"Photograph {number}: {error}") from None

    def _compare(self, case: SelfTestCase, found: ImageEvidence, disposition: Disposition) -> None:
        tolerance = self.bundle.selftest.tolerance_logit
        scale = max(1.0, abs(case.novelty or 0.0))
        if (
            not _agree(case.logit, found.logit, tolerance)
            or not _agree(case.novelty, found.novelty, tolerance * scale)
            or disposition is not case.disposition
        ):
            raise BundleError(
                f"Self-test picture '{case.file}': sealed with logit {case.logit} and novelty {case.novelty} "
                f"({case.disposition}), found {found.logit} and {found.novelty} ({disposition}) here; do not "
                "serve this bundle on this machine, compare its Pillow and onnxruntime with those that "
                "sealed it."
            )


def _agree(expected: float | None, found: float | None, tolerance: float) -> bool:
    if expected is None or found is None:
        return expected is found
    return abs(expected - found) <= tolerance


def _image_answer(policy: Policy, index: int, image: ImageEvidence, catalogue: Catalogue) -> ImageAnswer:
    return ImageAnswer(
        index=index,
        gradable=image.logit is not None,
        logit=image.logit,
        score=None if image.logit is None else score_of(policy.calibrator, image.logit),
        reasons=tuple(reason(code, catalogue) for code in image.refusals),
        advice=tuple(reason(code, catalogue) for code in image.advice),
    )
