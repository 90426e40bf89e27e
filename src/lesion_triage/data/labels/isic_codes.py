"""Codes of the datasets from the ISIC archive, each with its key in ``decisions``. Imports nothing."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

ISIC_2018: Mapping[str, str] = MappingProxyType(
    {
        "MEL": "melanoma",
        "NV": "naevus",
        "BCC": "basal_cell_carcinoma",
        "AKIEC": "actinic_keratosis_or_bowen",
        "BKL": "benign_keratosis",
        "DF": "dermatofibroma",
        "VASC": "vascular",
    }
)

ISIC_2019: Mapping[str, str] = MappingProxyType(
    {
        "MEL": "melanoma",
        "NV": "naevus",
        "BCC": "basal_cell_carcinoma",
        "AK": "actinic_keratosis",
        "BKL": "benign_keratosis",
        "DF": "dermatofibroma",
        "VASC": "vascular",
        "SCC": "squamous_cell_carcinoma",
        "UNK": "not_classified",
    }
)
"""UNK is the test split's class for everything else; the training table has the column but no such row."""

BCN20000: Mapping[str, str] = MappingProxyType({**ISIC_2019, "OOD": "not_classified", "": "not_classified"})
"""The ninth, out-of-distribution class; test rows may have no diagnosis at all."""

ISIC_2020: Mapping[str, str] = MappingProxyType(
    {
        "melanoma": "melanoma",
        "nevus": "naevus",
        "seborrheic keratosis": "benign_keratosis",
        "lichenoid keratosis": "benign_keratosis",
        "solar lentigo": "benign_keratosis",
        "lentigo NOS": "melanotic_macule",
        "cafe-au-lait macule": "melanotic_macule",
        "atypical melanocytic proliferation": "indeterminate_melanocytic",
        "unknown": "benign_kind_not_stated",
    }
)
"""``unknown`` here means rows that ``benign_malignant`` calls benign; the reader refuses the others."""

MILK10K: Mapping[str, str] = MappingProxyType(
    {
        "AKIEC": "actinic_keratosis_or_bowen",
        "BCC": "basal_cell_carcinoma",
        "BEN_OTH": "other_benign",
        "BKL": "benign_keratosis",
        "DF": "dermatofibroma",
        "INF": "inflammatory",
        "MAL_OTH": "other_malignant",
        "MEL": "melanoma",
        "NV": "naevus",
        "SCCKA": "squamous_cell_carcinoma",
        "VASC": "vascular",
    }
)

DERMAMNIST = (
    "actinic_keratosis_or_bowen",
    "basal_cell_carcinoma",
    "benign_keratosis",
    "dermatofibroma",
    "melanoma",
    "naevus",
    "vascular",
)
"""In order of the label numbers."""

_NAEVUS = "Benign::Benign melanocytic proliferations::Nevus"
_BENIGN_EPIDERMAL = "Benign::Benign epidermal proliferations"
_FIBROUS = "Benign::Benign soft tissue proliferations - Fibro-histiocytic"
_MELANOMA = "Malignant::Malignant melanocytic proliferations (Melanoma)"
_INVASIVE = f"{_MELANOMA}::Melanoma Invasive"
_BCC = "Malignant::Malignant adnexal epithelial proliferations - Follicular::Basal cell carcinoma"
_SCC = "Malignant::Malignant epidermal proliferations::Squamous cell carcinoma"
_AK = "Indeterminate::Indeterminate epidermal proliferations::Solar or actinic keratosis"
_ATYPICAL = "Indeterminate::Indeterminate melanocytic proliferations"

