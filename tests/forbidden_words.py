"""Words that no text for a reader may hold: they name a condition, exclude one, or promise a discharge.

``diagnosis`` stands in one sentence, the notice, which says that there is none; take it out before looking.
"""

from __future__ import annotations

import re

_NAMES = {
    "en": "benign|malign|cancer|melanom|carcinom|sarcom|lymphom|metasta|diagnos|keratos|n[ae]?evus|n[ae]?evi"
    "|eczema|psoria|dermatofibrom|angiom|warts?(?![a-z])",
    "de": "gutartig|bösartig|krebs|melanom|karzinom|sarkom|lymphom|metasta|diagnos|keratos|nävus|nävi|naev"
    "|ekzem|psoria|dermatofibrom|angiom|basaliom|spinaliom|warze|malign|benign",
}
_DISCHARGES = {
    "en": "safe|healthy|clear|harmless|normal|unsuspicious|innocent|innocuous|all right|nothing to worry"
    "|no (?:cause|reason|need|further|follow)|not need(?:ed)? to|reassur|discharg|dismiss|low risk|can wait",
    "de": "sicher|gesund|unbedenklich|harmlos|entwarnung|ungefährlich|normal|unauffällig|unverdächtig|klar"
    "|in ordnung|keine? (?:grund|anlass|gefahr|weitere)|nicht (?:erforderlich|notwendig)|beruhig|entlass"
    "|geringes risiko|kann warten|abschließend",
}


def forbidden_words_in(language: str, text: str) -> list[str]:
    """The forbidden words in a text of one language, whatever their case; English ones count everywhere."""
    patterns = {_NAMES["en"], _NAMES[language], _DISCHARGES["en"], _DISCHARGES[language]}
    return sorted(word for pattern in patterns for word in re.findall(_starting(pattern), text.lower()))


def _starting(pattern: str) -> str:
    """At the start of a word; ``un`` before it turns nothing into a permitted word."""
    return rf"(?<![a-zäöüß])(?:un)?(?:{pattern})"
