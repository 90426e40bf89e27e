"""What is kept of a scored case: one row of codes and numbers. Imports pyarrow, Unicode paths, the bundle.

A case that could not be scored has a row too. It says ``not_scored`` and why; it has no score and no band.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from lesion_triage.backlog.listing import Case
from lesion_triage.bundle.calibration import calibrated_score
from lesion_triage.bundle.history import history_from_text
from lesion_triage.bundle.interleaving import SteppedTask, run_interleaved
from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE, ImageEvidence, Scorer
from lesion_triage.data.unicode_paths import UnicodePathResolver
from lesion_triage.errors import BacklogError, ImageError, ScoringError

NOT_SCORED = "not_scored"
"""Used instead of a disposition. Not null, since ``disposition != 'below_threshold'`` would drop nulls."""

NOT_READABLE = "image_not_readable"
TOO_MANY_IMAGES = "too_many_images"
SCORING_FAILED = "scoring_failed"

_RESOURCE_ERRNOS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors of this machine's resources, which are not the fault of a photograph."""

Extra = Literal["images", "note", "answer"]
"""What a row may have beyond codes: each photograph's evidence, the note for the record, the whole answer."""

Row = dict[str, Any]
WorkItem = tuple[Case, Sequence[bytes] | None]
"""A case, and its photographs if they are at hand."""

