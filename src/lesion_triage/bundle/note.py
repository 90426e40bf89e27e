"""The text block for the clinical note: what arrived, what the system found, and what it cannot know.

Imports the history, the red flags, the guidance, the messages and the schema.

Every word comes from the catalogue. Of what a platform sent, only numbers and counts appear: the name of a
body site or group could carry anything.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lesion_triage.bundle.guidance import Counselling, Limit, NotAssessed, answered
from lesion_triage.bundle.history import History
from lesion_triage.bundle.messages import Catalogue, NotePhrase
from lesion_triage.bundle.red_flags import (
    NUMBER_FIELDS,
    YES_NO_FIELDS,
    Presence,
    RedFlag,
    RedFlags,
    presence,
)
from lesion_triage.bundle.schema import Disposition, ReasonCode

_TO_COMPLETE = tuple(phrase for phrase in NotePhrase if phrase.startswith("complete_"))
_SEAL_DIGITS = 16
_ITEM, _BOX = "- ", "[ ] "
_NO_REASON_TO_COME = (ReasonCode.score_below_threshold, ReasonCode.red_flag, ReasonCode.red_flag_band)
"""Reasons left out of why a visit is proposed; the flags that refer are named one by one."""

_Standing = Sequence[tuple[RedFlag, Presence]]
"""Each flag, and whether the history says that it is present."""


@dataclass(frozen=True, slots=True)
class NotePhotograph:
    """What was found in one photograph."""

    usable: bool
    reasons: tuple[str, ...]
    """Codes: why it is not usable, or advice on it."""


@dataclass(frozen=True, slots=True)
class NoteFacts:
    """The parts of an answer that the note repeats. No score: without its threshold it means nothing."""

    disposition: Disposition
    priority_band: int
    reasons: tuple[str, ...]
    """Codes of the case."""
    photographs: tuple[NotePhotograph, ...]
    """In the order sent."""
    red_flags: RedFlags
    """All red flags of the policy, fired or not."""
    asked: tuple[str, ...]
    """The questions of the policy's rules: ``guidance.questions_of``."""
    limits: tuple[Limit, ...]
    not_assessed: tuple[NotAssessed, ...]
    counselling: tuple[Counselling, ...]
    certificate_id: str
    bundle_name: str
    bundle_sha256: str
    synthetic: bool


def note(facts: NoteFacts, history: History, catalogue: Catalogue) -> str:
    """Write the note.

    Args:
        facts: what the system found for the case.
        history: sent by the platform.
        catalogue: has a text for every red flag of the policy; ``Catalogue.require_red_flags`` checks it.

    Returns:
        Plain text in the catalogue's language, one paragraph per subject, with a final newline. Equal
        arguments give equal text.
    """
    head = [catalogue.note[NotePhrase.heading], catalogue.note[NotePhrase.to_edit], catalogue.notice]
    if facts.synthetic:
        head.append(catalogue.note[NotePhrase.synthetic])
    limits = (catalogue.limits[limit] for limit in facts.limits)
    gaps = (catalogue.not_assessed[gap] for gap in facts.not_assessed)
    advice = (catalogue.counselling[one] for one in facts.counselling)
    standing = [(flag, presence(flag, history)) for flag in facts.red_flags.flags]
    told: Mapping[NotePhrase, Iterable[str]] = {
        NotePhrase.received: (
            *_photographs(facts, catalogue),
            *_history(history, facts.asked, catalogue),
        ),
        NotePhrase.said: _said(facts, catalogue),
        NotePhrase.visit: _visit(facts, standing, catalogue),
        NotePhrase.flags: _flags(facts.red_flags, standing, catalogue),
    }
    fixed: Mapping[NotePhrase, tuple[str, Iterable[str]]] = {
        NotePhrase.limits: (_ITEM, limits),
        NotePhrase.not_assessed: (_ITEM, gaps),
        NotePhrase.counselling: (_BOX, advice),
        NotePhrase.to_complete: (_BOX, (catalogue.note[phrase] for phrase in _TO_COMPLETE)),
    }
    blocks = ["\n".join(head)]
    blocks += [_section(catalogue.note[title], _ITEM, lines) for title, lines in told.items()]
    blocks += [
        _fixed_section(catalogue.note[title], mark, tuple(lines)) for title, (mark, lines) in fixed.items()
    ]
    return "\n\n".join(blocks) + "\n"


