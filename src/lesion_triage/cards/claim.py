"""CLAIM, 2024 update, as data: the items in our words, and the functions that answer. Imports the answers."""

from __future__ import annotations

from lesion_triage.cards import answers_data as data
from lesion_triage.cards import answers_model as model
from lesion_triage.cards import answers_people as people
from lesion_triage.cards import answers_policy as policy
from lesion_triage.cards import answers_results as results
from lesion_triage.cards.checklist import Checklist, Item

CLAIM = Checklist(
    "CLAIM 2024",
    "claim-2024",
    "Tejani et al. 2024, Radiol Artif Intell 6(4), e240300, doi:10.1148/ryai.240300.",
    "44 items; numbers as published, questions in our words.",
    (
        Item("1", "Title or abstract", "says that it is a study of AI, and of which kind"),
        Item("2", "Title or abstract", "structured summary of design, methods, results, conclusions"),
        Item("3", "Introduction", "background, intended use and clinical role", model.purpose),
        Item("4", "Introduction", "aims, objectives, hypotheses"),
        Item("5", "Methods: design", "prospective or retrospective"),
        Item("6", "Methods: design", "goal of the study"),
        Item("7", "Methods: data", "sources of data", data.source),
        Item("8", "Methods: data", "inclusion and exclusion", data.exclusions),
        Item("9", "Methods: data", "preparation of the data", data.preprocessing),
        Item("10", "Methods: data", "selection of subsets", data.exclusions),
        Item("11", "Methods: data", "how data were made anonymous"),
        Item("12", "Methods: data", "missing data", data.missing),
        Item("13", "Methods: data", "protocol of image acquisition", data.acquisition),
        Item(
            "14",
            "Methods: reference standard",
            "how the reference standard was obtained",
            data.reference_standard,
        ),
        Item("15", "Methods: reference standard", "why this one"),
        Item("16", "Methods: reference standard", "who annotated, with which training"),
        Item("17", "Methods: reference standard", "annotation of the test set"),
        Item("18", "Methods: reference standard", "variability within and between raters"),
        Item("19", "Methods: partitions", "how data were assigned to partitions, and shares", data.partition),
        Item("20", "Methods: partitions", "level at which partitions are disjoint", data.partition),
        Item("21", "Methods: testing data", "intended sample size", data.sample_size),
        Item("22", "Methods: model", "the model: inputs, outputs, layers", model.model),
        Item("23", "Methods: model", "libraries, frameworks, versions", model.software),
        Item("24", "Methods: model", "first values of the parameters", model.weights),
        Item("25", "Methods: training", "training, augmentation, hyper-parameters", model.training),
        Item("26", "Methods: training", "how the final model was chosen", model.selection),
        Item("27", "Methods: training", "ensembles", model.ensemble),
        Item("28", "Methods: evaluation", "measures of performance", results.measures),
        Item("29", "Methods: evaluation", "measures of uncertainty", results.measures),
        Item("30", "Methods: evaluation", "robustness or sensitivity", results.robustness),
        Item("31", "Methods: evaluation", "how outputs are explained", model.explained),
        Item("32", "Methods: evaluation", "testing on internal data", results.internal),
        Item("33", "Methods: evaluation", "testing on external data", data.no_external),
        Item("34", "Methods: evaluation", "registration of a trial"),
        Item("35", "Results: data", "how many were included and excluded", data.flow),
        Item("36", "Results: data", "characteristics of each partition", people.characteristics),
        Item(
            "37",
            "Results: model",
            "performance against the reference standard, by partition and group",
            results.by_group,
        ),
        Item("38", "Results: model", "estimates with their precision", results.performance),
        Item("39", "Results: model", "analysis of failures", results.failures),
        Item("40", "Discussion", "limits", model.limits),
        Item("41", "Discussion", "meaning for practice", model.impact),
        Item("42", "Other", "the full protocol or further detail"),
        Item("43", "Other", "availability of software, model and data", policy.availability),
        Item("44", "Other", "funding, and the funders' part"),
    ),
)
