"""Red flags: what in a history sends a case up, whatever its score. Rules are data, not code.

Imports pydantic, the document and the history.

No condition requires a no or a missing answer. So a further yes never makes fewer flags fire, and a missing
answer neither fires a flag nor prevents one from firing. Rules can only send cases up, and a certificate
issued without them still holds with them.
"""

from __future__ import annotations

import types
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    Tag,
    model_validator,
)

from lesion_triage.bundle.document import Document
from lesion_triage.bundle.history import ISIC_TERMS, GroupName, History
from lesion_triage.errors import hint

Code = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Presence = Literal["present", "absent", "not_known"]
_CONDITION_KEYS = ("all_of", "any_of", "is", "at_least", "at_most", "one_of")


def _fields_of_type(kind: type) -> tuple[str, ...]:
    """Fields of the history whose answers are of type ``kind``."""
    return tuple(name for name, info in History.model_fields.items() if kind in _plain_types(info.annotation))


def _plain_types(annotation: Any) -> set[Any]:
    """The plain types inside ``X | None``, whatever their constraints."""
    if isinstance(annotation, types.UnionType) or get_args(annotation):
        return {kind for part in get_args(annotation) for kind in _plain_types(part)}
    return {annotation}


YES_NO_FIELDS = _fields_of_type(bool)
NUMBER_FIELDS = _fields_of_type(float)
GROUP_FIELDS = _fields_of_type(str)


def _known_field(known: tuple[str, ...], what: str) -> AfterValidator:
    def check(name: str) -> str:
        if name not in known:
            all_of_them = f"known: {', '.join(known)}"
            raise ValueError(f"the history has no {what} '{name}'; {hint(name, known, all_of_them)}")
        return name

    return AfterValidator(check)


class IsTrue(Document):
    """The answer is yes: ``{field: bleeding, is: true}``."""

    model_config = ConfigDict(serialize_by_alias=True)

    field: Annotated[str, _known_field(YES_NO_FIELDS, "yes-or-no question")]
    is_: Literal[True] = Field(alias="is")
    """There is no ``is: false``: with a rule that fires on a no, a yes could lower the urgency."""

    def holds(self, history: History) -> bool | None:
        """Whether the condition holds; None if the history leaves it open. The same for every condition."""
        answer: bool | None = getattr(history, self.field)
        return answer


class InRange(Document):
    """The number was given and is in the range, ends included: ``{field: age_years, at_least: 40}``."""

    field: Annotated[str, _known_field(NUMBER_FIELDS, "number")]
    at_least: FiniteFloat | None = None
    at_most: FiniteFloat | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("expected at_least, at_most or both")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"no number is at least {self.at_least:g} and at most {self.at_most:g}")
        return self

    def holds(self, history: History) -> bool | None:
        """Whether the condition holds; None if the number was not given."""
        answer: float | None = getattr(history, self.field)
        if answer is None:
            return None
        above = self.at_least is None or answer >= self.at_least
        return above and (self.at_most is None or answer <= self.at_most)


class OneOf(Document):
    """The group was given and is one of these: ``{field: anatom_site_general, one_of: [oral/genital]}``.

    Words are compared ignoring case, surrounding blanks, and whether an accent is a character of its own.
    """

    field: Annotated[str, _known_field(GROUP_FIELDS, "group")]
    one_of: tuple[GroupName, ...] = Field(min_length=1)

    def holds(self, history: History) -> bool | None:
        """Whether the condition holds; None if the word may still mean one of these.

        "Vulva" does not rule out oral/genital, nor does "head/neck" rule out "scalp": only words of the usual
        list are known to be mutually exclusive.
        """
        answer = getattr(history, self.field)
        if answer is None:
            return None
        word, asked = _normalise_term(answer), set(map(_normalise_term, self.one_of))
        if word in asked:
            return True
        return False if {word, *asked} <= set(map(_normalise_term, ISIC_TERMS[self.field])) else None


def _normalise_term(word: str) -> str:
    return unicodedata.normalize("NFC", word.strip().casefold())


class AllOf(Document):
    """All parts hold. An empty list is refused: it would always hold."""

    all_of: tuple[Condition, ...] = Field(min_length=1)

    def holds(self, history: History) -> bool | None:
        """False if any part is False; else None if any is None (Kleene's strong logic); else True."""
        results = [part.holds(history) for part in self.all_of]
        return False if False in results else None if None in results else True


class AnyOf(Document):
    """At least one part holds."""

    any_of: tuple[Condition, ...] = Field(min_length=1)

    def holds(self, history: History) -> bool | None:
        """True if any part is True; else None if any is None; else False."""
        results = [part.holds(history) for part in self.any_of]
        return True if True in results else None if None in results else False