ISIC_2024: Mapping[str, str] = MappingProxyType(
    {
        "Benign": "benign_kind_not_stated",
        _NAEVUS: "naevus",
        f"{_NAEVUS}::Nevus, Atypical, Dysplastic, or Clark": "naevus",
        f"{_NAEVUS}::Nevus, NOS, Junctional": "naevus",
        f"{_NAEVUS}::Nevus, NOS, Compound": "naevus",
        f"{_NAEVUS}::Nevus, NOS, Dermal": "naevus",
        f"{_NAEVUS}::Nevus, Combined": "naevus",
        f"{_NAEVUS}::Nevus, Congenital": "naevus",
        f"{_NAEVUS}::Nevus, Deep penetrating": "naevus",
        f"{_NAEVUS}::Nevus, Of special anatomic site": "naevus",
        f"{_NAEVUS}::Nevus, Spitz": "naevus",
        f"{_NAEVUS}::Blue nevus::Blue nevus, Cellular": "naevus",
        f"{_BENIGN_EPIDERMAL}::Seborrheic keratosis": "benign_keratosis",
        f"{_BENIGN_EPIDERMAL}::Seborrheic keratosis::Seborrheic keratosis, Clonal": "benign_keratosis",
        f"{_BENIGN_EPIDERMAL}::Lichen planus like keratosis": "benign_keratosis",
        f"{_BENIGN_EPIDERMAL}::Pigmented benign keratosis": "benign_keratosis",
        f"{_BENIGN_EPIDERMAL}::Solar lentigo": "benign_keratosis",
        "Benign::Flat melanotic pigmentations - not melanocytic nevus::Lentigo NOS": "melanotic_macule",
        f"{_FIBROUS}::Dermatofibroma": "dermatofibroma",
        f"{_FIBROUS}::Angiofibroma::Angiofibroma, Facial": "other_benign",
        f"{_FIBROUS}::Fibroepithelial polyp": "other_benign",
        f"{_FIBROUS}::Scar": "other_benign",
        "Benign::Benign soft tissue proliferations - Vascular::Hemangioma::Hemangioma, Cherry": "vascular",
        "Benign::Benign adnexal epithelial proliferations - Apocrine or Eccrine::Hidradenoma": "other_benign",
        "Benign::Benign adnexal epithelial proliferations - Follicular": "other_benign",
        "Benign::Cysts": "other_benign",
        "Benign::Cysts::Trichilemmal or isthmic-catagen or pilar cyst": "other_benign",
        "Benign::Inflammatory or infectious diseases::Verruca": "inflammatory",
        _AK: "actinic_keratosis",
        f"{_AK}::Actinic keratosis, Bowenoid": "actinic_keratosis",
        f"{_ATYPICAL}::Atypical melanocytic neoplasm": "indeterminate_melanocytic",
        f"{_ATYPICAL}::Atypical intraepithelial melanocytic proliferation": "indeterminate_melanocytic",
        _BCC: "basal_cell_carcinoma",
        f"{_BCC}::Basal cell carcinoma, Infiltrating": "basal_cell_carcinoma",
        f"{_BCC}::Basal cell carcinoma, Nodular": "basal_cell_carcinoma",
        f"{_BCC}::Basal cell carcinoma, Superficial": "basal_cell_carcinoma",
        f"{_SCC} in situ": "squamous_cell_carcinoma",
        f"{_SCC} in situ::Squamous cell carcinoma in situ, Bowens disease": ("squamous_cell_carcinoma"),
        f"{_SCC}, Invasive": "squamous_cell_carcinoma",
        f"{_SCC}, Invasive::Squamous cell carcinoma, Invasive, Keratoacanthoma-type": (
            "squamous_cell_carcinoma"
        ),
        f"{_SCC}, NOS": "squamous_cell_carcinoma",
        f"{_MELANOMA}::Melanoma, NOS": "melanoma",
        f"{_MELANOMA}::Melanoma metastasis": "melanoma",
        f"{_MELANOMA}::Melanoma in situ": "melanoma",
        f"{_MELANOMA}::Melanoma in situ::Melanoma in situ, Lentigo maligna type": "melanoma",
        f"{_MELANOMA}::Melanoma in situ::Melanoma in situ, Superficial spreading": "melanoma",
        f"{_MELANOMA}::Melanoma in situ::Melanoma in situ, associated with a nevus": "melanoma",
        f"{_INVASIVE}": "melanoma",
        f"{_INVASIVE}::Melanoma Invasive, Associated with a nevus": "melanoma",
        f"{_INVASIVE}::Melanoma Invasive, Nodular": "melanoma",
        f"{_INVASIVE}::Melanoma Invasive, On chronically sun-exposed skin or lentigo maligna "
        "melanoma": "melanoma",
        f"{_INVASIVE}::Melanoma Invasive, Superficial spreading": "melanoma",
    }
)
"""``iddx_full``, a path in the archive's tree of diagnoses. Actinic keratosis has ``target`` 0 there and is
True here, as in every other dataset."""
