"""For each finding: its title, why it matters, what to do. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Words:
    """What a report says about one kind of finding, whatever was measured."""

    title: str
    why: str
    action: str
    acceptable: bool = False
    """Whether it can fail and a person may accept the failure."""


_SHORTCUT = (
    "A network that can read it from the picture needs no lesion to score well here, and fails elsewhere. "
)

WORDS: Mapping[str, Words] = MappingProxyType(
    {
        "leakage": Words(
            "Leakage between splits",
            "What a network has learnt by heart it ranks well. A certificate on cases that were trained "
            "on is void.",
            "Deal the splits again with `lesion-triage split`; correct patient and lesion ids first.",
        ),
        "duplicate_files": Words(
            "Files that stand under two names",
            "One photograph under two lesions counts twice in every number, and its two lesions are one.",
            "Join the lesions, or remove one of the rows.",
        ),
        "contradictory_labels": Words(
            "One picture with two labels",
            "At least one of the labels is wrong. How many are wrong that no copy contradicts, nobody knows.",
            "Ask whoever made the labels. Until then leave both rows unlabelled.",
            acceptable=True,
        ),
        "dropped_pictures": Words(
            "Pictures that could not be used",
            "If what is lost is not lost at random, the rest is another population.",
            "Complete the download; the manifest names every picture with its reason.",
        ),
        "unknown_labels": Words(
            "Pictures without a label",
            "They take no part in anything. Labels that are missing for the hard cases make the rest "
            "look easy.",
            "Find the reference standard, or say why it is missing.",
        ),
        "split_balance": Words(
            "Positives in each split",
            "A split of another make-up measures another population.",
            "Deal the splits again, or with another seed.",
        ),
        "balance": Words(
            "Who is in the data",
            "What holds for all together need not hold for a group of whom there are few.",
            "Read the table before speaking of any group; `calibrate.groups` says which can be certified.",
        ),
        "skin_type_balance": Words(
            "Skin types",
            "Published datasets hold few people of dark skin (Daneshjou 2022, Groh 2021); results do not "
            "carry over.",
            "Add cases of the types that are missing, or do not use the model for them.",
        ),
        "source_shortcut": Words(
            "The source alone",
            _SHORTCUT + "Cameras, hospitals and collections look different.",
            "Take sources apart in every result, balance them, or leave out the one that is named.",
            acceptable=True,
        ),
        "size_shortcut": Words(
            "Width and height alone",
            _SHORTCUT + "Size survives resizing: as sharpness, as aspect, as artefacts of compression.",
            "Bring all pictures to one size and aspect before they are listed, or balance.",
            acceptable=True,
        ),
        "metadata_baseline": Words(
            "Age, sex and site alone",
            "Age is a true risk factor, so this is no fault. It is what a model must beat to be worth "
            "its pictures.",
            "Compare the model with it, on the same cases.",
        ),
        "missingness": Words(
            "What is left empty",
            "Forms are filled in for the cases that get a biopsy. Whatever sees the table learns the "
            "label from the gaps, and groups called unknown are not like the others.",
            "Feed no metadata to a model. Where a column decides on groups, look at its group `unknown`.",
            acceptable=True,
        ),
        "frame_shortcut": Words(
            "The frame of the picture alone",
            _SHORTCUT
            + "The outer tenth of a picture holds light, camera, skin and instruments, rarely the lesion.",
            "Look at the sources first; then at the artefacts below.",
            acceptable=True,
        ),
        "file_size_shortcut": Words(
            "Bytes per pixel alone",
            _SHORTCUT + "Compression differs between collections and leaves traces in the pixels.",
            "Store all pictures by one encoder at one quality, or balance.",
            acceptable=True,
        ),
        "dark_corners": Words(
            "Dark corners",
            _SHORTCUT + "They come of the lens of a dermatoscope (Bissoto 2020).",
            "Crop them away from every picture alike, or balance.",
            acceptable=True,
        ),
        "hair": Words(
            "Hair",
            _SHORTCUT,
            "Balance; a model can also be made robust by drawn hair (Bissoto 2020).",
            acceptable=True,
        ),
        "ink": Words(
            "Ink of skin markings",
            "Surgeons mark what they are about to cut out, and markings raise a network's score (Winkler "
            "2019).",
            "Leave marked pictures out, or balance.",
            acceptable=True,
        ),
        "ruler": Words(
            "Rulers",
            "Rulers are laid beside lesions of concern, and networks learn that (Narla 2018).",
            "Crop rulers away from every picture, or balance.",
            acceptable=True,
        ),
        "patches": Words(
            "Coloured patches",
            "In the ISIC archive nearly half of the negative pictures show a coloured patch, and no "
            "positive one does (Rieger 2020).",
            "Leave those pictures out, cover the patches, or balance.",
            acceptable=True,
        ),
        "skin_tone": Words(
            "Skin tone, estimated from the pixels",
            "Where no table states the skin type, this is the only hint. It depends on light and camera, "
            "it is not calibrated, and it must not be used on one person.",
            "State the skin type in the table. This estimate never decides on the verdict.",
        ),
        "model_and_metadata": Words(
            "The model beside age, sex and site",
            "A model that does not rank better than they do is not worth its pictures.",
            "Train longer, on more cases, or do not use it.",
        ),
        "model_within_source": Words(
            "The model within and across sources",
            "What it gains across sources it gains by telling the sources apart, and a clinic is one source.",
            "Quote the number within sources. Balance sources, or leave out what `source_shortcut` names.",
        ),
        "lesion_covered": Words(
            "The model with the lesion covered",
            "Whatever it still knows it does not know from the lesion (Bissoto 2019).",
            "Look for the artefact: compare the pictures it ranks high with the lesion covered.",
        ),
    }
)
"""Code -> words."""
