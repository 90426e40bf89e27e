"""Codes of the datasets of clinical photographs, each with its key in ``decisions``. Imports nothing."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


def _same_decision(key: str, codes: str) -> dict[str, str]:
    """One decision for several codes, one code a line."""
    return dict.fromkeys((line.strip() for line in codes.strip().splitlines()), key)


FITZPATRICK17K: Mapping[str, str] = MappingProxyType(
    {
        **_same_decision(
            "melanoma",
            """
            lentigo maligna
            malignant melanoma
            melanoma
            superficial spreading melanoma ssm
            """,
        ),
        **_same_decision(
            "basal_cell_carcinoma",
            """
            basal cell carcinoma
            basal cell carcinoma morpheiform
            solid cystic basal cell carcinoma
            """,
        ),
        "squamous cell carcinoma": "squamous_cell_carcinoma",
        "actinic keratosis": "actinic_keratosis",
        "mycosis fungoides": "cutaneous_lymphoma",
        "kaposi sarcoma": "other_malignant",
        **_same_decision(
            "naevus",
            """
            congenital nevus
            halo nevus
            nevocytic nevus
            """,
        ),
        "seborrheic keratosis": "benign_keratosis",
        "dermatofibroma": "dermatofibroma",
        **_same_decision(
            "vascular",
            """
            granuloma pyogenic
            lymphangioma
            port wine stain
            pyogenic granuloma
            telangiectases
            """,
        ),
        **_same_decision(
            "other_benign",
            """
            becker nevus
            epidermal nevus
            fordyce spots
            juvenile xanthogranuloma
            keloid
            milia
            mucous cyst
            naevus comedonicus
            pilar cyst
            pilomatricoma
            syringoma
            """,
        ),
        **_same_decision(
            "uncertain_growth",
            """
            disseminated actinic porokeratosis
            nevus sebaceous of jadassohn
            porokeratosis actinic
            porokeratosis of mibelli
            """,
        ),
        **_same_decision(
            "inflammatory",
            """
            acanthosis nigricans
            acne
            acne vulgaris
            acquired autoimmune bullous diseaseherpes gestationis
            acrodermatitis enteropathica
            allergic contact dermatitis
            aplasia cutis
            behcets disease
            calcinosis cutis
            cheilitis
            dariers disease
            dermatomyositis
            drug eruption
            drug induced pigmentary changes
            dyshidrotic eczema
            eczema
            ehlers danlos syndrome
            epidermolysis bullosa
            erythema annulare centrifigum
            erythema elevatum diutinum
            erythema multiforme
            erythema nodosum
            factitial dermatitis
            fixed eruptions
            folliculitis
            granuloma annulare
            hailey hailey disease
            hidradenitis
            ichthyosis vulgaris
            incontinentia pigmenti
            keratosis pilaris
            langerhans cell histiocytosis
            lichen amyloidosis
            lichen planus
            lichen simplex
            livedo reticularis
            lupus erythematosus
            lupus subacute
            lyme disease
            mucinosis
            myiasis
            necrobiosis lipoidica
            nematode infection
            neurodermatitis
            neurofibromatosis
            neurotic excoriations
            neutrophilic dermatoses
            papilomatosis confluentes and reticulate
            paronychia
            pediculosis lids
            perioral dermatitis
            photodermatoses
            pityriasis lichenoides chronica
            pityriasis rosea
            pityriasis rubra pilaris
            porphyria
            prurigo nodularis
            psoriasis
            pustular psoriasis
            rhinophyma
            rosacea
            sarcoidosis
            scabies
            scleroderma
            scleromyxedema
            seborrheic dermatitis
            stasis edema
            stevens johnson syndrome
            striae
            sun damaged skin
            tick bite
            tuberous sclerosis
            tungiasis
            urticaria
            urticaria pigmentosa
            vitiligo
            xanthomas
            xeroderma pigmentosum
            """,
        ),
    }
)
"""Column ``label``. What the dataset calls non-neoplastic is outside the label table's question, except
keloid and xanthogranuloma, which the table treats as growths elsewhere, too."""

DDI: Mapping[str, str] = MappingProxyType(
    {
        **_same_decision(
            "melanoma",
            """
            melanoma
            melanoma-acral-lentiginous
            melanoma-in-situ
            nodular-melanoma-(nm)
            """,
        ),
        **_same_decision(
            "basal_cell_carcinoma",
            """
            basal-cell-carcinoma
            basal-cell-carcinoma-nodular
            basal-cell-carcinoma-superficial
            """,
        ),
        **_same_decision(
            "squamous_cell_carcinoma",
            """
            squamous-cell-carcinoma
            squamous-cell-carcinoma-in-situ
            squamous-cell-carcinoma-keratoacanthoma
            """,
        ),
        "actinic-keratosis": "actinic_keratosis",
        **_same_decision(
            "cutaneous_lymphoma",
            """
            blastic-plasmacytoid-dendritic-cell-neoplasm
            leukemia-cutis
            mycosis-fungoides
            subcutaneous-t-cell-lymphoma
            """,
        ),
        **_same_decision(
            "other_malignant",
            """
            kaposi-sarcoma
            metastatic-carcinoma
            sebaceous-carcinoma
            """,
        ),
        **_same_decision(
            "naevus",
            """
            blue-nevus
            dysplastic-nevus
            melanocytic-nevi
            pigmented-spindle-cell-nevus-of-reed
            """,
        ),
        **_same_decision(
            "benign_keratosis",
            """
            benign-keratosis
            inverted-follicular-keratosis
            lichenoid-keratosis
            seborrheic-keratosis
            seborrheic-keratosis-irritated
            solar-lentigo
            """,
        ),
        "acral-melanotic-macule": "melanotic_macule",
        "hyperpigmentation": "melanotic_macule",
        "dermatofibroma": "dermatofibroma",
        **_same_decision(
            "vascular",
            """
            angioma
            arteriovenous-hemangioma
            glomangioma
            hematoma
            pyogenic-granuloma
            """,
        ),
        **_same_decision(
            "other_benign",
            """
            acquired-digital-fibrokeratoma
            acrochordon
            angioleiomyoma
            cellular-neurothekeoma
            chondroid-syringoma
            clear-cell-acanthoma
            eccrine-poroma
            epidermal-cyst
            epidermal-nevus
            fibrous-papule
            focal-acral-hyperkeratosis
            foreign-body-granuloma
            keloid
            lipoma
            neurofibroma
            neuroma
            nevus-lipomatosus-superficialis
            scar
            syringocystadenoma-papilliferum
            trichilemmoma
            trichofolliculoma
            verruciform-xanthoma
            xanthogranuloma
            """,
        ),
        "atypical-spindle-cell-nevus-of-reed": "uncertain_growth",
        "lymphocytic-infiltrations": "uncertain_growth",
        "reactive-lymphoid-hyperplasia": "uncertain_growth",
        **_same_decision(
            "inflammatory",
            """
            abrasions-ulcerations-and-physical-injuries
            abscess
            acne-cystic
            coccidioidomycosis
            condyloma-accuminatum
            dermatomyositis
            eczema-spongiotic-dermatitis
            folliculitis
            graft-vs-host-disease
            molluscum-contagiosum
            morphea
            onychomycosis
            prurigo-nodularis
            tinea-pedis
            verruca-vulgaris
            wart
            """,
        ),
    }
)
"""Column ``disease``, confirmed by pathology; 78 values."""

SCIN: Mapping[str, str] = MappingProxyType(
    {"differential": "opinion_on_photograph", "ungradable": "not_classified"}
)
"""Two terms of ours: the dataset gives each case a weighted differential, or none."""
