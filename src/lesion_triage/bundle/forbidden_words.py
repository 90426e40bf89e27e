"""Words that no text for a reader may have: they name a condition, exclude one, or promise a discharge.

Imports the standard library. Message catalogues are searched when they are loaded, and tests search all else
that people read. A list finds words, not meanings: a text without any of them can still promise too much.
"""

from __future__ import annotations

import re
import unicodedata

_INTERNATIONAL_NAMES = (
    "benign|malign|cancer|melanom|carcinom|sarcom|lymphom|metasta|diagnos|keratos|eczema|psoria|dermatofibrom"
    r"|angiom|\bn[ae]?evus"
)
"""Searched in every language, whatever its accents."""
_NAMES = {
    "en": r"\bn[ae]?evi\b|\bwarts?\b",
    "de": r"gutartig|bösartig|krebs|karzinom|sarkom|nävus|nävi|naev|ekzem|basaliom|spinaliom|\bwarze",
}
"""Names are found anywhere in a word, as in "Hautkrebs", unless a word boundary stands before them."""
_DISCHARGES = {
    "en": "safe|healthy|clear|harmless|normal|unsuspicious|innocent|innocuous|all right|nothing to worry"
    "|no (?:cause|reason|need|further|follow)|not need(?:ed)? to|reassur|discharg|dismiss|low risk|can wait",
    "de": "sicher|gesund|unbedenklich|harmlos|entwarnung|ungefährlich|normal|unauffällig|unverdächtig|klar"
    "|in ordnung|keine? (?:grund|anlass|gefahr|weitere)|nicht (?:erforderlich|notwendig)|beruhig|entlass"
    "|geringes risiko|kann warten|abschließend",
}
"""Found at the start of a word; ``un`` before one turns nothing into a permitted word."""
SEARCHED_LANGUAGES = tuple(sorted(_NAMES))
"""Languages with lists of their own."""
THE_WORD_OF_THE_NOTICE = "diagnos"
"""It stands in one sentence, the notice, which says that there is no diagnosis."""


def forbidden_words_in(language: str, text: str) -> list[str]:
    """The forbidden words in a text, whatever their case.

    Args:
        language: BCP 47 tag; ``de-AT`` is searched as ``de``. In a language without lists of its own only
            international names of conditions are found: an English word for a discharge may be a plain word.
        text: any text.
    """
    base = re.split("[-_]", language.lower())[0]
    lowered = unicodedata.normalize("NFC", text.lower())
    found = re.findall(_INTERNATIONAL_NAMES, _without_accents(lowered))
    if base in SEARCHED_LANGUAGES:
        for one in {"en", base}:
            found += re.findall(_NAMES[one], lowered)
            found += re.findall(rf"(?<![a-zäöüß])(?:un)?(?:{_DISCHARGES[one]})", lowered)
    return sorted(set(found))


def _without_accents(text: str) -> str:
    return "".join(one for one in unicodedata.normalize("NFD", text) if not unicodedata.combining(one))
