"""STARD-AI as data: the items in our words, and the functions that answer. Imports the answers."""

from __future__ import annotations

from lesion_triage.cards import answers_data as data
from lesion_triage.cards import answers_model as model
from lesion_triage.cards import answers_people as people
from lesion_triage.cards import answers_policy as policy
from lesion_triage.cards import answers_results as results
from lesion_triage.cards.checklist import Checklist, Item

STARD_AI = Checklist(
    "STARD-AI",
    "stard-ai",
    "Sounderajah et al. 2025, Nat Med 31, 3283-3289, doi:10.1038/s41591-025-03953-8.",
    "40 items with 48 parts; numbers as published, questions in our words. The index test is the bundle.",
    (
        Item(
            "1",
            "Title or abstract",
            "says that the accuracy of an AI test is studied, with one measure at least",
        ),
        Item("2", "Abstract", "structured summary"),
        Item(
            "3",
            "Introduction",
            "background, intended use, whether the test is new, its place in the workflow",
            model.purpose,
        ),
        Item("4", "Introduction", "objectives and hypotheses"),
        Item("5", "Methods: design", "prospective or retrospective"),
        Item("6", "Methods: ethics", "approval, or why none was required"),
        Item(
            "7",
            "Methods: participants",
            "inclusion and exclusion in their order, of persons and of data",
            data.exclusions,
        ),
        Item("8", "Methods: participants", "on what basis participants were found"),
        Item("9", "Methods: participants", "where and when"),
        Item("10", "Methods: participants", "consecutive, random or convenience series"),
        Item(
            "11",
            "Methods: dataset",
            "source: routine, collected for the study, or open repository",
            data.source,
        ),
        Item("12", "Methods: dataset", "who annotated, with which experience, and how"),
        Item(
            "13",
            "Methods: dataset",
            "devices that captured the data, software of the test with version",
            model.software_and_devices,
        ),
        Item(
            "14",
            "Methods: dataset",
            "acquisition and preparation, to be repeated by others",
            data.acquisition,
        ),
        Item("15a", "Methods: index test", "the test, to be repeated by others", policy.specification),
        Item(
            "15b",
            "Methods: index test",
            "how it was developed, with sizes of training, validation, test",
            model.developed,
        ),
        Item(
            "15c",
            "Methods: index test",
            "thresholds and categories, why, fixed beforehand or explored",
            policy.threshold,
        ),
        Item("15d", "Methods: index test", "the end user, and the expertise needed", model.users),
        Item(
            "16a",
            "Methods: reference standard",
            "the standard, to be repeated by others",
            data.reference_standard,
        ),
        Item("16b", "Methods: reference standard", "why this one"),
        Item(
            "16c",
            "Methods: reference standard",
            "its thresholds and categories, fixed beforehand or explored",
        ),
        Item(
            "17a",
            "Methods: blinding",
            "what the index test knew of history and reference standard",
            model.blinded,
        ),
        Item("17b", "Methods: blinding", "what those who assessed the reference standard knew"),
        Item("18", "Methods: analysis", "how accuracy was estimated or compared", results.measures),
        Item("19", "Methods: analysis", "indeterminate results of test or standard", results.indeterminate),
        Item("20", "Methods: analysis", "missing data on test or standard", data.missing),
        Item(
            "21", "Methods: analysis", "variability of accuracy, planned or explored", results.heterogeneity
        ),
        Item("22", "Methods: analysis", "intended sample size, and how it was found", data.sample_size),
        Item("23", "Methods: analysis", "analysis of errors, bias and fairness", results.bias_assessment),
        Item("24", "Results: participants", "flow of participants", data.flow),
        Item(
            "25",
            "Results: participants",
            "characteristics of training, validation and test sets",
            people.characteristics,
        ),
        Item("26a", "Results: participants", "severity among those with the condition", people.severity),
        Item("26b", "Results: participants", "what the others have", people.alternatives),
        Item("27", "Results: participants", "time and interventions between test and standard"),
        Item("28", "Results: participants", "whether the data represent those on whom the test will be used"),
        Item(
            "29",
            "Results: participants",
            "how external data differ from those of development",
            data.no_external,
        ),
        Item("30", "Results: test", "cross-table of test and standard", results.cross_table),
        Item("31", "Results: test", "estimates of accuracy with their precision", results.performance),
        Item("32", "Results: test", "adverse events of test or standard"),
        Item("33", "Discussion", "limits: bias, uncertainty, generality", model.limits),
        Item("34", "Discussion", "meaning for practice, intended use and role", model.impact),
        Item("35", "Discussion", "ethical considerations and fairness"),
        Item("36", "Other", "registration"),
        Item("37", "Other", "where the protocol is"),
        Item("38", "Other", "funding, and the funders' part"),
        Item("39", "Other", "commercial interests"),
        Item("40a", "Other", "availability of data and code, and restrictions", policy.availability),
        Item("40b", "Other", "whether outputs are stored and can be audited", policy.stored),
    ),
)
