"""The file in which clinicians declare red flags, and how it becomes the rules of a policy.

Imports the YAML reader and the bundle.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from pydantic import BaseModel, ValidationError

from lesion_triage import strict_yaml
from lesion_triage.bundle.red_flags import (
    Action,
    AllOf,
    AnyOf,
    InRange,
    IsTrue,
    OneOf,
    RedFlag,
    RedFlags,
    Review,
)
from lesion_triage.errors import ConfigError

_DOCUMENTS: tuple[type[BaseModel], ...] = (
    RedFlags,
    Review,
    RedFlag,
    Action,
    AllOf,
    AnyOf,
    IsTrue,
    InRange,
    OneOf,
)
_KEYS = sorted({info.alias or name for one in _DOCUMENTS for name, info in one.model_fields.items()})
_NO_REVIEW = "write who has read the rules, or reviewed_by: [] if no clinician has yet"


def read(path: Path) -> RedFlags:
    """Read a file of red flags and check every word of it.

    Raises:
        ConfigError: file missing, not YAML, a key that is unknown or stands twice, a field that the history
            does not have, a condition or an action of another kind, or no word on who has reviewed the rules.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as red flags ({error}).") from None
    tree = strict_yaml.parse(text, str(path))
    return validated(tree, str(path))


def validated(tree: object, where: str) -> RedFlags:
    """Check every word of red flags that have been read.

    Args:
        tree: as YAML gives it.
        where: what a complaint begins with.

    Raises:
        ConfigError: as for ``read``.
    """
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: expected reviewed_by and flags, found {type(tree).__name__}.")
    if "reviewed_by" not in tree:
        raise ConfigError(f"{where}: reviewed_by is missing; {_NO_REVIEW}.")
    try:
        return RedFlags.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_explained(error)}") from None


def _explained(error: ValidationError) -> str:
    """All complaints in one sentence, unknown keys with the nearest known one."""
    parts = []
    for problem in error.errors():
        where = ".".join(str(step) for step in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(problem["loc"][-1]), _KEYS, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(_KEYS)}."
            parts.append(f"key '{where}' does not belong here; {hint}")
        else:
            parts.append(f"{where or 'file'}: {problem['msg'].removeprefix('Value error, ')}.")
    return " ".join(parts)
