"""The page's own texts, by code, in each of its languages. Imports the standard library.

What the system says about a case comes from the bundle's catalogues; these are the texts around it. A test
checks that all languages have the same codes and placeholders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

_FOLDER = Path(__file__).with_name("texts")
LANGUAGES = tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))
FALLBACK_LANGUAGE = "en"
_DATE_FORMATS = {"de": "%d.%m.%Y, %H:%M UTC"}


class Texts:
    """All texts in one language."""

    def __init__(self, language: str) -> None:
        """Read the texts; ``language`` is one of ``LANGUAGES``."""
        self.language = language
        text = (_FOLDER / f"{language}.json").read_text(encoding="utf-8")
        self._by_code: Mapping[str, str] = json.loads(text)

    def __call__(self, code: str, /, **values: object) -> str:
        """One text, with its placeholders filled."""
        return self._by_code[code].format(**values)

    def __contains__(self, code: str) -> bool:
        return code in self._by_code

    def choice(self, name: str) -> str:
        """The text for a name from a closed list; the name itself if there is none."""
        code = f"choice.{name}"
        return self._by_code.get(code, name)

    def problem(self, code: str, /, **values: object) -> str:
        """The text that says what to do about a refusal."""
        return self(f"problem.{code}" if f"problem.{code}" in self else "problem.other", code=code, **values)

    def duration(self, time: timedelta) -> str:
        """A duration, in at most two units."""
        minutes = int(time.total_seconds()) // 60
        hours, days = minutes // 60, minutes // 1440
        if minutes < 1:
            return self("time.now")
        if hours < 1:
            return self("time.minutes", minutes=minutes)
        if days < 2:
            return self("time.hours", hours=hours, minutes=minutes % 60)
        return self("time.days", days=days, hours=hours % 24)

    def date_time(self, at: datetime) -> str:
        """A time, in UTC: the server cannot know the reader's time zone."""
        return at.astimezone(UTC).strftime(_DATE_FORMATS.get(self.language, "%Y-%m-%d %H:%M UTC"))

    def percentage(self, value: float) -> str:
        """A share as a percentage, with no more digits than it needs."""
        return f"{self.compact_number(100 * value)} %"

    def compact_number(self, value: float) -> str:
        """A number with no more digits than it needs, and the language's decimal mark."""
        return self._with_decimal_mark(f"{value:.10g}")

    def number(self, value: float, digits: int = 4) -> str:
        """A number with the language's decimal mark."""
        return self._with_decimal_mark(f"{value:.{digits}f}")

    def _with_decimal_mark(self, number: str) -> str:
        return number.replace(".", ",") if self.language == "de" else number
