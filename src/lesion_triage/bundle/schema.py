"""The contract between training and serving, as types.

Imports pydantic, the document, calibration, the certificate, the history and the red flags.

Everything in a bundle's JSON files and everything in the answer for a scored case is defined here, once.
Scores are calibrated probabilities in [0, 1]; logits are the network's raw output.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from lesion_triage.bundle.calibration import Calibrator
from lesion_triage.bundle.certificate import AgeEdges, ServedDimension
from lesion_triage.bundle.document import Document, Fraction, Sha256
from lesion_triage.bundle.red_flags import NO_RED_FLAGS, RedFlags

SCHEMA_VERSION = 3


class Disposition(StrEnum):
    """The policy's decision on a case. A clinician reads all three kinds."""

    needs_in_person = "needs_in_person"
    below_threshold = "below_threshold"
    ungradable = "ungradable"


class ReasonCode(StrEnum):
    """Why a case got its disposition, or why a photograph could not be used."""

    score_at_or_above_threshold = "score_at_or_above_threshold"
    score_below_threshold = "score_below_threshold"
    no_gradable_image = "no_gradable_image"
    uncertified_subgroup = "uncertified_subgroup"
    red_flag = "red_flag"
    red_flag_band = "red_flag_band"
    unusable_image_band = "unusable_image_band"
    out_of_distribution = "out_of_distribution"
    image_too_small = "image_too_small"
    image_too_dark = "image_too_dark"
    image_too_bright = "image_too_bright"
    image_without_detail = "image_without_detail"
    image_blurred = "image_blurred"
    image_compressed = "image_compressed"
    image_glare = "image_glare"
    image_colour_cast = "image_colour_cast"
    image_no_lesion_found = "image_no_lesion_found"
    image_lesion_cut_off = "image_lesion_cut_off"
    image_hair = "image_hair"
    image_ink = "image_ink"


class PixelSpec(Document):
    """How a file becomes the pixels that the network sees; see ``bundle.pixels``."""

    version: Literal[1] = 1
    size_px: int = Field(ge=32, le=1024)
    """Side of the square that the whole picture is resized to."""
    max_pixels: int = Field(default=50_000_000, ge=1_000_000)
    """A file whose header announces more pixels is refused before decoding."""
    max_bytes: int = Field(default=30_000_000, ge=100_000)
    """A longer file is refused unread."""


Level = Annotated[FiniteFloat, Field(ge=0, le=255)]


class QualityLimits(Document):
    """What a photograph must show to be scored, and when to ask for a better one although it is scored.

    ``min_`` and ``max_`` refuse, ``advise_`` only advises. A value at a limit passes. Grey levels are 0
    (black) to 255 (white). docs/picture-quality.md says what each limit was chosen on and what it costs.
    """

    min_short_side_px: int = Field(default=100, ge=1)
    """Shorter side of the original picture."""
    min_mean_level: Level = 30.0
    """Low because skin may be dark: light skin at this level is under-exposed by four stops."""
    max_mean_level: Level = 247.0
    min_contrast: Annotated[FiniteFloat, Field(ge=0, le=128)] = 2.0
    """Standard deviation of the grey levels. Low, because a lesion on very dark skin may differ by little."""
    max_clipped_share: Fraction = 0.4
    """Share of the picture that is over-exposed: two of three channels at 250 or more, so hue is lost."""
    advise_clipped_share: Fraction = 0.1
    max_glare_share: Fraction = 0.15
    """Share of the picture that is burnt out: all three channels at 250 or more."""
    advise_glare_share: Fraction = 0.01
    min_focus: Annotated[FiniteFloat, Field(ge=0, le=2)] = 0.34
    """Sharpness where the picture is sharpest, see ``bundle.focus``; pure blur gives 0.20."""
    advise_focus: Annotated[FiniteFloat, Field(ge=0, le=2)] = 0.40
    max_cast: Annotated[FiniteFloat, Field(ge=1)] = 1.3
    """Factor by which a ratio of two channels exceeds what skin of any tone shows in neutral light."""
    advise_cast: Annotated[FiniteFloat, Field(ge=1)] = 1.1
    max_erased_level: Level = 8.0
    """Amplitude, in grey levels, of the coarse structure that JPEG compression rounds away."""
    advise_erased_level: Level = 4.0
    advise_lesion_step: Fraction = 0.08
    """No lesion found if the darker part is darker than the rest by less than this share."""
    advise_lesion_offset: Annotated[FiniteFloat, Field(ge=0)] = 0.5
    """Cut off if the centre of the darker part is farther from the middle than this share of half a side."""
    advise_hair_share: Fraction = 0.01
    """Share of the picture under dark, thin lines."""
    advise_ink_share: Fraction = 0.01
    """Share of the picture's outer part in the colours of skin markers."""

    @model_validator(mode="after")
    def _advice_comes_first(self) -> Self:
        pairs = (
            ("clipped_share", self.advise_clipped_share, self.max_clipped_share),
            ("glare_share", self.advise_glare_share, self.max_glare_share),
            ("focus", self.min_focus, self.advise_focus),
            ("cast", self.advise_cast, self.max_cast),
            ("erased_level", self.advise_erased_level, self.max_erased_level),
            ("mean_level", self.min_mean_level, self.max_mean_level),
        )
        for name, lower, upper in pairs:
            if lower > upper:
                raise ValueError(
                    f"the limits of {name} are the wrong way round: {lower} must not exceed {upper}, "
                    "or a picture would be refused without ever being advised on"
                )
        return self


