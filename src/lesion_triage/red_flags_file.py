"""The file in which clinicians declare red flags, and how it becomes the rules of a policy.

Imports the YAML reader and the bundle.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from lesion_triage import strict_yaml
from lesion_triage.bundle.history import History
from lesion_triage.bundle.red_flags import (
    NUMBER_FIELDS,
    Action,
    AllOf,
    AnyOf,
    Condition,
    InRange,
    IsTrue,
    OneOf,
    RedFlag,
    RedFlags,
    Review,
)
from lesion_triage.errors import ConfigError, hint

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
            does not have, a condition or an action of another kind, or no word on who has reviewed the rules;
            no flag at all, one that no history can raise, or a review of a day that has not come.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as red flags ({error}).") from None
    tree = strict_yaml.parse(text, str(path))
    rules = validated(tree, str(path))
    _refuse_idle(rules, path)
    return rules


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


def _refuse_idle(rules: RedFlags, path: Path) -> None:
    """Refuse what can only be a slip: here, where it can be mended, and not in a policy that is sealed."""
    if not rules.flags:
        raise ConfigError(f"{path}: no flag is declared; leave calibrate.red_flags out if none shall be.")
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)  # it may be that day already east of here
    for review in rules.reviewed_by:
        if review.reviewed_on > tomorrow:
            raise ConfigError(f"{path}: reviewed_on is {review.reviewed_on}, a day that has not come yet.")
    for flag in rules.flags:
        for part in _ranges(flag.when):
            lowest, highest = _BOUNDS[part.field]
            if (part.at_least is not None and part.at_least > highest) or (
                part.at_most is not None and part.at_most < lowest
            ):
                raise ConfigError(
                    f"{path}: flag '{flag.code}' asks of {part.field} what no history can say: it is from "
                    f"{lowest:g} to {highest:g}."
                )


def _ranges(condition: Condition) -> Iterator[InRange]:
    if isinstance(condition, InRange):
        yield condition
    elif isinstance(condition, AllOf | AnyOf):
        for part in condition.all_of if isinstance(condition, AllOf) else condition.any_of:
            yield from _ranges(part)


def _bounds(field: str) -> tuple[float, float]:
    """What a history may say of a number, as the field itself has it."""
    number = get_args(History.model_fields[field].annotation)[0]
    marks = [mark for info in get_args(number) if isinstance(info, FieldInfo) for mark in info.metadata]
    lowest, highest = (
        next(getattr(mark, end) for mark in marks if hasattr(mark, end)) for end in ("ge", "le")
    )
    return lowest, highest


_BOUNDS = {field: _bounds(field) for field in NUMBER_FIELDS}


def _explained(error: ValidationError) -> str:
    """All complaints in one sentence, unknown keys with the nearest known one."""
    parts = []
    for problem in error.errors():
        where = ".".join(str(step) for step in problem["loc"])
        if problem["type"] == "extra_forbidden":
            parts.append(f"key '{where}' does not belong here; {hint(str(problem['loc'][-1]), _KEYS)}")
        else:
            parts.append(f"{where or 'file'}: {problem['msg'].removeprefix('Value error, ')}.")
    return " ".join(parts)