_CODES = pa.list_(pa.string())
_IMAGE = pa.struct(
    [
        ("index", pa.int32()),
        ("gradable", pa.bool_()),
        ("logit", pa.float64()),
        ("score", pa.float64()),
        ("novelty", pa.float64()),
        ("reasons", _CODES),
        ("advice", _CODES),
    ]
)
COLUMNS = pa.schema(
    [
        pa.field("position", pa.int64(), nullable=False),
        pa.field("case_id", pa.string(), nullable=False),
        pa.field("photographs", pa.int32(), nullable=False),
        pa.field("disposition", pa.string(), nullable=False),
        pa.field("priority_band", pa.int8()),
        pa.field("score", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("reasons", _CODES),
        pa.field("red_flags", _CODES),
        pa.field("unusable_images", pa.list_(pa.struct([("index", pa.int32()), ("reasons", _CODES)]))),
        pa.field("error_code", pa.string()),
        pa.field("error_image", pa.int32()),
        pa.field("synthetic", pa.bool_(), nullable=False),
        pa.field("certificate_id", pa.string(), nullable=False),
        pa.field("bundle_sha256", pa.string(), nullable=False),
    ]
)
EXTRA_COLUMNS: dict[Extra, pa.Field] = {
    "images": pa.field("images", pa.list_(_IMAGE)),
    "note": pa.field("note", pa.string()),
    "answer": pa.field("answer", pa.string()),
}


def schema_with(extras: Collection[Extra]) -> pa.Schema:
    """The schema of rows with these extras."""
    schema = COLUMNS
    for name, field in EXTRA_COLUMNS.items():
        if name in extras:
            schema = schema.append(field)
    return schema


class RowBuilder:
    """Scores cases and builds their rows. Threads may share it."""

    def __init__(self, scorer: Scorer, images: Path, extras: Collection[Extra]) -> None:
        """Prepare.

        Args:
            scorer: for the bundle, with its self-test passed. It answers in its default language.
            images: what the paths of photographs are relative to.
            extras: what rows have beyond codes.

        Raises:
            ConfigError: texts are requested, and a red flag of the policy has none.
        """
        self._scorer, self._root, self._extras = scorer, images, frozenset(extras)
        self._path_resolver = UnicodePathResolver(images)
        # Texts take a twentieth of a case's time, so they are made only if they are kept.
        self._catalogue = scorer.languages.catalogue() if {"note", "answer"} & self._extras else None
        self._with_advice = bool(self._extras)  # every extra contains it
        bundle = scorer.bundle
        self._constant_columns = {
            "synthetic": bundle.header.synthetic,
            "certificate_id": bundle.certificate.certificate_id(),
            "bundle_sha256": bundle.sha256,
        }
        self.max_bytes = bundle.header.pixels.max_bytes
        """Limit per photograph; a longer one is refused unread."""

    def rows(self, items: Sequence[WorkItem]) -> list[Row]:
        """The rows of several cases, scored in step.

        Args:
            items: the cases, each with its photographs. None: they are read from disk, those of the next case
                once this one's are decoded.

        Raises:
            BacklogError: this machine lacks the resources to read a photograph.
        """
        return run_interleaved([self._row(case, files) for case, files in items])

    def _row(self, case: Case, files: Sequence[bytes] | None) -> SteppedTask[Row]:
        row: Row = {"position": case.position, "case_id": case.case_id, "photographs": case.photographs}
        try:
            if case.photographs > MAX_IMAGES_PER_CASE:
                raise ImageError(TOO_MANY_IMAGES, "The case has too many photographs.")
            scored = yield from self._score_case(case, self._read_files(case) if files is None else files)
        except ImageError as error:
            scored = _not_scored_row(error.code, error.index)
        except ScoringError:
            scored = _not_scored_row(SCORING_FAILED, None)
        return row | scored | self._constant_columns

    def _score_case(self, case: Case, files: Sequence[bytes]) -> SteppedTask[Row]:
        history = history_from_text(case.history)
        judging = self._scorer.decide_case_stepwise(files, history, advise=self._with_advice)
        del files  # only one case's files are in memory at a time, however many cases are interleaved
        judgement = yield from judging
        decision = judgement.decision
        row: Row = {
            "disposition": decision.disposition.value,
            "priority_band": decision.priority_band,
            "score": decision.score,
            "threshold": decision.threshold,
            "reasons": [code.value for code in decision.reasons],
            "red_flags": [flag.code for flag in decision.red_flags],
            "unusable_images": [
                {"index": index, "reasons": [code.value for code in image.refusals]}
                for index, image in enumerate(judgement.images)
                if image.logit is None
            ],
        }
        if "images" in self._extras:
            row["images"] = [self._image(index, image) for index, image in enumerate(judgement.images)]
        if self._catalogue is not None:
            answer = self._scorer.answer(judgement, history, self._catalogue)
            row |= {"note": answer.note, "answer": answer.model_dump_json()}
        return row

    def _image(self, index: int, image: ImageEvidence) -> Row:
        calibrator = self._scorer.bundle.policy.calibrator
        return {
            "index": index,
            "gradable": image.logit is not None,
            "logit": image.logit,
            "score": None if image.logit is None else calibrated_score(calibrator, image.logit),
            "novelty": image.novelty,
            "reasons": [code.value for code in image.refusals],
            "advice": [code.value for code in image.advice],
        }

    def _read_files(self, case: Case) -> list[bytes]:
        return [self._read_file(index, image) for index, image in enumerate(case.images)]

    def _read_file(self, index: int, image: str) -> bytes:
        """Read at most enough to show that a file is too long; never read a pipe, which might not end."""
        max_bytes = self.max_bytes
        try:
            path = self._root / self._path_resolver.resolve_or_raise(image)
            file_status = path.stat()
            if not stat.S_ISREG(file_status.st_mode):
                raise ImageError(NOT_READABLE, "The photograph is not a file.", index=index)
            with path.open("rb") as stream:
                return stream.read() if file_status.st_size <= max_bytes else stream.read(max_bytes + 1)
        except OSError as error:
            if error.errno in _RESOURCE_ERRNOS:
                raise BacklogError(
                    f"{self._root}: photographs cannot be read because this machine is out of resources "
                    f"({error.strerror}); the same command continues from there once they are free."
                ) from None
            raise ImageError(NOT_READABLE, f"cannot be read ({error.strerror}).", index=index) from None


def _not_scored_row(code: str, index: int | None) -> Row:
    return {"disposition": NOT_SCORED, "error_code": code, "error_image": index}
