"""From photographs to an answer, with the sealed graph.

Imports the graph and the rest of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Self

from lesion_triage.bundle.answers import Issuer, build_answer, build_reason
from lesion_triage.bundle.calibration import calibrated_score
from lesion_triage.bundle.graph import Graph, GraphOutput
from lesion_triage.bundle.history import NO_HISTORY, History
from lesion_triage.bundle.idle_threads import run_with_idle_threads
from lesion_triage.bundle.interleaving import SteppedTask, run_to_completion
from lesion_triage.bundle.languages import Languages
from lesion_triage.bundle.messages import Catalogue
from lesion_triage.bundle.novelty_gate import is_out_of_distribution
from lesion_triage.bundle.parallel import thread_map
from lesion_triage.bundle.pixels import Picture, decode
from lesion_triage.bundle.policy import Decision, decide
from lesion_triage.bundle.quality import QualityAssessment, assess_quality
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


@dataclass(frozen=True, slots=True)
class ImageEvidence:
    """What one photograph contributes to the decision: a logit, or why there is none."""

    logit: float | None
    refusals: tuple[ReasonCode, ...]
    """Why the photograph is not scored; empty if and only if it has a logit."""
    advice: tuple[ReasonCode, ...] = ()
    """What would make it better; the policy does not use it."""
    novelty: float | None = None
    """From the graph; None if the photograph never reached it."""


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
        novelty_limit: of the novelty gate. None leaves that gate to the reader: a predictions table holds the
            graph's outputs, and ``Predictions.behind_gate`` applies the policy's limit.
        advise: False: the evidence has no advice; nothing else in it changes.

    Raises:
        ScoringError: the logit or the novelty is not finite.
    """
    quality = assess_quality(picture, limits, advise=advise)
    return _evidence(quality, partial(graph.run, picture.pixels), novelty_limit)


def _evidence(
    quality: QualityAssessment, network: Callable[[], GraphOutput], novelty_limit: float | None
) -> ImageEvidence:
    if quality.refusals:
        return ImageEvidence(None, quality.refusals, quality.advice)
    found = network()
    if is_out_of_distribution(found.novelty, novelty_limit):
        refusals = (ReasonCode.out_of_distribution,)
        return ImageEvidence(None, refusals, quality.advice, found.novelty)
    return ImageEvidence(found.logit, (), quality.advice, found.novelty)


@dataclass(frozen=True, slots=True)
class CaseDecision:
    """One case, judged but not yet put into words."""

    decision: Decision
    images: tuple[ImageEvidence, ...]
    """In the order given."""


