"""A case of the reading queue as the page knows it, and what people recorded about it.

Imports the bundle's documents and the reading order. A case may have been stored by another version of this
program. What this version cannot read is None; everything else is still shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Literal

from pydantic import ValidationError

from lesion_triage.bundle.history import History, history_from_text
from lesion_triage.bundle.schema import Answer
from triage_server.page.reading_order import Urgency

Decision = Literal["agree", "override"]
ConfirmedBy = Literal["histopathology", "examination", "follow_up", "consensus", "not_yet"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did something on the page."""

    caller: str
    """The caller's name, as in the logs."""
    reader: str
    """The person's name, as typed at sign-in."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of a case."""

    at: datetime
    actor: Actor
    decision: Decision
    reason: str
    """In the reader's words; never empty for ``override``."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found later."""

    at: datetime
    actor: Actor
    needs_in_person: bool | None
    """None: still unknown."""
    confirmed_by: ConfirmedBy


def _is_known(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.needs_in_person is not None


def parse_answers(documents: Mapping[str, str]) -> Mapping[str, Answer] | None:
    """Stored answers by language; None if there are none, or if this version cannot read one of them.

    All or none: otherwise readers in different languages would see different things.
    """
    try:
        return {language: Answer.model_validate_json(text) for language, text in documents.items()} or None
    except ValidationError:
        return None


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How many cases wait; NaN: not known."""

    waiting: float
    overdue: float
    longest_wait_s: float


@dataclass(frozen=True)
class WaitingCase:
    """A case that waits, or has waited: what was answered."""

    number: str
    urgency: Urgency
    documents: Mapping[str, str]
    """The answers as stored, by language."""
    first_language: str
    """Language of the request that sent the case."""

    @cached_property
    def answers(self) -> Mapping[str, Answer] | None:
        """Answers by language; None if this version cannot read them."""
        return parse_answers(self.documents)

    def answer(self, language: str) -> Answer | None:
        """The answer in this language, else in that of the request that sent the case; None: unreadable."""
        answers = self.answers
        return None if answers is None else answers.get(language) or answers.get(self.first_language)


@dataclass(frozen=True, slots=True)
class Newer:
    """The newest case of a person that waits, as the entry of an older one names it."""

    number: str
    urgency: Urgency


@dataclass(frozen=True)
class ListedCase(WaitingCase):
    """A case in the list of those that wait."""

    newer: Newer | None
    """None: no newer case of the same person waits."""


@dataclass(frozen=True)
class ReadCase:
    """A case as the list of read cases shows it: from columns alone."""

    number: str
    urgency: Urgency
    disposition: str
    reading: Reading
    """The last one."""
    is_disputed: bool
    """Whether one reading agrees and another overrides."""
    outcome: Outcome | None
    """The one that counts; None: none was recorded."""
    is_contradictory: bool
    """As ``QueuedCase.contradictory``."""
    drawn: bool
    """Whether it was drawn for follow-up."""

    @property
    def outcome_is_wanted(self) -> bool:
        """Whether it was drawn and its outcome is not known yet."""
        return self.drawn and not _is_known(self.outcome)


@dataclass(frozen=True)
class QueuedCase(WaitingCase):
    """A case as its own page shows it."""

    person: str
    disposition: str
    """As answered; a value that this version may not know."""
    history_json: str
    """The history as stored."""
    photographs: tuple[str, ...]
    """Media types, by position."""
    readings: tuple[Reading, ...]
    """Oldest first; the last one counts."""
    outcomes: tuple[Outcome, ...]
    """Oldest first."""
    follow_up_share: float
    """Probability with which it could be drawn for follow-up."""
    drawn: bool
    """Whether it was. Nobody may be told before the case has been read."""

    @cached_property
    def history(self) -> History | None:
        """The history; None if this version cannot read it."""
        try:
            return history_from_text(self.history_json)
        except ValidationError:
            return None

    @property
    def is_read(self) -> bool:
        """Whether the case has a reading."""
        return bool(self.readings)

    @property
    def outcome(self) -> Outcome | None:
        """The outcome that counts: the last confirmed one, else the last; None if there is none.

        A later "unknown" does not undo a confirmed outcome.
        """
        confirmed = [one for one in self.outcomes if one.needs_in_person is not None]
        outcomes = confirmed or self.outcomes
        return outcomes[-1] if outcomes else None

    @property
    def outcome_is_wanted(self) -> bool:
        """Whether it was read and drawn, and its outcome is not known yet."""
        return self.is_read and self.drawn and not _is_known(self.outcome)

    @property
    def is_disputed(self) -> bool:
        """Whether one reading agrees and another overrides."""
        return len({one.decision for one in self.readings}) > 1

    @property
    def contradictory(self) -> bool:
        """Whether anything else was recorded after the first confirmed outcome."""
        outcomes = [one.needs_in_person for one in self.outcomes]
        confirmed = [needs for needs in outcomes if needs is not None]
        return bool(confirmed) and len(set(outcomes[outcomes.index(confirmed[0]) :])) > 1
