"""The languages available for one policy. Imports the messages and the exception tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from lesion_triage.bundle.messages import REFERENCE_LANGUAGE, Catalogue, available_languages
from lesion_triage.errors import ConfigError


class Languages:
    """Catalogues with a text for every red flag of a policy, and the default among them."""

    def __init__(self, catalogues: Mapping[str, Catalogue], default: str) -> None:
        self._catalogues = dict(sorted(catalogues.items()))
        self.default = default

    @classmethod
    def for_flags(
        cls, codes: Iterable[str], default: str = REFERENCE_LANGUAGE, extra: Path | None = None
    ) -> Self:
        """Load every language that has all the texts.

        A language without a text for one of the flags is left out: an answer with a gap is worse than one in
        another language. For the default language this is an error.

        Args:
            codes: of the policy's red flags.
            default: a language.
            extra: folder of a site's own catalogues.

        Raises:
            ConfigError: a catalogue is not valid, or the default language lacks a text or does not exist.
        """
        wanted = set(codes)
        chosen = Catalogue.load(default, extra)
        chosen.require_red_flags(wanted)
        others = {
            language: Catalogue.load(language, extra)
            for language in available_languages(extra)
            if language != default
        }
        whole = {name: one for name, one in others.items() if wanted <= one.red_flags.keys()}
        return cls({default: chosen, **whole}, default)

    @property
    def names(self) -> tuple[str, ...]:
        """The languages, in alphabetical order."""
        return tuple(self._catalogues)

    def catalogue(self, language: str | None = None) -> Catalogue:
        """The texts in one language; None: the default.

        Raises:
            ConfigError: there is no complete catalogue for the policy in this language.
        """
        name = self.default if language is None else language
        if name not in self._catalogues:
            raise ConfigError(f"There are no texts in language '{name}'; there are {', '.join(self.names)}.")
        return self._catalogues[name]
