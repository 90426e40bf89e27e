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


def read_red_flags(path: Path) -> RedFlags:
    """Read a file of red flags and check every word of it.

    Raises:
        ConfigError: the file is missing or not YAML; a key is unknown or given twice; a field is not one of
            the history; a condition or an action is of an unknown kind; reviewers are not stated; there is no
            flag, or one that no history can raise; or a review is dated in the future.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as red flags ({error}).") from None
    tree = strict_yaml.parse(text, str(path))
    rules = validate_red_flags(tree, str(path))
    _refuse_ineffective_rules(rules, path)
    return rules


def validate_red_flags(tree: object, where: str) -> RedFlags:
    """Check red flags that have been parsed.

    Args:
        tree: the parsed YAML.
        where: the beginning of an error message.

    Raises:
        ConfigError: as for ``read_red_flags``, except for a missing flag, one that no history can raise, and
            a date in the future.
    """
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: expected reviewed_by and flags, found {type(tree).__name__}.")
    if "reviewed_by" not in tree:
        raise ConfigError(f"{where}: reviewed_by is missing; {_NO_REVIEW}.")
    try:
        return RedFlags.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_validation_message(error)}") from None


def _refuse_ineffective_rules(rules: RedFlags, path: Path) -> None:
    """Refuse what can only be a mistake: here, where it can be corrected, and not in a sealed policy."""
    if not rules.flags:
        raise ConfigError(f"{path}: no flag is declared; leave calibrate.red_flags out if none shall be.")
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)  # east of UTC it may be that day already
    for review in rules.reviewed_by:
        if review.reviewed_on > tomorrow:
            raise ConfigError(f"{path}: reviewed_on is {review.reviewed_on}, a day that has not come yet.")
    for flag in rules.flags:
        for part in _range_conditions(flag.when):
            lowest, highest = _ACCEPTED_RANGES[part.field]
            if (part.at_least is not None and part.at_least > highest) or (
                part.at_most is not None and part.at_most < lowest
            ):
                raise ConfigError(
                    f"{path}: flag '{flag.code}' asks of {part.field} what no history can say: it is from "
                    f"{lowest:g} to {highest:g}."
                )


def _range_conditions(condition: Condition) -> Iterator[InRange]:
    if isinstance(condition, InRange):
        yield condition
    elif isinstance(condition, AllOf | AnyOf):
        for part in condition.all_of if isinstance(condition, AllOf) else condition.any_of:
            yield from _range_conditions(part)


def _accepted_range(field: str) -> tuple[float, float]:
    """Lowest and highest value that a history accepts for a number, from the constraints of its field."""
    number = get_args(History.model_fields[field].annotation)[0]
    marks = [mark for info in get_args(number) if isinstance(info, FieldInfo) for mark in info.metadata]
    lowest, highest = (
        next(getattr(mark, end) for mark in marks if hasattr(mark, end)) for end in ("ge", "le")
    )
    return lowest, highest


_ACCEPTED_RANGES = {field: _accepted_range(field) for field in NUMBER_FIELDS}


def _validation_message(error: ValidationError) -> str:
    """All errors in one message; an unknown key comes with the nearest known one."""
    parts = []
    for problem in error.errors():
        where = ".".join(str(step) for step in problem["loc"])
        if problem["type"] == "extra_forbidden":
            parts.append(f"key '{where}' does not belong here; {hint(str(problem['loc'][-1]), _KEYS)}")
        else:
            parts.append(f"{where or 'file'}: {problem['msg'].removeprefix('Value error, ')}.")
    return " ".join(parts)
