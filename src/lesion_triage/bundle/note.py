"""The text block for the clinical note: what arrived, what the system found, and what it cannot know.

Imports the history, the red flags, the guidance, the messages and the schema.

Every word comes from the catalogue. Of what a platform sent, only numbers and counts appear: the name of a
body site or group could carry anything.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lesion_triage.bundle.guidance import Counselling, Limit, NotAssessed, answered_questions
from lesion_triage.bundle.history import History
from lesion_triage.bundle.messages import Catalogue, NotePhrase
from lesion_triage.bundle.red_flags import (
    NUMBER_FIELDS,
    YES_NO_FIELDS,
    Presence,
    RedFlag,
    RedFlags,
    flag_presence,
)
from lesion_triage.bundle.schema import Disposition, ReasonCode

_TO_COMPLETE = tuple(phrase for phrase in NotePhrase if phrase.startswith("complete_"))
_SHOWN_HASH_DIGITS = 16
_BULLET, _CHECKBOX = "- ", "[ ] "
_NOT_REASONS_FOR_VISIT = (ReasonCode.score_below_threshold, ReasonCode.red_flag, ReasonCode.red_flag_band)
"""Reasons left out of why a visit is proposed; the flags that refer are named one by one."""

_FlagPresences = Sequence[tuple[RedFlag, Presence]]
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
    questions: tuple[str, ...]
    """The questions of the policy's rules: ``guidance.policy_questions``."""
    limits: tuple[Limit, ...]
    not_assessed: tuple[NotAssessed, ...]
    counselling: tuple[Counselling, ...]
    certificate_id: str
    bundle_name: str
    bundle_sha256: str
    synthetic: bool


def write_note(facts: NoteFacts, history: History, catalogue: Catalogue) -> str:
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
    presences = [(flag, flag_presence(flag, history)) for flag in facts.red_flags.flags]
    case_sections: Mapping[NotePhrase, Iterable[str]] = {
        NotePhrase.received: (
            *_photograph_lines(facts, catalogue),
            *_history_lines(history, facts.questions, catalogue),
        ),
        NotePhrase.said: _system_findings(facts, catalogue),
        NotePhrase.visit: _reasons_for_visit(facts, presences, catalogue),
        NotePhrase.flags: _flag_lines(facts.red_flags, presences, catalogue),
    }
    fixed_sections: Mapping[NotePhrase, tuple[str, Iterable[str]]] = {
        NotePhrase.limits: (_BULLET, limits),
        NotePhrase.not_assessed: (_BULLET, gaps),
        NotePhrase.counselling: (_CHECKBOX, advice),
        NotePhrase.to_complete: (_CHECKBOX, (catalogue.note[phrase] for phrase in _TO_COMPLETE)),
    }
    blocks = ["\n".join(head)]
    blocks += [_section(catalogue.note[title], _BULLET, lines) for title, lines in case_sections.items()]
    blocks += [
        _cached_section(catalogue.note[title], mark, tuple(lines))
        for title, (mark, lines) in fixed_sections.items()
    ]
    return "\n\n".join(blocks) + "\n"


def _section(title: str, mark: str, lines: Iterable[str]) -> str:
    return "\n".join([title, *(mark + line for line in lines)])


@functools.lru_cache(256)
def _cached_section(title: str, mark: str, lines: tuple[str, ...]) -> str:
    """A section that depends on nothing in the case: there are few of them, so each is cached."""
    return _section(title, mark, lines)


def _photograph_lines(facts: NoteFacts, catalogue: Catalogue) -> Iterator[str]:
    usable = sum(photograph.usable for photograph in facts.photographs)
    count = len(facts.photographs)
    yield catalogue.phrase(NotePhrase.photographs, count=count, usable=usable, unusable=count - usable)
    for number, photograph in enumerate(facts.photographs, start=1):
        phrase = NotePhrase.photograph_usable if photograph.usable else NotePhrase.photograph_unusable
        if photograph.reasons:
            reasons = " ".join(_reason_texts(photograph.reasons, catalogue))
            yield catalogue.phrase(phrase, number=number, reasons=reasons)


def _history_lines(history: History, questions: Sequence[str], catalogue: Catalogue) -> Iterator[str]:
    count = len(answered_questions(history, questions))
    yield catalogue.phrase(NotePhrase.history_answers, answered=count, questions=len(questions))
    for name in NUMBER_FIELDS:
        value = getattr(history, name)
        if value is not None:
            label = catalogue.history[name]
            number = f"{value:g}".replace(".", catalogue.decimal_mark)
            yield catalogue.phrase(NotePhrase.history_number, label=label, value=number)
    if yes := [catalogue.history[name] for name in YES_NO_FIELDS if getattr(history, name)]:
        yield catalogue.phrase(NotePhrase.history_yes, labels="; ".join(yes))


def _system_findings(facts: NoteFacts, catalogue: Catalogue) -> Iterator[str]:
    yield catalogue.dispositions[facts.disposition]
    yield catalogue.phrase(NotePhrase.band, band=facts.priority_band)
    yield from _reason_texts(facts.reasons, catalogue)
    yield catalogue.phrase(
        NotePhrase.certificate,
        certificate=facts.certificate_id,
        bundle=" ".join(facts.bundle_name.split()),
        seal=facts.bundle_sha256[:_SHOWN_HASH_DIGITS],
    )


def _reasons_for_visit(facts: NoteFacts, presences: _FlagPresences, catalogue: Catalogue) -> Iterator[str]:
    """Why an in-person visit is proposed, or that none is: never that none is needed."""
    if facts.disposition is Disposition.below_threshold:
        yield catalogue.note[NotePhrase.visit_none]
        return
    yield from _reason_texts(
        (code for code in facts.reasons if code not in _NOT_REASONS_FOR_VISIT), catalogue
    )
    for flag, present in presences:
        if present == "present" and flag.action.refer:
            yield catalogue.red_flags[flag.code].text


def _flag_lines(rules: RedFlags, presences: _FlagPresences, catalogue: Catalogue) -> Iterator[str]:
    if not rules.flags:
        yield catalogue.note[NotePhrase.flags_undeclared]
        return
    if not rules.reviewed_by:
        yield catalogue.note[NotePhrase.flags_not_reviewed]
    present = [flag for flag, said in presences if said == "present"]
    for flag in present:
        yield catalogue.phrase(NotePhrase.flag_present, text=catalogue.red_flags[flag.code].text)
    if not present:
        yield catalogue.note[NotePhrase.flags_none_present]
    for phrase, wanted in ((NotePhrase.flags_absent, "absent"), (NotePhrase.flags_not_known, "not_known")):
        labels = "; ".join(catalogue.red_flags[flag.code].label for flag, said in presences if said == wanted)
        if labels:
            yield catalogue.phrase(phrase, labels=labels)


def _reason_texts(codes: Iterable[str], catalogue: Catalogue) -> Iterator[str]:
    return (catalogue.reasons[code].text for code in codes)
