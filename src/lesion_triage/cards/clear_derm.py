"""CLEAR Derm as data: the items in our words, and the functions that answer. Imports the answers."""

from __future__ import annotations

from lesion_triage.cards import answers_data as data
from lesion_triage.cards import answers_model as model
from lesion_triage.cards import answers_people as people
from lesion_triage.cards import answers_policy as policy
from lesion_triage.cards import answers_results as results
from lesion_triage.cards.checklist import Checklist, Item

CLEAR_DERM = Checklist(
    "CLEAR Derm",
    "clear-derm",
    "Daneshjou et al. 2022, JAMA Dermatol 158(1), 90-96, doi:10.1001/jamadermatol.2021.4915.",
    "25 items in four parts, in our words. Their numbers follow the order of the paper and were not "
    "compared with "
    "its table: take the paper's form for a submission.",
    (
        Item("1", "Data", "kinds of image", people.image_types),
        Item("2", "Data", "artefacts in images", data.artefacts),
        Item("3", "Data", "technical details of acquisition"),
        Item("4", "Data", "preparation of images", data.preprocessing),
        Item("5", "Data", "synthetic images, made public if used", data.synthetic_data),
        Item("6", "Data", "references of public images", data.references),
        Item("7", "Data", "what is known of the patients", people.metadata),
        Item("8", "Data", "skin tone, and how it was determined", people.skin_tone),
        Item("9", "Data", "biases that the data may bring", data.biases),
        Item("10", "Data", "partitions", data.partition),
        Item("11", "Data", "sizes of training, validation and test sets", data.sizes),
        Item("12", "Data", "external test set", data.no_external),
        Item("13", "Data", "images of several makers or sites", people.sites),
        Item("14", "Data", "classes and their balance", people.balance),
        Item("15", "Data", "images outside the distribution", policy.unfamiliar),
        Item("16", "Technique", "how labels were made", data.reference_standard),
        Item("17", "Technique", "accepted names of the classes"),
        Item("18", "Technique", "histopathology behind the labels", people.histology),
        Item("19", "Technique", "how the algorithm was developed", model.model),
        Item("20", "Technical assessment", "how others can evaluate it", policy.public_evaluation),
        Item("21", "Technical assessment", "measures of performance", results.performance),
        Item("22", "Technical assessment", "benchmarks, comparison, novelty"),
        Item("23", "Technical assessment", "assessment of bias", results.bias_assessment),
        Item("24", "Application", "use cases and target conditions", model.use_cases),
        Item("25", "Application", "effect on the health care team and on patients", model.impact),
    ),
)