def _condition_kind(value: Any) -> str | None:
    """The kind of a condition, recognised by the key that only this kind has."""
    keys = value if isinstance(value, dict) else _given_keys(value)
    found = [key for key in _CONDITION_KEYS if key in keys]
    numbers = {"at_least", "at_most"}
    return ("range" if set(found) <= numbers else found[0]) if found else None


def _given_keys(condition: BaseModel) -> set[str]:
    """Of a condition already parsed. Dumping it would ask for the kind of each part again, at every depth."""
    fields = type(condition).model_fields.items()
    return {info.alias or name for name, info in fields if getattr(condition, name) is not None}


def _require_mapping(value: Any) -> Any:
    if not isinstance(value, dict | BaseModel):
        raise ValueError(f"expected a condition such as {{field: bleeding, is: true}}, found {value!r}")
    return value


Condition = Annotated[
    Annotated[AllOf, Tag("all_of")]
    | Annotated[AnyOf, Tag("any_of")]
    | Annotated[IsTrue, Tag("is")]
    | Annotated[InRange, Tag("range")]
    | Annotated[OneOf, Tag("one_of")],
    Discriminator(
        _condition_kind,
        custom_error_type="condition",
        custom_error_message=f"expected one of the keys {', '.join(_CONDITION_KEYS)}",
    ),
    BeforeValidator(_require_mapping),
]
"""When a flag fires. The set is closed: there are no other kinds and no way to add one."""


class Action(Document):
    """The effect of a flag. It can only send a case up."""

    refer: bool = False
    """The case needs an in-person visit, whatever its score, and does not wait in the last band."""
    up_to_band: Literal[1, 2, 3] | None = None
    """The case waits in this priority band or an earlier one."""

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not self.refer and self.up_to_band is None:
            raise ValueError("expected refer: true, up_to_band: 1, 2 or 3, or both")
        return self


class RedFlag(Document):
    """One rule."""

    code: Code
    """Stable; its texts are in the message catalogue."""
    when: Condition
    action: Action
    source: str = Field(min_length=1, max_length=500)
    """Origin of the rule: a citation, or a statement that there is none."""


class Review(Document):
    """Who, qualified to decide on it, reviewed the rules, and when."""

    by: str = Field(min_length=1, max_length=200)
    """A role and a clinic; whether to give a name is the site's choice."""
    reviewed_on: date
    """Not named ``on``, which YAML reads as true."""


class RedFlags(Document):
    """The rules of a policy, and who reviewed them."""

    version: Literal[1] = 1
    reviewed_by: tuple[Review, ...] = ()
    """Empty: not yet reviewed by a clinician, which must be shown to every reader of the policy."""
    flags: tuple[RedFlag, ...] = ()

    @model_validator(mode="after")
    def _codes_are_unique(self) -> Self:
        codes = [flag.code for flag in self.flags]
        if twice := {code for code in codes if codes.count(code) > 1}:
            raise ValueError(f"two flags have the code {', '.join(sorted(twice))}")
        return self


NO_RED_FLAGS = RedFlags()


def raised_flags(flags: Sequence[RedFlag], history: History) -> tuple[RedFlag, ...]:
    """The flags whose conditions hold, in the order of ``flags``."""
    return tuple(flag for flag in flags if flag.when.holds(history))


def flag_presence(flag: RedFlag, history: History) -> Presence:
    """What the history says of a flag.

    Returns:
        ``not_known`` if it has not fired but could: an answer is missing, or a word is not a known one.
    """
    holds = flag.when.holds(history)
    return "not_known" if holds is None else "present" if holds else "absent"


def group_fields_in_rules(flags: Iterable[RedFlag]) -> tuple[str, ...]:
    """The group fields of the history that some rule looks at, in the history's order."""
    read = {name for flag in flags for name in _group_fields_in(flag.when)}
    return tuple(name for name in GROUP_FIELDS if name in read)


def _group_fields_in(condition: Condition) -> set[str]:
    if isinstance(condition, OneOf):
        return {condition.field}
    parts = condition.all_of if isinstance(condition, AllOf) else ()
    parts = condition.any_of if isinstance(condition, AnyOf) else parts
    return {name for part in parts for name in _group_fields_in(part)}


def any_flag_refers(flags: Iterable[RedFlag]) -> bool:
    """Whether any of the flags that fired asks for an in-person visit."""
    return any(flag.action.refer for flag in flags)


def latest_allowed_band(flags: Iterable[RedFlag]) -> Literal[1, 2, 3, 4]:
    """The last priority band in which a case with these flags may wait; 4 if they set no limit."""
    bands = [flag.action.up_to_band for flag in flags if flag.action.up_to_band is not None]
    return min(bands, default=4)