class Grouping(Document):
    """Groups of cases that the certificate covers, divided by one field of the history."""

    by: ServedDimension
    age_edges_years: AgeEdges = ()
    thresholds: dict[str, Fraction]
    """By group. A case of a group that is not listed goes up, whatever its score."""


class Policy(Document):
    """Everything between a logit and an answer, as plain numbers."""

    calibrator: Calibrator
    aggregation: Literal["max", "mean"] = "max"
    """How the logits of one case's gradable photographs become the case's logit."""
    threshold: Fraction
    """``score >= threshold`` refers; if groups have thresholds of their own, this is the lowest."""
    groupings: tuple[Grouping, ...] = ()
    """A case takes the lowest threshold of its groups."""
    band_limits: tuple[Fraction, Fraction, Fraction]
    """Lowest score of priority bands 1, 2 and 3; anything lower is band 4."""
    ungradable_band: Literal[1, 2, 3, 4] = 1
    """Band of a case that cannot be scored: early, because a retake takes time."""
    deadline_hours: Annotated[FiniteFloat, Field(gt=0)] | None = None
    """A case that has waited longer is read next, whatever its band; None: the site has not chosen one."""
    quality: QualityLimits = QualityLimits()
    red_flags: RedFlags = NO_RED_FLAGS
    """What in a history sends a case up, whatever its score."""
    novelty_limit: Annotated[FiniteFloat, Field(gt=0)] | None = None
    """A photograph whose novelty is this or more is not scored; None: the gate is off."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        first, second, third = self.band_limits
        if not first >= second >= third:
            raise ValueError(f"band_limits must descend, found {self.band_limits}")
        if third > self.threshold:
            raise ValueError(
                f"the lowest limit {third} lies above the threshold {self.threshold}: "
                "a referred case would wait in the last band"
            )
        lowest = min(
            (min(g.thresholds.values(), default=1.0) for g in self.groupings), default=self.threshold
        )
        if lowest < self.threshold:
            raise ValueError(f"a group's threshold {lowest} lies below the policy's {self.threshold}")
        return self


class ModelFacts(Document):
    """Facts about the graph in the header; nothing here is needed to score."""

    backbone: str
    parameters: int = Field(ge=1)
    embedding_width: int = Field(ge=1)
    views: Literal[1, 2, 4, 8]
    """Mirrored or turned copies of a picture that the graph averages over."""
    center_crop: float = Field(default=1.0, ge=0.5, le=1)
    """Share of each side that half of the views show, enlarged; 1: every view shows the whole picture."""

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A header sealed before the field existed keeps its hash."""
        content: dict[str, Any] = serialize(self)
        if self.center_crop == 1:
            del content["center_crop"]
        return content


