"""The message catalogue: for every stable code a sentence, in every language; one file per language.

Imports pydantic, the document, the forbidden words, the schema, the guidance and the exception tree.
"""

from __future__ import annotations

import functools
import json
import string
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from lesion_triage.bundle.document import Document
from lesion_triage.bundle.forbidden_words import THE_WORD_OF_THE_NOTICE, forbidden_words_in
from lesion_triage.bundle.guidance import QUESTIONS, Counselling, Limit, NotAssessed
from lesion_triage.bundle.schema import Disposition, ReasonCode
from lesion_triage.errors import ConfigError, hint

REFERENCE_LANGUAGE = "en"
"""Its texts define which placeholders a text in any language must have."""
_CONTROL_CHARACTERS = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
"""Control characters and Unicode line and paragraph separators."""
_LINE = rf"^[^\s{_CONTROL_CHARACTERS}]([^{_CONTROL_CHARACTERS}]*[^\s{_CONTROL_CHARACTERS}])?$"
Text = Annotated[str, Field(min_length=1, max_length=600, pattern=_LINE)]
"""One line: text that is pasted into a record must not be able to form a heading of its own."""


class NotePhrase(StrEnum):
    """The phrases of which the note for the clinical record is composed."""

    heading = "heading"
    to_edit = "to_edit"
    synthetic = "synthetic"
    received = "received"
    photographs = "photographs"
    photograph_unusable = "photograph_unusable"
    photograph_usable = "photograph_usable"
    history_answers = "history_answers"
    history_number = "history_number"
    history_yes = "history_yes"
    said = "said"
    band = "band"
    certificate = "certificate"
    visit = "visit"
    visit_none = "visit_none"
    flags = "flags"
    flags_not_reviewed = "flags_not_reviewed"
    flags_undeclared = "flags_undeclared"
    flag_present = "flag_present"
    flags_none_present = "flags_none_present"
    flags_absent = "flags_absent"
    flags_not_known = "flags_not_known"
    limits = "limits"
    not_assessed = "not_assessed"
    counselling = "counselling"
    to_complete = "to_complete"
    complete_reader = "complete_reader"
    complete_findings = "complete_findings"
    complete_assessment = "complete_assessment"
    complete_plan = "complete_plan"
    complete_visit = "complete_visit"
    complete_advice = "complete_advice"


_CODES_BY_SECTION: Mapping[str, frozenset[str]] = {
    "dispositions": frozenset(Disposition),
    "reasons": frozenset(ReasonCode),
    "limits": frozenset(Limit),
    "not_assessed": frozenset(NotAssessed),
    "counselling": frozenset(Counselling),
    "history": frozenset(QUESTIONS),
    "note": frozenset(NotePhrase),
}
"""By section, exactly the codes that must have a text. Red flags are the policy's and not listed here."""


class ReasonMessage(Document):
    """Texts of a reason."""

    text: Text
    """What the problem is."""
    coaching: Text | None = None
    """How to take a better photograph."""


class FlagMessage(Document):
    """Texts of a red flag."""

    label: Text
    """A few words, for a list."""
    text: Text
    """A sentence, for when the flag is present."""