def _section(title: str, mark: str, lines: Iterable[str]) -> str:
    return "\n".join([title, *(mark + line for line in lines)])


@functools.lru_cache(256)
def _fixed_section(title: str, mark: str, lines: tuple[str, ...]) -> str:
    """A section that depends on nothing in the case: there are few of them, so each is cached."""
    return _section(title, mark, lines)


def _photographs(facts: NoteFacts, catalogue: Catalogue) -> Iterator[str]:
    usable = sum(photograph.usable for photograph in facts.photographs)
    count = len(facts.photographs)
    yield catalogue.phrase(NotePhrase.photographs, count=count, usable=usable, unusable=count - usable)
    for number, photograph in enumerate(facts.photographs, start=1):
        phrase = NotePhrase.photograph_usable if photograph.usable else NotePhrase.photograph_unusable
        if photograph.reasons:
            reasons = " ".join(_reasons(photograph.reasons, catalogue))
            yield catalogue.phrase(phrase, number=number, reasons=reasons)


def _history(history: History, asked: Sequence[str], catalogue: Catalogue) -> Iterator[str]:
    count = len(answered(history, asked))
    yield catalogue.phrase(NotePhrase.history_answers, answered=count, questions=len(asked))
    for name in NUMBER_FIELDS:
        value = getattr(history, name)
        if value is not None:
            label = catalogue.history[name]
            number = f"{value:g}".replace(".", catalogue.decimal_mark)
            yield catalogue.phrase(NotePhrase.history_number, label=label, value=number)
    if yes := [catalogue.history[name] for name in YES_NO_FIELDS if getattr(history, name)]:
        yield catalogue.phrase(NotePhrase.history_yes, labels="; ".join(yes))


def _said(facts: NoteFacts, catalogue: Catalogue) -> Iterator[str]:
    yield catalogue.dispositions[facts.disposition]
    yield catalogue.phrase(NotePhrase.band, band=facts.priority_band)
    yield from _reasons(facts.reasons, catalogue)
    yield catalogue.phrase(
        NotePhrase.certificate,
        certificate=facts.certificate_id,
        bundle=" ".join(facts.bundle_name.split()),
        seal=facts.bundle_sha256[:_SEAL_DIGITS],
    )


def _visit(facts: NoteFacts, standing: _Standing, catalogue: Catalogue) -> Iterator[str]:
    """Why an in-person visit is proposed, or that none is: never that none is needed."""
    if facts.disposition is Disposition.below_threshold:
        yield catalogue.note[NotePhrase.visit_none]
        return
    yield from _reasons((code for code in facts.reasons if code not in _NO_REASON_TO_COME), catalogue)
    for flag, said in standing:
        if said == "present" and flag.action.refer:
            yield catalogue.red_flags[flag.code].text


def _flags(rules: RedFlags, standing: _Standing, catalogue: Catalogue) -> Iterator[str]:
    if not rules.flags:
        yield catalogue.note[NotePhrase.flags_undeclared]
        return
    if not rules.reviewed_by:
        yield catalogue.note[NotePhrase.flags_not_reviewed]
    present = [flag for flag, said in standing if said == "present"]
    for flag in present:
        yield catalogue.phrase(NotePhrase.flag_present, text=catalogue.red_flags[flag.code].text)
    if not present:
        yield catalogue.note[NotePhrase.flags_none_present]
    for phrase, wanted in ((NotePhrase.flags_absent, "absent"), (NotePhrase.flags_not_known, "not_known")):
        labels = "; ".join(catalogue.red_flags[flag.code].label for flag, said in standing if said == wanted)
        if labels:
            yield catalogue.phrase(phrase, labels=labels)


def _reasons(codes: Iterable[str], catalogue: Catalogue) -> Iterator[str]:
    return (catalogue.reasons[code].text for code in codes)
