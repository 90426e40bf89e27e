"""Every exception that this project raises on purpose, and the hint that many end with. Standard library.

An error is one sentence for a person: what was expected, what was found, where, and what to do.
The command line prints that sentence and exits with status 2; a traceback means a bug.

    LesionTriageError
    ├── ConfigError            a configuration file or an override
    ├── RunError               a run folder, or a stage asked for before the one it needs
    ├── DataError              a dataset on disk
    │   ├── ManifestError      a manifest that is missing, altered or inconsistent
    │   ├── SplitError         a split that is impossible, leaks, or belongs to another manifest
    │   ├── PredictionsError   a table of logits
    │   ├── DownloadError      a dataset that could not be downloaded
    │   ├── BacklogError       a list of cases to be scored, or the folder of their results
    │   └── AuditError         the audit of a dataset says fail, and nobody has accepted it
    ├── ImageError             one picture that cannot be used; carries a stable code
    ├── ScoringError           a case that could not be scored
    ├── TrainingError          weights, network or loss
    │   ├── DivergedError      a loss or a gradient that is not a number
    │   └── RetryableTrainingError  a full disk, a hub out of reach, a lost process: run again, it may succeed
    │       └── TrainingStateError  the state of an interrupted run is damaged or of another network
    ├── CalibrationError       calibrator, certificate, threshold
    ├── ExportError            ONNX conversion
    │   └── ParityError        the exported graph disagrees with the network
    ├── BundleError            a bundle that is incomplete, altered or of another version
    │   └── SignatureError     a bundle that is not signed by anyone trusted, or a key that cannot be used
    ├── ReportError            a report that cannot be printed, or bundles that cannot be compared
    ├── PromotionError         a bundle that is not fit to be promoted, or the record of promotions
    │   └── RegistryError      a model registry that cannot be reached, or contradicts itself
    └── AuditLogError          an audit log that is altered, incomplete, in use or cannot be written
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_MIN_SIMILARITY = 0.5
"""Least similarity to a known name for a suggestion, as difflib measures it."""


def hint(name: str, known: Iterable[str], fallback: str | None = None) -> str:
    """The end of an error's sentence about an unknown name: what to do.

    Args:
        name: not among ``known``.
        known: names.
        fallback: what to say if none is similar; None: list all known names.

    Returns:
        "did you mean 'x'?" with the nearest name, else "known: x, y, z." or ``fallback``.
    """
    names = list(known)
    if near := difflib.get_close_matches(name, names, n=1, cutoff=_MIN_SIMILARITY):
        return f"did you mean '{near[0]}'?"
    return f"known: {', '.join(names)}." if fallback is None else fallback


class LesionTriageError(Exception):
    """Base class; catch this to catch everything that the project raises on purpose."""


class ConfigError(LesionTriageError):
    """A configuration file or an override that cannot be used."""


class RunError(LesionTriageError):
    """A run folder that cannot be used, or a stage that was asked for before the one it needs."""


class DataError(LesionTriageError):
    """A dataset on disk that cannot be used."""


class ManifestError(DataError):
    """A manifest that is missing, altered or inconsistent."""


class SplitError(DataError):
    """A split that is impossible, leaks, or belongs to another manifest."""


class PredictionsError(DataError):
    """A table of logits that is missing, altered or holds a value that is not a number."""


class DownloadError(DataError):
    """A dataset, or a file of one, that could not be downloaded or is not what was published."""


class BacklogError(DataError):
    """A list of cases to be scored, or the folder of their results, that cannot be used."""


class AuditError(DataError):
    """The audit of a dataset found something that makes its results worthless, and nobody has accepted it."""


class ImageError(LesionTriageError):
    """One picture that cannot be used.

    Attributes:
        code: stable machine-readable reason, such as ``image_not_decodable``.
        index: position of the picture in its case, from 0; None while it is not part of one.
    """

    def __init__(self, code: str, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.index = index


class ScoringError(LesionTriageError):
    """A case that could not be scored: no photograph, too many, or a logit that is not a number."""


class TrainingError(LesionTriageError):
    """Weights that do not fit, a backbone that does not exist, a loss that is not a number."""


class DivergedError(TrainingError):
    """A loss, a gradient or a logit that is not a number: the weights up to that point are unusable too."""


class RetryableTrainingError(TrainingError):
    """A full disk, a hub out of reach, a lost process: the same run may succeed if started again."""


class TrainingStateError(RetryableTrainingError):
    """The saved state cannot be resumed; training from scratch may work."""


class CalibrationError(LesionTriageError):
    """A calibrator or a certificate that the data at hand cannot support."""


class ExportError(LesionTriageError):
    """The network could not be written as a graph."""


class ParityError(ExportError):
    """The exported graph disagrees with the network it came from."""


class BundleError(LesionTriageError):
    """A bundle that is incomplete, altered, or of a version this code does not read."""


class SignatureError(BundleError):
    """A bundle that is not signed by anyone who is trusted, or a key that cannot be used."""


class ReportError(LesionTriageError):
    """A report that cannot be made or printed, or two bundles that cannot be compared."""


class PromotionError(LesionTriageError):
    """A bundle that does not qualify for promotion, or a record of promotions that was altered."""


class RegistryError(PromotionError):
    """A model registry that cannot be reached, refuses, or whose content contradicts itself."""


class AuditLogError(LesionTriageError):
    """An audit log that is altered, incomplete, in use by another process, or cannot be written."""


def without_password(text: str) -> str:
    """The text, with user names and passwords removed from its URLs."""
    return re.sub(r"//[^/\s]*@", "//", text)


def first_line(error: BaseException) -> str:
    """The first line of what an error of somebody else says; its class if it says nothing."""
    said = str(error).strip()
    return said.splitlines()[0] if said else type(error).__name__