class Catalogue(Document):
    """All texts in one language."""

    language: str
    """BCP 47 tag: ``en``, ``pt-BR``."""
    name: Text
    """Name of the language, in that language."""
    decimal_mark: Literal[".", ","]
    notice: Text
    dispositions: dict[str, Text]
    reasons: dict[str, ReasonMessage]
    limits: dict[str, Text]
    not_assessed: dict[str, Text]
    counselling: dict[str, Text]
    red_flags: dict[str, FlagMessage]
    history: dict[str, Text]
    note: dict[str, Text]

    @classmethod
    def load(cls, language: str, extra: Path | None = None) -> Self:
        """Read the catalogue of one language.

        Args:
            language: one of ``available_languages(extra)``.
            extra: folder of a site's own files, named like ours. For a language that we ship, the file may
                hold some texts only, which replace ours; for any other language it must hold all.

        Raises:
            ConfigError: no such language; a file that cannot be read; a code without a text or a text
                without a code; placeholders that differ from those of the English text; a forbidden word.
        """
        known = available_languages(extra)
        if language not in known:
            raise ConfigError(
                f"There is no catalogue for language '{language}'; there is {', '.join(known)}. "
                "A new one is a file, see docs/messages.md."
            )
        tree: dict[str, Any] = {}
        where = ""
        for name, text in _read_catalogue_files(language, extra):
            where = name
            _overlay(tree, _parse_catalogue(text, name))
        try:
            catalogue = cls.model_validate(tree)
        except ValidationError as error:
            raise ConfigError(f"{where}: {_validation_message(error)}") from None
        if catalogue.language != language:
            raise ConfigError(f"{where}: says language '{catalogue.language}', expected '{language}'.")
        catalogue._check_codes(where)
        is_reference = (language, extra) == (REFERENCE_LANGUAGE, None)
        reference = catalogue if is_reference else english_catalogue()
        catalogue._check_placeholders(where, dict(reference.texts()))
        catalogue._check_words(where)
        return catalogue

    def phrase(self, phrase: NotePhrase, **values: object) -> str:
        """A phrase of the note with its placeholders filled."""
        return self.note[phrase].format(**values)

    def require_red_flags(self, codes: Iterable[str]) -> None:
        """Check that this catalogue has a text for every red flag of a policy.

        Raises:
            ConfigError: a code has no text in this language.
        """
        if missing := sorted(set(codes) - self.red_flags.keys()):
            raise ConfigError(
                f"The catalogue of language '{self.language}' has no text for the red flag "
                f"{', '.join(missing)}; add it to a file of your own, see docs/messages.md."
            )

    def texts(self) -> Iterator[tuple[str, str]]:
        """Every text with its address, such as ``reasons.image_hair.coaching``."""
        for section, value in self.model_dump(
            exclude={"language", "decimal_mark"}, exclude_none=True
        ).items():
            yield from _leaves(section, value)

    def _check_codes(self, where: str) -> None:
        for section, codes in _CODES_BY_SECTION.items():
            found = getattr(self, section).keys()
            if missing := sorted(codes - found):
                raise ConfigError(f"{where}: no text for {section}.{', '.join(missing)}; every code has one.")
            for code in sorted(found - codes):
                what = hint(code, codes, "leave it out.")
                raise ConfigError(f"{where}: {section}.{code} is the text of no code; {what}")

    def _check_placeholders(self, where: str, reference: Mapping[str, str]) -> None:
        for address, text in self.texts():
            try:
                found, expected = placeholders(text), placeholders(reference.get(address, ""))
            except ValueError as error:
                raise ConfigError(f"{where}: {address}: {error}; write a brace twice to show it.") from None
            if found != expected:
                raise ConfigError(
                    f"{where}: {address} has the placeholders {sorted(found)}, expected {sorted(expected)}."
                )

    def _check_words(self, where: str) -> None:
        found = []
        for address, text in self.texts():
            words = set(forbidden_words_in(self.language, text))
            if address == "notice":
                words.discard(THE_WORD_OF_THE_NOTICE)
            found += [f"{address} has '{word}'" for word in sorted(words)]
        if found:
            raise ConfigError(
                f"{where}: in language '{self.language}', {', '.join(found)}; no text names a condition, "
                "excludes one or promises a discharge, so use other words, see docs/messages.md."
            )


@functools.cache
def english_catalogue() -> Catalogue:
    """The English texts, which our own reports use."""
    return Catalogue.load(REFERENCE_LANGUAGE)


def available_languages(extra: Path | None = None) -> tuple[str, ...]:
    """The languages that can be loaded, in alphabetical order.

    Raises:
        ConfigError: ``extra`` is not a folder, or cannot be listed.
    """
    names = [entry.name for entry in _shipped_folder().iterdir()]
    if extra is not None:
        try:
            names += [entry.name for entry in extra.iterdir()]
        except OSError as error:
            raise ConfigError(
                f"{extra}: expected a folder of message catalogues ({error.strerror})."
            ) from None
    return tuple(sorted({name.removesuffix(".json") for name in names if name.endswith(".json")}))


def placeholders(text: str) -> frozenset[str]:
    """Names in braces.

    Raises:
        ValueError: an unmatched brace, or anything but a plain name between two.
    """
    found = set()
    for _, name, form, conversion in string.Formatter().parse(text):
        if name is None:
            continue
        if not name.isidentifier() or form or conversion:
            raise ValueError(f"expected a plain name in braces, found '{name}'")
        found.add(name)
    return frozenset(found)


def _shipped_folder() -> Traversable:
    return resources.files("lesion_triage.bundle") / "catalogues"


def _read_catalogue_files(language: str, extra: Path | None) -> Iterator[tuple[str, str]]:
    """Name and text of each file of a language, ours first. At least one must exist."""
    name = f"{language}.json"
    places: list[Traversable] = [_shipped_folder() / name]
    if extra is not None:
        places.append(extra / name)
    for place in places:
        try:
            text = place.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{place}: cannot be read as a catalogue ({error}).") from None
        yield str(place), text


def _parse_catalogue(text: str, where: str) -> dict[str, Any]:
    try:
        tree = json.loads(text, object_pairs_hook=_refuse_duplicate_keys)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid JSON ({error}).") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: expected an object of sections, found {type(tree).__name__}.")
    return tree


def _refuse_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        keys = [key for key, _ in pairs]
        duplicate = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key '{duplicate}' stands twice; keep one")
    return tree


def _overlay(tree: dict[str, Any], upper: Mapping[str, Any]) -> None:
    """Replace our texts by a site's, text by text."""
    for key, value in upper.items():
        below = tree.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            _overlay(below, value)
        else:
            tree[key] = value


def _leaves(address: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield address, value
    else:
        for key, below in value.items():
            yield from _leaves(f"{address}.{key}", below)


def _validation_message(error: ValidationError) -> str:
    problems = (
        (".".join(str(step) for step in problem["loc"]), problem["msg"]) for problem in error.errors()
    )
    return " ".join(f"{address or 'file'}: {message}." for address, message in problems)
