"""The label table: which diagnosis counts as "needs an in-person visit". Imports the exception tree only.

A clinical decision, kept in one place so that a clinician can review it line by line.

The label is the reference standard for training and for the certificate; it is not management advice. It
asks one question of a lesion whose nature is known: did this one have to be seen and treated in the
flesh, by whichever clinician? A lesion that looks worrying, grows, bleeds or is new at an unusual age
deserves a visit whatever it turns out to be; that is a red flag, is handled apart from the picture, and
is no reason to change a line here. The False rows are therefore "not by this diagnosis alone", and the
None of a record without a label is never turned into False. The line most open to debate is actinic
keratosis: mild ones may be left untreated, and a site that sees it otherwise changes the line, trains and
certifies anew.

References:
    Tschandl 2018: Tschandl P, Rosendahl C, Kittler H. The HAM10000 dataset, a large collection of
        multi-source dermatoscopic images of common pigmented skin lesions. Sci Data 5, 180161.
        doi:10.1038/sdata.2018.161
    Pacheco 2020: Pacheco AGC et al. PAD-UFES-20: a skin lesion dataset composed of patient data and
        clinical images collected from smartphones. Data in Brief 32, 106221.
        doi:10.1016/j.dib.2020.106221
    de Berker 2017: de Berker D et al. British Association of Dermatologists' guidelines for the care of
        patients with actinic keratosis 2017. Br J Dermatol 176, 20-43. doi:10.1111/bjd.15107
    Sharma 2022: Sharma A et al. British Association of Dermatologists guidelines for the management of
        people with cutaneous squamous cell carcinoma in situ (Bowen disease) 2022. Br J Dermatol 188,
        186-194. doi:10.1093/bjd/ljac042
    NICE NG12: National Institute for Health and Care Excellence. Suspected cancer: recognition and referral.
        NICE guideline NG12 (2015), section 1.7, skin cancers.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from lesion_triage.errors import DataError

T = TypeVar("T")


class Label(NamedTuple):
    """One line of the table."""

    name: str
    needs_in_person: bool | None
    """None: the diagnosis alone does not decide; such records enter no split."""
    why: str
    source: str
    """Short reference; the full one stands in the module's docstring."""


_HAM10000 = {
    "mel": Label(
        "melanoma, in situ or invasive",
        True,
        "Malignant; cured by early excision, deadly if late.",
        "Tschandl 2018; NICE NG12",
    ),
    "bcc": Label(
        "basal cell carcinoma",
        True,
        "Malignant; rarely spreads but grows destructively if untreated.",
        "Tschandl 2018; NICE NG12",
    ),
    "akiec": Label(
        "actinic keratosis or intraepithelial carcinoma (Bowen's disease)",
        True,
        "Precursor or in-situ stage of squamous cell carcinoma, under one code; treated in person.",
        "Tschandl 2018; de Berker 2017; Sharma 2022",
    ),
    "nv": Label(
        "melanocytic naevus",
        False,
        "Benign, any variant; one that changes is a red flag, not a label.",
        "Tschandl 2018",
    ),
    "bkl": Label(
        "benign keratosis: seborrhoeic keratosis, solar lentigo, lichen-planus-like keratosis",
        False,
        "Benign; some mimic melanoma and were biopsied for it, and the confirmed result counts here.",
        "Tschandl 2018",
    ),
    "df": Label(
        "dermatofibroma",
        False,
        "Benign proliferation or scar after minimal trauma.",
        "Tschandl 2018",
    ),
    "vasc": Label(
        "vascular lesion: angioma, angiokeratoma, pyogenic granuloma, haemorrhage",
        False,
        "Benign; a bleeding nodule is a red flag, not a label.",
        "Tschandl 2018",
    ),
}

_PAD_UFES_20 = {
    "MEL": Label(
        "melanoma", True, "Malignant; cured by early excision, deadly if late.", "Pacheco 2020; NICE NG12"
    ),
    "BCC": Label(
        "basal cell carcinoma",
        True,
        "Malignant; rarely spreads but grows destructively if untreated.",
        "Pacheco 2020; NICE NG12",
    ),
    "SCC": Label(
        "squamous cell carcinoma, Bowen's disease included",
        True,
        "Malignant and able to spread, or its in-situ stage; the dataset files both under one code.",
        "Pacheco 2020; NICE NG12; Sharma 2022",
    ),
    "ACK": Label(
        "actinic keratosis",
        True,
        "Precursor of squamous cell carcinoma; whether a mild one may be left is decided by touch.",
        "Pacheco 2020; de Berker 2017",
    ),
    "NEV": Label("melanocytic naevus", False, "Benign.", "Pacheco 2020"),
    "SEK": Label("seborrhoeic keratosis", False, "Benign.", "Pacheco 2020"),
}

_SYNTHETIC = {
    "irregular": Label(
        "drawing with an irregular shape", True, "Positive by construction; means nothing on skin.", "drawn"
    ),
    "regular": Label(
        "drawing with a regular shape", False, "Negative by construction; means nothing on skin.", "drawn"
    ),
}

LABELS: Mapping[str, Mapping[str, Label]] = MappingProxyType(
    {
        "ham10000": MappingProxyType(_HAM10000),
        "pad_ufes_20": MappingProxyType(_PAD_UFES_20),
        "synthetic": MappingProxyType(_SYNTHETIC),
    }
)
"""Family of sources, then the source's own code, then the label."""


def label_for(family: str, code: str) -> Label:
    """The line of the table for one code, spelt exactly as its source spells it.

    Raises:
        DataError: the family or the code is not in the table; a new diagnosis is a clinical decision,
            not a default.
    """
    codes = _known(LABELS, family, "family of sources")
    return _known(codes, code, f"diagnosis of '{family}'")


def _known(table: Mapping[str, T], key: str, what: str) -> T:
    if key in table:
        return table[key]
    near = difflib.get_close_matches(key, table, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(table)}."
    raise DataError(f"'{key}' is no known {what}; {hint} A new one needs a reviewed line in data/labels.py.")
