"""A case of the reading queue as the page knows it, and what people said of it.

Imports the bundle's documents and the order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from lesion_triage.bundle.history import History
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


@dataclass(frozen=True)
class QueuedCase:
    """A case as the page shows it."""

    number: str
    person: str
    place: Place
    answers: Mapping[str, Answer]
    """By language, as they were said when the case came."""
    first_language: str
    """In which it was asked."""
    history: History
    photographs: tuple[str, ...]
    """Media types, by position."""
    readings: tuple[Reading, ...]
    """Oldest first; the last one counts."""
    outcomes: tuple[Outcome, ...]
    """Oldest first; the last one counts."""

    def answer(self, language: str) -> Answer:
        """In this language, or if there is none in that of who asked."""
        return self.answers.get(language, self.answers[self.first_language])

    @property
    def is_read(self) -> bool:
        """Whether a person has said so."""
        return bool(self.readings)

    @property
    def outcome(self) -> Outcome | None:
        """The one that counts; None if nobody has said anything."""
        return self.outcomes[-1] if self.outcomes else None
