"""Which line of the clinical table each dataset's own code maps to. Imports nothing.

Each family has a short reference for the meaning of its codes; the readers' docstrings have the full ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lesion_triage.data.labels import clinical_codes, isic_codes

_HAM10000 = {
    "mel": "melanoma",
    "bcc": "basal_cell_carcinoma",
    "akiec": "actinic_keratosis_or_bowen",
    "nv": "naevus",
    "bkl": "benign_keratosis",
    "df": "dermatofibroma",
    "vasc": "vascular",
}
_PAD_UFES_20 = {
    "MEL": "melanoma",
    "BCC": "basal_cell_carcinoma",
    "SCC": "squamous_cell_carcinoma",
    "ACK": "actinic_keratosis",
    "NEV": "naevus",
    "SEK": "benign_keratosis",
}
_PH2 = {"0": "naevus", "1": "naevus", "2": "melanoma"}
_DERM7PT = {
    "basal cell carcinoma": "basal_cell_carcinoma",
    "blue nevus": "naevus",
    "clark nevus": "naevus",
    "combined nevus": "naevus",
    "congenital nevus": "naevus",
    "dermal nevus": "naevus",
    "dermatofibroma": "dermatofibroma",
    "lentigo": "melanotic_macule",
    "melanoma": "melanoma",
    "melanoma (in situ)": "melanoma",
    "melanoma (less than 0.76 mm)": "melanoma",
    "melanoma (0.76 to 1.5 mm)": "melanoma",
    "melanoma (more than 1.5 mm)": "melanoma",
    "melanoma metastasis": "melanoma",
    "melanosis": "melanotic_macule",
    "miscellaneous": "not_classified",
    "recurrent nevus": "naevus",
    "reed or spitz nevus": "naevus",
    "seborrheic keratosis": "benign_keratosis",
    "vascular lesion": "vascular",
}
_SYNTHETIC = {"irregular": "drawn_irregular", "regular": "drawn_regular"}

CODES: Mapping[str, tuple[str, Mapping[str, str]]] = MappingProxyType(
    {
        "ham10000": ("Tschandl 2018", _HAM10000),
        "pad_ufes_20": ("Pacheco 2020", _PAD_UFES_20),
        "isic_2018": ("ISIC 2018 task 3", isic_codes.ISIC_2018),
        "isic_2019": ("ISIC 2019", isic_codes.ISIC_2019),
        "isic_2020": ("Rotemberg 2021", isic_codes.ISIC_2020),
        "isic_2024": ("Kurtansky 2024", isic_codes.ISIC_2024),
        "bcn20000": ("Hernandez-Perez 2024", isic_codes.BCN20000),
        "milk10k": ("MILK10k 2025", isic_codes.MILK10K),
        "derm7pt": ("Kawahara 2019", _DERM7PT),
        "ph2": ("Mendonca 2013", _PH2),
        "fitzpatrick17k": ("Groh 2021", clinical_codes.FITZPATRICK17K),
        "ddi": ("Daneshjou 2022", clinical_codes.DDI),
        "scin": ("Ward 2024", clinical_codes.SCIN),
        "dermamnist": (
            "Yang 2023, after Tschandl 2018",
            {str(n): key for n, key in enumerate(isic_codes.DERMAMNIST)},
        ),
        "synthetic": ("drawn", _SYNTHETIC),
    }
)
"""Family of sources: the reference for the meaning of its codes, and each code's key in ``decisions``."""