class SealedFile(BaseModel):
    """One file of the bundle. Not a ``Document``: its field would hide that class's method ``sha256``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Sha256
    size_bytes: int = Field(ge=0)


class Header(Document):
    """``bundle.json``: written last, so its existence means the bundle is whole."""

    schema_version: Literal[3] = 3
    name: str
    created_at: str
    """UTC, ISO 8601."""
    made_with: str
    """Distribution and version that sealed the bundle."""
    synthetic: bool
    """True if the model saw drawn pictures only: never for use on people."""
    model: ModelFacts
    pixels: PixelSpec
    data_citation: tuple[str, ...]
    """Licence and citation of every dataset behind the numbers."""
    files: dict[str, SealedFile]
    seal: Sha256
    """Hash of the canonical JSON of every other field."""


class SelfTestCase(Document):
    """A drawn picture and the scorer's result for it on the machine that sealed the bundle."""

    file: str
    logit: FiniteFloat | None
    """Before the novelty gate; None if the quality gate refused the picture."""
    novelty: FiniteFloat | None
    """None if the logit is None."""
    disposition: Disposition


class SelfTest(Document):
    """Run when a bundle is loaded for service."""

    tolerance_logit: Annotated[FiniteFloat, Field(gt=0)] = 1e-3
    """Processors differ in the last digits of a convolution; a larger difference means another model. For a
    novelty above 1 the tolerance is relative."""
    cases: tuple[SelfTestCase, ...]


class Reason(Document):
    """A stable code and its sentence for people."""

    code: ReasonCode
    text: str
    coaching: str | None = None
    """How to take a better photograph, in plain words; None if a better one would change nothing."""


class Remark(Document):
    """A stable code and its sentence for people, for anything other than a reason."""

    code: str
    text: str


class PresentFlag(Document):
    """A red flag of the policy that the history raises."""

    code: str
    text: str
    refers: bool
    """True: it asks for an in-person visit, whatever the score."""
    up_to_band: Literal[1, 2, 3] | None
    """The last priority band in which the flag lets the case wait; None: no limit."""


class ImageAnswer(Document):
    """What was found in one photograph of the case."""

    index: int = Field(ge=0)
    """Position in the request, from 0."""
    gradable: bool
    logit: FiniteFloat | None
    score: Fraction | None
    reasons: tuple[Reason, ...]
    """Everything that keeps it from having a score; empty if it is gradable."""
    advice: tuple[Reason, ...]
    """What would make a better photograph, though it does not prevent a score."""


class Answer(Document):
    """Answer for one case: score, disposition and reasons, side by side."""

    schema_version: Literal[2] = 2
    language: str
    """Language of every text below, as a BCP 47 tag; codes are the same in all languages."""
    disposition: Disposition
    priority_band: Literal[1, 2, 3, 4]
    score: Fraction | None
    """Of the case; None if and only if no photograph was gradable."""
    threshold: Fraction
    """The threshold that this case was compared with."""
    deadline_hours: FiniteFloat | None
    """A case that has waited longer is read next, whatever its band; None: the site has not chosen one."""
    reasons: tuple[Reason, ...]
    red_flags: tuple[PresentFlag, ...]
    images: tuple[ImageAnswer, ...]
    limits: tuple[Remark, ...]
    """What makes this remote assessment less than an examination."""
    not_assessed: tuple[Remark, ...]
    """What nobody has examined."""
    counselling: tuple[Remark, ...]
    """What to tell the patient: what to watch for, and when to seek care sooner."""
    note: str
    """Plain text for the clinical record, to be checked and completed by the clinician."""
    notice: str
    synthetic: bool
    """True if the model behind the answer saw drawn pictures only."""
    bundle_name: str
    bundle_sha256: Sha256
    certificate_id: str
