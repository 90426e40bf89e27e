"""The one clinical table: each kind of lesion, whether it needs an in-person visit, why, and by what source.

Imports nothing. A line is changed by a clinician who answers for it, never to make a dataset fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

REFERENCES: Mapping[str, str] = MappingProxyType(
    {
        "NICE NG12": (
            "National Institute for Health and Care Excellence. Suspected cancer: recognition and "
            "referral. NICE guideline NG12 (2015), section 1.7, skin cancers."
        ),
        "NICE NG14": (
            "National Institute for Health and Care Excellence. Melanoma: assessment and management. NICE"
            " guideline NG14 (2015)."
        ),
        "de Berker 2017": (
            "de Berker D et al. British Association of Dermatologists' guidelines for the care of "
            "patients with actinic keratosis 2017. Br J Dermatol 176, 20-43. doi:10.1111/bjd.15107"
        ),
        "Keohane 2021": (
            "Keohane SG et al. British Association of Dermatologists guidelines for the management of "
            "people with cutaneous squamous cell carcinoma 2020. Br J Dermatol 184, 401-414. "
            "doi:10.1111/bjd.19621"
        ),
        "Nasr 2021": (
            "Nasr I et al. British Association of Dermatologists guidelines for the management of adults "
            "with basal cell carcinoma 2021. Br J Dermatol 185, 899-920. doi:10.1111/bjd.20524"
        ),
        "Sharma 2022": (
            "Sharma A et al. British Association of Dermatologists guidelines for the management of "
            "people with cutaneous squamous cell carcinoma in situ (Bowen disease) 2022. Br J Dermatol "
            "188, 186-194. doi:10.1093/bjd/ljac042"
        ),
        "Gilson 2019": (
            "Gilson D et al. British Association of Dermatologists and U.K. Cutaneous Lymphoma Group "
            "guidelines for the management of primary cutaneous lymphomas 2018. Br J Dermatol 180, "
            "496-526. doi:10.1111/bjd.17240"
        ),
        "WHO 2018": (
            "Elder DE, Massi D, Scolyer RA, Willemze R (eds). WHO classification of skin tumours, 4th "
            "edition. IARC, Lyon 2018."
        ),
        "Tschandl 2018": (
            "Tschandl P, Rosendahl C, Kittler H. The HAM10000 dataset. Sci Data 5, 180161. "
            "doi:10.1038/sdata.2018.161"
        ),
        "Rotemberg 2021": (
            "Rotemberg V et al. A patient-centric dataset of images and metadata for identifying "
            "melanomas using clinical context. Sci Data 8, 34. doi:10.1038/s41597-021-00815-z"
        ),
        "Kurtansky 2024": (
            "Kurtansky NR et al. The SLICE-3D dataset: 400,000 skin lesion image crops extracted from 3D "
            "TBP for skin cancer detection. Sci Data 11, 884. doi:10.1038/s41597-024-03743-w"
        ),
    }
)
"""Short reference -> full reference."""


class Decision(NamedTuple):
    """One line of the table."""

    name: str
    needs_in_person: bool | None
    why: str
    source: str


_POSITIVE = {
    "melanoma": Decision(
        "melanoma, in situ, invasive or metastatic",
        True,
        "Malignant; cured by early excision, deadly if late.",
        "NICE NG12",
    ),
    "basal_cell_carcinoma": Decision(
        "basal cell carcinoma, any variant",
        True,
        "Malignant; rarely spreads but grows destructively if untreated.",
        "NICE NG12; Nasr 2021",
    ),
    "squamous_cell_carcinoma": Decision(
        "squamous cell carcinoma, in situ (Bowen's disease) or invasive, keratoacanthoma included",
        True,
        "Malignant and able to spread, or its in-situ stage; datasets file them under one code.",
        "NICE NG12; Keohane 2021; Sharma 2022",
    ),
    "actinic_keratosis": Decision(
        "actinic keratosis",
        True,
        "Precursor of squamous cell carcinoma; whether a mild one may be left is decided by touch.",
        "de Berker 2017",
    ),
    "actinic_keratosis_or_bowen": Decision(
        "actinic keratosis or intraepithelial carcinoma (Bowen's disease)",
        True,
        "Precursor or in-situ stage of squamous cell carcinoma, under one code; treated in person.",
        "Tschandl 2018; de Berker 2017; Sharma 2022",
    ),
    "cutaneous_lymphoma": Decision(
        "lymphoma or leukaemia of the skin",
        True,
        "Malignant; staged and treated by a specialist team.",
        "Gilson 2019; WHO 2018",
    ),
    "other_malignant": Decision(
        "another malignant tumour: Kaposi's sarcoma, sebaceous carcinoma, metastasis, collision with one",
        True,
        "Malignant; needs a specialist whichever it is.",
        "NICE NG12; WHO 2018",
    ),
}

_NEGATIVE = {
    "naevus": Decision(
        "melanocytic naevus, any variant that pathology or follow-up called one",
        False,
        "Benign; one that changes is a red flag, not a label.",
        "WHO 2018; Tschandl 2018",
    ),
    "benign_keratosis": Decision(
        "benign keratosis: seborrhoeic keratosis, solar lentigo, lichen-planus-like keratosis",
        False,
        "Benign; some mimic melanoma and were biopsied for it, and the confirmed result counts here.",
        "WHO 2018; Tschandl 2018",
    ),
    "melanotic_macule": Decision(
        "lentigo, melanosis, melanotic or cafe-au-lait macule",
        False,
        "Benign pigmentation without a proliferation of atypical cells.",
        "WHO 2018",
    ),
    "dermatofibroma": Decision(
        "dermatofibroma",
        False,
        "Benign proliferation or scar after minimal trauma.",
        "WHO 2018; Tschandl 2018",
    ),
    "vascular": Decision(
        "vascular lesion: angioma, angiokeratoma, pyogenic granuloma, haemorrhage",
        False,
        "Benign; a bleeding nodule is a red flag, not a label.",
        "WHO 2018; Tschandl 2018",
    ),
    "other_benign": Decision(
        "another benign growth: cyst, wart-like or adnexal growth, neurofibroma, lipoma, scar, skin tag",
        False,
        "Benign by the dataset's reference standard; removal is a choice, not a need.",
        "WHO 2018",
    ),
    "benign_kind_not_stated": Decision(
        "called benign by the dataset, which does not say what it is",
        False,
        "A clinician judged it benign, mostly without biopsy. An actinic keratosis may hide among them, so a "
        "False here is weaker than one with a name; reports show confirmed cases apart.",
        "Rotemberg 2021; Kurtansky 2024",
    ),
}

_UNDECIDED = {
    "indeterminate_melanocytic": Decision(
        "atypical melanocytic proliferation that pathology could not place",
        None,
        "Neither called melanoma nor excluded; treated by the single case, so the code does not decide.",
        "WHO 2018; NICE NG14",
    ),
    "uncertain_growth": Decision(
        "growth with a small or disputed risk of cancer: porokeratosis, atypical naevus, lymphoid infiltrate",
        None,
        "Guidance differs and the single case decides; the code does not.",
        "WHO 2018",
    ),
    "inflammatory": Decision(
        "inflammatory, infectious or inherited disease",
        None,
        "Not what this table asks about: some can wait, some are emergencies, and no lesion decides it.",
        "none: outside the question",
    ),
    "not_classified": Decision(
        "none of the dataset's classes, miscellaneous, or no diagnosis",
        None,
        "It is not known what it is; unknown is never taken for harmless.",
        "none: unknown",
    ),
    "opinion_on_photograph": Decision(
        "a differential that was given on the same photographs, without examination or biopsy",
        None,
        "Whoever learns or certifies on it measures agreement with readers of the photograph, not the truth.",
        "none: no reference standard",
    ),
}

_DRAWN = {
    "drawn_irregular": Decision(
        "drawing with an irregular shape", True, "Positive by construction; means nothing on skin.", "drawn"
    ),
    "drawn_regular": Decision(
        "drawing with a regular shape", False, "Negative by construction; means nothing on skin.", "drawn"
    ),
}

DECISIONS: Mapping[str, Decision] = MappingProxyType({**_POSITIVE, **_NEGATIVE, **_UNDECIDED, **_DRAWN})
"""Key -> decision."""
