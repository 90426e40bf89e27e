"""A case of the reading queue as the page knows it, and what people said of it.

Imports the bundle's documents and the order. A case may have been kept by another version of this program:
what of it cannot be read by this one is None, and no reason to show less of anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Literal

from pydantic import ValidationError

from lesion_triage.bundle.history import History, from_text
from lesion_triage.bundle.schema import Answer
from triage_server.page.order import Place

Decision = Literal["agree", "override"]
ConfirmedBy = Literal["histopathology", "examination", "follow_up", "consensus", "not_yet"]


@dataclass(frozen=True, slots=True)
class By:
    """Who did something on the page."""

    caller: str
    """As logs know the key."""
    reader: str
    """As the person signs; typed at the login."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One entry of somebody who has read the case."""

    at: datetime
    by: By
    decision: Decision
    reason: str
    """In the reader's words; never empty for ``override``."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found later."""

    at: datetime
    by: By
    needs_in_person: bool | None
    """None: still unknown."""
    confirmed_by: ConfirmedBy


def answers_of(documents: Mapping[str, str]) -> Mapping[str, Answer] | None:
    """Stored answers by language; None if there are none, or this version cannot read one of them.

    Half of what was said is not shown: who reads in another language would see another case.
    """
    try:
        return {language: Answer.model_validate_json(text) for language, text in documents.items()} or None
    except ValidationError:
        return None


@dataclass(frozen=True)
class WaitingCase:
    """A case as the queue shows it."""

    number: str
    place: Place
    documents: Mapping[str, str]
    """The answer by language, as it was written down when the case came."""
    first_language: str
    """In which it was asked."""

    @cached_property
    def answers(self) -> Mapping[str, Answer] | None:
        """By language; None if this version cannot read them."""
        return answers_of(self.documents)

    def answer(self, language: str) -> Answer | None:
        """In this language, or if there is none in that of who asked; None if it cannot be read."""
        answers = self.answers
        return None if answers is None else answers.get(language) or answers.get(self.first_language)


@dataclass(frozen=True)
class ReadCase:
    """A case as the list of those that were read shows it: from columns alone."""

    number: str
    place: Place
    disposition: str
    reading: Reading
    """The last one."""
    outcome: Outcome | None
    """The one that counts; None if nobody has said anything."""


@dataclass(frozen=True)
class QueuedCase(WaitingCase):
    """A case as its own page shows it."""

    person: str
    disposition: str
    """As it was answered; a word that this version may not know."""
    told: str
    """The history, as it was written down."""
    photographs: tuple[str, ...]
    """Media types, by position."""
    readings: tuple[Reading, ...]
    """Oldest first; the last one counts."""
    outcomes: tuple[Outcome, ...]
    """Oldest first."""

    @cached_property
    def history(self) -> History | None:
        """What was told; None if this version cannot read it."""
        try:
            return from_text(self.told)
        except ValidationError:
            return None

    @property
    def is_read(self) -> bool:
        """Whether a person has said so."""
        return bool(self.readings)

    @property
    def outcome(self) -> Outcome | None:
        """The one that counts: the last that was confirmed, else the last; None if nobody has said anything.

        What was confirmed is not lost to an "unknown" that somebody says after it.
        """
        confirmed = [one for one in self.outcomes if one.needs_in_person is not None]
        said = confirmed or self.outcomes
        return said[-1] if said else None

    @property
    def disputed(self) -> bool:
        """Whether one reading agrees and another overrides."""
        return len({one.decision for one in self.readings}) > 1

    @property
    def contradictory(self) -> bool:
        """Whether something else was said after an outcome had been confirmed."""
        said = [one.needs_in_person for one in self.outcomes]
        confirmed = [needs for needs in said if needs is not None]
        return bool(confirmed) and len(set(said[said.index(confirmed[0]) :])) > 1
