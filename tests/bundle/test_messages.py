"""Every code has a text in every language, every text its code, and none names or excludes a condition."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from lesion_triage.bundle.forbidden_words import forbidden_words_in
from lesion_triage.bundle.guidance import QUESTIONS, Counselling, Limit, NotAssessed
from lesion_triage.bundle.history import History
from lesion_triage.bundle.messages import Catalogue, NotePhrase, available_languages, placeholders
from lesion_triage.bundle.red_flags import GROUP_FIELDS
from lesion_triage.bundle.schema import Disposition, ReasonCode
from lesion_triage.errors import ConfigError
from lesion_triage.red_flags_file import read_red_flags

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = available_languages()
NO_DIAGNOSIS = {"en": "This is not a diagnosis.", "de": "Dies ist keine Diagnose."}
EVERY_LANGUAGE = pytest.mark.parametrize("language", LANGUAGES)
IMAGE_REASONS = {code for code in ReasonCode if code.startswith("image_")}


def shipped(language: str) -> dict[str, Any]:
    """The file of a language as it is shipped, for a test to spoil."""
    text = (resources.files("lesion_triage.bundle") / "catalogues" / f"{language}.json").read_text("utf-8")
    tree: dict[str, Any] = json.loads(text)
    return tree


def folder_with(folder: Path, language: str, tree: Any) -> Path:
    text = tree if isinstance(tree, str) else json.dumps(tree)
    (folder / f"{language}.json").write_text(text, encoding="utf-8")
    return folder


# Complete


def test_english_and_german_are_shipped() -> None:
    assert {"en", "de"} <= set(LANGUAGES)
    assert set(LANGUAGES) == NO_DIAGNOSIS.keys(), "words_in needs the forbidden words of a new language"


@EVERY_LANGUAGE
def test_every_code_has_a_text_and_every_text_a_code(language: str) -> None:
    catalogue = Catalogue.load(language)
    assert catalogue.reasons.keys() == set(ReasonCode)
    assert catalogue.dispositions.keys() == set(Disposition)
    assert catalogue.limits.keys() == set(Limit)
    assert catalogue.not_assessed.keys() == set(NotAssessed)
    assert catalogue.counselling.keys() == set(Counselling)
    assert catalogue.history.keys() == set(QUESTIONS) == History.model_fields.keys() - set(GROUP_FIELDS)
    assert catalogue.note.keys() == set(NotePhrase)
    defaults = read_red_flags(ROOT / "configs" / "red_flags.yaml")
    assert catalogue.red_flags.keys() == {flag.code for flag in defaults.flags}


@EVERY_LANGUAGE
def test_every_remark_on_a_photograph_says_how_to_take_a_better_one(language: str) -> None:
    reasons = Catalogue.load(language).reasons
    assert [code for code in sorted(IMAGE_REASONS) if reasons[code].coaching is None] == []


@EVERY_LANGUAGE
def test_languages_agree_on_addresses_and_placeholders(language: str) -> None:
    here = {address: placeholders(text) for address, text in Catalogue.load(language).texts()}
    english = {address: placeholders(text) for address, text in Catalogue.load("en").texts()}
    assert here == english


@EVERY_LANGUAGE
def test_no_sentence_was_left_in_english(language: str) -> None:
    english = dict(Catalogue.load("en").texts())
    left = [address for address, text in Catalogue.load(language).texts() if text == english[address]]
    assert language == "en" or left == []


# Words


@EVERY_LANGUAGE
def test_no_text_names_or_excludes_a_condition_or_promises_a_discharge(language: str) -> None:
    texts = dict(Catalogue.load(language).texts())
    assert texts["notice"].count(NO_DIAGNOSIS[language]) == 1
    texts["notice"] = texts["notice"].replace(NO_DIAGNOSIS[language], "")
    found = {address: forbidden_words_in(language, text) for address, text in texts.items()}
    assert {address: words for address, words in found.items() if words} == {}


@EVERY_LANGUAGE
def test_a_tumour_is_spoken_of_only_where_one_was_treated_before(language: str) -> None:
    about_the_past = ("skin_tumour_treated_before", "relative_with_skin_tumour", "risk_factors")
    spoken = [address for address, text in Catalogue.load(language).texts() if "tumo" in text.lower()]
    assert [address for address in spoken if not any(code in address for code in about_the_past)] == []


@EVERY_LANGUAGE
def test_a_text_is_one_line_without_stray_spaces(language: str) -> None:
    assert [one for one in Catalogue.load(language).texts() if one[1] != " ".join(one[1].split())] == []


@EVERY_LANGUAGE
def test_a_sentence_begins_and_ends_like_one(language: str) -> None:
    sections = ("notice", "dispositions", "reasons", "limits", "counselling")
    sentences = {
        address: text
        for address, text in Catalogue.load(language).texts()
        if address.startswith(sections) or (address.startswith("red_flags") and address.endswith("text"))
    }
    assert len(sentences) > 60
    assert [text for text in sentences.values() if not (text[0].isupper() and text.endswith("."))] == []


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "It is benign."),
        ("en", "Nothing suspicious: unsafe to say, but all CLEAR."),
        ("en", "There is no need to come."),
        ("en", "Squamous cell carcinoma"),
        ("de", "Das ist gutartig."),
        ("de", "Hautkrebs: nein. Krebs: nein."),
        ("de", "Die Stelle ist unbedenklich, Entwarnung."),
        ("de", "Sie ist mit Sicherheit harmlos."),
        ("de", "Die Diagnose lautet anders."),
        ("de", "All clear."),
        ("de", "Ein Plattenepithelkarzinom"),
        ("de", "Na\u0308vus"),
        ("de-AT", "Schwarzer Hautkrebs"),
        ("EN_gb", "Nothing to worry about."),
        ("fr", "Un mélanome."),
        ("es", "No es un CÁNCER."),
    ],
)
def test_the_list_of_forbidden_words_finds_what_it_is_for(language: str, text: str) -> None:
    assert forbidden_words_in(language, text) != []


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Inevitable; thwarts; a swart spot."),
        ("de", "Die Brustwarze liegt daneben; nevidljiv."),
        ("cs", "Normal, clear, safe; neví se, je neviditelný."),
    ],
)
def test_plain_words_are_not_taken_for_forbidden_ones(language: str, text: str) -> None:
    assert forbidden_words_in(language, text) == []


# A site's own files


def test_a_third_language_is_a_file(tmp_path: Path) -> None:
    tree = {**shipped("en"), "language": "fr", "name": "Français", "notice": "Ceci est une phrase."}
    extra = folder_with(tmp_path, "fr", tree)
    assert available_languages(extra) == (*LANGUAGES, "fr")
    assert Catalogue.load("fr", extra).notice == "Ceci est une phrase."


def test_a_file_that_an_editor_began_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    text = json.dumps({**shipped("en"), "language": "tlh"})
    (tmp_path / "tlh.json").write_text(text, encoding="utf-8-sig")
    assert Catalogue.load("tlh", tmp_path).language == "tlh"


def test_a_site_gives_its_own_flag_a_text_and_keeps_all_others(tmp_path: Path) -> None:
    own = {"label": "after a burn", "text": "The lesion stands in an old scar."}
    extra = folder_with(tmp_path, "en", {"red_flags": {"old_scar": own}})
    catalogue, ours = Catalogue.load("en", extra), Catalogue.load("en")
    catalogue.require_red_flags(["old_scar", "bleeding"])
    assert catalogue.red_flags["old_scar"].text == own["text"]
    assert {code: text for code, text in catalogue.texts() if "old_scar" not in code} == dict(ours.texts())


def test_a_site_replaces_one_text_and_keeps_those_beside_it(tmp_path: Path) -> None:
    upper = {
        "reasons": {"image_blurred": {"text": "Too soft."}},
        "red_flags": {"bleeding": {"label": "bled"}},
    }
    catalogue, ours = Catalogue.load("en", folder_with(tmp_path, "en", upper)), Catalogue.load("en")
    changed = {"reasons.image_blurred.text": "Too soft.", "red_flags.bleeding.label": "bled"}
    assert dict(catalogue.texts()) == {**dict(ours.texts()), **changed}


@pytest.mark.parametrize("character", [*map(chr, (*range(0x20), *range(0x7F, 0xA0))), "\u2028", "\u2029"])
def test_no_text_has_a_character_that_ends_a_line_or_cannot_be_seen(tmp_path: Path, character: str) -> None:
    for text in (f"One{character}two.", f"{character}One.", f"One.{character}"):
        extra = folder_with(tmp_path, "en", {"counselling": {"clinician_reads": text}})
        with pytest.raises(ConfigError, match=r"counselling\.clinician_reads"):
            Catalogue.load("en", extra)


def test_a_flag_without_a_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="language 'de' has no text for the red flag old_scar"):
        Catalogue.load("de").require_red_flags(["bleeding", "old_scar"])


@pytest.mark.parametrize("section", ["dispositions", "reasons", "limits", "counselling", "history", "note"])
def test_a_code_without_a_text_is_refused(tmp_path: Path, section: str) -> None:
    tree = {**shipped("en"), "language": "fr"}
    code, _ = tree[section].popitem()
    with pytest.raises(ConfigError, match=f"no text for {section}.{code}; every code has one"):
        Catalogue.load("fr", folder_with(tmp_path, "fr", tree))


@pytest.mark.parametrize(
    ("upper", "complaint"),
    [
        ({"reasons": {"image_blured": {"text": "It is."}}}, "did you mean 'image_blurred'"),
        ({"limits": {"weather": "It rained."}}, "limits.weather is the text of no code"),
        ({"note": {"band": "Band one."}}, "has the placeholders .., expected .'band'."),
        ({"note": {"heading": "Note of {name}."}}, "has the placeholders .'name'., expected .."),
        ({"note": {"band": "Band {band.real}."}}, "expected a plain name in braces, found 'band.real'"),
        ({"note": {"band": "Band {band!r}."}}, "expected a plain name in braces"),
        ({"note": {"band": "Band {band"}}, "write a brace twice"),
        ({"notice": "Two\nlines."}, "notice"),
        ({"notice": ""}, "notice"),
        ({"greeting": "Hello."}, "greeting"),
        ({"language": "de"}, "says language 'de', expected 'en'"),
        ('{"name": "English", "name": "Anglais"}', "key 'name' stands twice"),
        ("[]", "expected an object of sections, found list"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_file_that_is_not_right_is_refused(tmp_path: Path, upper: Any, complaint: str) -> None:
    extra = folder_with(tmp_path, "en", upper)
    with pytest.raises(ConfigError, match=complaint) as refusal:
        Catalogue.load("en", extra)
    assert str(tmp_path / "en.json") in str(refusal.value)


@pytest.mark.parametrize(
    ("language", "upper", "complaint"),
    [
        (
            "en",
            {"reasons": {"red_flag": {"text": "It may be a Melanoma."}}},
            "reasons.red_flag.text has 'melanom'",
        ),
        (
            "en",
            {"dispositions": {"below_threshold": "Not suspicious: you are all clear, no need to come."}},
            "dispositions.below_threshold has 'clear', dispositions.below_threshold has 'no need'",
        ),
        ("en", {"red_flags": {"own": {"label": "scar", "text": "Safe."}}}, "red_flags.own.text has 'safe'"),
        ("en", {"notice": "This is not a diagnosis of cancer."}, "notice has 'cancer'"),
        (
            "de",
            {"counselling": {"clinician_reads": "Kein Hautkrebs."}},
            "counselling.clinician_reads has 'krebs'",
        ),
        (
            "de-AT",
            {"counselling": {"clinician_reads": "Alles unbedenklich."}},
            "counselling.clinician_reads has 'unbedenklich'",
        ),
        (
            "fr",
            {"counselling": {"clinician_reads": "Ce n'est pas un cancer."}},
            "counselling.clinician_reads has 'cancer'",
        ),
        ("fr", {"limits": {"no_touch": "Un diagnostic à distance."}}, "limits.no_touch has 'diagnos'"),
    ],
)
def test_a_site_s_text_that_names_a_condition_or_lets_go_is_refused_by_key_and_language(
    tmp_path: Path, language: str, upper: Any, complaint: str
) -> None:
    tree = {**shipped("en"), "language": language} if language not in LANGUAGES else {}
    for section, texts in upper.items():
        tree[section] = {**tree.get(section, {}), **texts} if isinstance(texts, dict) else texts
    with pytest.raises(ConfigError) as refusal:
        Catalogue.load(language, folder_with(tmp_path, language, tree))
    assert f"language '{language}'" in str(refusal.value)
    assert complaint in str(refusal.value)


def test_the_notice_of_any_language_may_say_that_there_is_no_diagnosis(tmp_path: Path) -> None:
    tree = {**shipped("en"), "language": "fr", "notice": "Ceci n'est pas un diagnostic."}
    assert "diagnostic" in Catalogue.load("fr", folder_with(tmp_path, "fr", tree)).notice


@pytest.mark.parametrize("language", ["fr", "", "../en", "en.json", "EN"])
def test_a_language_that_is_not_there_is_refused_with_those_that_are(language: str) -> None:
    with pytest.raises(ConfigError, match="there is de, en"):
        Catalogue.load(language)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a folder of message catalogues"):
        available_languages(tmp_path / "none")


def test_a_folder_that_may_not_be_listed_is_refused_with_the_reason(
    tmp_path: Path, ordinary_user: Callable[[], AbstractContextManager[None]]
) -> None:
    tmp_path.chmod(0o311)
    try:
        with ordinary_user(), pytest.raises(ConfigError, match=r"message catalogues \(Permission denied\)"):
            available_languages(tmp_path)
    finally:
        tmp_path.chmod(0o755)


def test_a_folder_in_place_of_a_catalogue_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "fr.json").mkdir()
    with pytest.raises(ConfigError, match=r"fr\.json: cannot be read as a catalogue"):
        Catalogue.load("fr", tmp_path)