class Scorer:
    """A bundle that answers. Threads may share it."""

    def __init__(self, bundle: Bundle, languages: Languages | None = None) -> None:
        """Load the graph of an opened bundle.

        Args:
            bundle: sealed and verified.
            languages: the languages it answers in; None: those that we ship, English by default.

        Raises:
            BundleError: the graph cannot be loaded, or its shape differs from the header's.
        """
        self.bundle = bundle
        self._languages = languages
        self._issuer = Issuer.for_bundle(bundle)
        self._graph = Graph(bundle.graph, bundle.header.pixels)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open, verify and load the bundle in ``folder``; running ``self_test`` is left to the caller."""
        return cls(open_bundle(folder))

    @property
    def languages(self) -> Languages:
        """The languages it answers in.

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
            ImageError: a photograph cannot be used; the sentence names it by its position, from 1. The whole
                case is refused: leaving the photograph out could only lower its urgency.
            ScoringError: no photograph or too many, or a logit that is not finite.
        """
        catalogue = self.languages.catalogue(language)
        return self.answer(self.decide_case(images, history), history, catalogue)

    def decide_case(self, images: Sequence[bytes], history: History = NO_HISTORY) -> CaseDecision:
        """Judge one case without producing any text; no message catalogue is needed.

        Args:
            images: the files of its photographs, 1 to ``MAX_IMAGES_PER_CASE``.
            history: what is known beside them.

        Raises:
            ImageError, ScoringError: as ``score``.
        """
        return run_to_completion(self.decide_case_stepwise(images, history))

    def decide_case_stepwise(
        self,
        images: Sequence[bytes],
        history: History = NO_HISTORY,
        executor: Executor | None = None,
        *,
        advise: bool = True,
    ) -> SteppedTask[CaseDecision]:
        """``decide_case`` in three steps: before the network, the network, and after it.

        Args:
            images: the files of its photographs, 1 to ``MAX_IMAGES_PER_CASE``.
            history: what is known beside them.
            executor: idle threads. They share several photographs, and assess quality while the networks run;
                for a photograph that is then refused the network ran in vain.
            advise: False: the evidence has no advice; nothing else in it changes.

        Raises:
            ImageError, ScoringError: as ``score``.
        """
        if not 1 <= len(images) <= MAX_IMAGES_PER_CASE:
            raise ScoringError(
                f"The case has {len(images)} photographs, expected 1 to {MAX_IMAGES_PER_CASE}; "
                "send those that show the lesion best."
            )
        if len(images) == 1:
            executor = None  # to share the quality gate alone costs more than it saves (docs/adr/0076)
        pictures = self._decode_all(images, executor)
        del images  # they are large, and other cases may be decoded before this one's next step
        networks: list[Callable[[], GraphOutput]]
        networks = [partial(self._graph.run, picture.pixels) for picture in pictures]
        gates = [
            partial(assess_quality, picture, self.bundle.policy.quality, advise=advise)
            for picture in pictures
        ]
        if executor is None:
            qualities = [gate() for gate in gates]
        else:
            outcomes = run_with_idle_threads([*networks, *gates], executor)
            networks = [outcome.result for outcome in outcomes[: len(pictures)]]
            qualities = [outcome.result() for outcome in outcomes[len(pictures) :]]
        yield
        evidence = tuple(
            self._image_evidence(number, quality, network)
            for number, (quality, network) in enumerate(zip(qualities, networks, strict=True), start=1)
        )
        yield
        decision = decide(self.bundle.policy, [image.logit for image in evidence], history)
        return CaseDecision(decision, evidence)

    def answer(self, decided: CaseDecision, history: History, catalogue: Catalogue) -> Answer:
        """Put a judged case into words.

        Args:
            decided: from ``decide_case``.
            history: the one it was judged with.
            catalogue: one of ``languages``.
        """
        policy = self.bundle.policy
        images = [
            _image_answer(policy, index, image, catalogue) for index, image in enumerate(decided.images)
        ]
        return build_answer(self._issuer, decided.decision, images, history, catalogue)

    def self_test(self) -> None:
        """Score the bundle's own pictures, on all processors, and compare with the sealed results.

        Catches what a hash cannot: another Pillow or onnxruntime, a processor that computes differently.

        Raises:
            BundleError: a logit or a novelty differs by more than the sealed tolerance, or a disposition.
        """
        thread_map(self._self_test_case, self.bundle.selftest.cases)

    def _self_test_case(self, case: SelfTestCase) -> None:
        policy = self.bundle.policy
        try:
            picture = decode(self.bundle.selftest_pictures[case.file], self.bundle.header.pixels)
            quality = assess_quality(picture, policy.quality)
            network = cache(partial(self._graph.run, picture.pixels))  # so that it runs once for both
            # Drawn pictures are unfamiliar to most models: the gate would hide the graph's output.
            found = _evidence(quality, network, None)
            served = _evidence(quality, network, policy.novelty_limit)
        except (ImageError, ScoringError) as error:
            raise BundleError(f"Self-test picture '{case.file}' cannot be scored here: {error}") from None
        self._compare(case, found, decide(policy, [served.logit], NO_HISTORY).disposition)

    def _decode_all(self, images: Sequence[bytes], executor: Executor | None) -> list[Picture]:
        reading = [partial(self._decode, number, data) for number, data in enumerate(images, start=1)]
        if executor is None:
            return [read() for read in reading]  # the first that fails spares reading the others
        return [outcome.result() for outcome in run_with_idle_threads(reading, executor)]

    def _decode(self, number: int, data: bytes) -> Picture:
        try:
            return decode(data, self.bundle.header.pixels)
        except ImageError as error:
            raise ImageError(error.code, f"Photograph {number}: {error}", index=number - 1) from None

    def _image_evidence(
        self, number: int, quality: QualityAssessment, network: Callable[[], GraphOutput]
    ) -> ImageEvidence:
        try:
            return _evidence(quality, network, self.bundle.policy.novelty_limit)
        except ScoringError as error:
            raise ScoringError(f"Photograph {number}: {error}") from None

    def _compare(self, case: SelfTestCase, found: ImageEvidence, disposition: Disposition) -> None:
        tolerance = self.bundle.selftest.tolerance_logit
        scale = max(1.0, abs(case.novelty or 0.0))
        if (
            not _is_close(case.logit, found.logit, tolerance)
            or not _is_close(case.novelty, found.novelty, tolerance * scale)
            or disposition is not case.disposition
        ):
            raise BundleError(
                f"Self-test picture '{case.file}': sealed with logit {case.logit} and novelty {case.novelty} "
                f"({case.disposition}), found {found.logit} and {found.novelty} ({disposition}) here; do not "
                "serve this bundle on this machine, compare its Pillow and onnxruntime with those that "
                "sealed it."
            )


def _is_close(expected: float | None, found: float | None, tolerance: float) -> bool:
    if expected is None or found is None:
        return expected is found
    return abs(expected - found) <= tolerance


def _image_answer(policy: Policy, index: int, image: ImageEvidence, catalogue: Catalogue) -> ImageAnswer:
    return ImageAnswer(
        index=index,
        gradable=image.logit is not None,
        logit=image.logit,
        score=None if image.logit is None else calibrated_score(policy.calibrator, image.logit),
        reasons=tuple(build_reason(code, catalogue) for code in image.refusals),
        advice=tuple(build_reason(code, catalogue) for code in image.advice),
    )
