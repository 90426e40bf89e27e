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
    "A network that can read it from the picture scores well here without the lesion, and fails elsewhere. "
)

WORDS: Mapping[str, Words] = MappingProxyType(
    {
        "leakage": Words(
            "Leakage between splits",
            "A network ranks well what it has memorised. A certificate on cases that were trained on is "
            "void.",
            "Correct patient and lesion ids, then split again with `lesion-triage split`.",
        ),
        "duplicate_files": Words(
            "Files with two image ids",
            "One photograph under two lesions counts twice in every number, and its two lesions are one.",
            "Merge the lesions, or remove one of the rows.",
        ),
        "contradictory_labels": Words(
            "One picture with two labels",
            "At least one of the labels is wrong. How many wrong labels no copy contradicts is unknown.",
            "Ask whoever made the labels. Until then leave both rows unlabelled.",
            acceptable=True,
        ),
        "dropped_pictures": Words(
            "Pictures that could not be used",
            "If pictures are not missing at random, the rest is another population.",
            "Complete the download; the manifest names every picture with its reason.",
        ),
        "unknown_labels": Words(
            "Pictures without a label",
            "They are used for nothing. If labels are missing for the hard cases, the rest look easy.",
            "Find the reference standard, or state why it is missing.",
        ),
        "split_balance": Words(
            "Positives in each split",
            "A split of another composition measures another population.",
            "Split again, or with another seed.",
        ),
        "balance": Words(
            "Who is in the data",
            "What holds for all cases together need not hold for a small group.",
            "Read the table before you report on any group; `calibrate.groups` says which can be certified.",
        ),
        "skin_type_balance": Words(
            "Skin types",
            "Published datasets contain few people with dark skin (Daneshjou 2022, Groh 2021); results do "
            "not carry over.",
            "Add cases of the types that are missing, or do not use the model for them.",
        ),
        "source_shortcut": Words(
            "The source alone",
            _SHORTCUT + "Cameras, hospitals and collections look different.",
            "Report every result by source, balance the sources, or leave out the one that is named.",
            acceptable=True,
        ),
        "size_shortcut": Words(
            "Width and height alone",
            _SHORTCUT + "Size survives resizing, as sharpness, aspect ratio and compression artefacts.",
            "Bring all pictures to one size and aspect ratio before the manifest is built, or balance the "
            "classes.",
            acceptable=True,
        ),
        "metadata_baseline": Words(
            "Age, sex and site alone",
            "Age is a true risk factor, so this is not a fault. It is what a model must beat for its "
            "pictures to be of use.",
            "Compare the model with this baseline, on the same cases.",
        ),
        "missingness": Words(
            "Empty cells",
            "Forms are filled in for the cases that get a biopsy. A model that reads the table learns the "
            "label from the gaps, and the group `unknown` is not like the others.",
            "Feed no metadata to a model. Where a column defines groups, look at its group `unknown`.",
            acceptable=True,
        ),
        "frame_shortcut": Words(
            "The frame of the picture alone",
            _SHORTCUT
            + "The outer tenth of a picture holds light, camera, skin and instruments, rarely the lesion.",
            "Look at the sources first, then at the artefacts below.",
            acceptable=True,
        ),
        "file_size_shortcut": Words(
            "Bytes per pixel alone",
            _SHORTCUT + "Compression differs between collections and leaves traces in the pixels.",
            "Store all pictures with one encoder at one quality, or balance the classes.",
            acceptable=True,
        ),
        "dark_corners": Words(
            "Dark corners",
            _SHORTCUT + "They come from the lens of a dermatoscope (Bissoto 2020).",
            "Crop them out of every picture alike, or balance the classes.",
            acceptable=True,
        ),
        "hair": Words(
            "Hair",
            _SHORTCUT,
            "Balance the classes; augmentation with drawn hair also makes a model more robust (Bissoto "
            "2020).",
            acceptable=True,
        ),
        "ink": Words(
            "Ink of skin markings",
            "Surgeons mark what they are about to excise, and markings raise a network's score (Winkler "
            "2019).",
            "Leave marked pictures out, or balance the classes.",
            acceptable=True,
        ),
        "ruler": Words(
            "Rulers",
            "Rulers are laid beside lesions of concern, and networks learn this (Narla 2018).",
            "Crop rulers out of every picture, or balance the classes.",
            acceptable=True,
        ),
        "patches": Words(
            "Coloured patches",
            "In the ISIC archive nearly half of the negative pictures show a coloured patch, and no "
            "positive one does (Rieger 2020).",
            "Leave those pictures out, cover the patches, or balance the classes.",
            acceptable=True,
        ),
        "skin_tone": Words(
            "Skin tone, estimated from the pixels",
            "Where no table states the skin type, this is the only hint. It depends on light and camera, "
            "it is not calibrated, and it must not be used on a person.",
            "State the skin type in the table. This estimate never affects the verdict.",
        ),
        "model_and_metadata": Words(
            "The model compared with age, sex and site",
            "If a model ranks no better than they do, its pictures are of no use.",
            "Train longer or on more cases, or do not use it.",
        ),
        "model_within_source": Words(
            "The model within and across sources",
            "What it gains across sources it gains by recognising the source, and a clinic is a single "
            "source.",
            "Report the number within sources. Balance sources, or leave out what `source_shortcut` names.",
        ),
        "lesion_covered": Words(
            "The model with the lesion covered",
            "Whatever it still predicts, it does not predict from the lesion (Bissoto 2019).",
            "Look for the artefact: look at the pictures that it ranks high with the lesion covered.",
        ),
    }
)
"""Code -> words."""
