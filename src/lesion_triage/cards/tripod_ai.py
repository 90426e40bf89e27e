"""TRIPOD+AI as data: the items in our words, and the functions that answer. Imports the answers."""

from __future__ import annotations

from lesion_triage.cards import answers_data as data
from lesion_triage.cards import answers_model as model
from lesion_triage.cards import answers_people as people
from lesion_triage.cards import answers_policy as policy
from lesion_triage.cards import answers_results as results
from lesion_triage.cards.checklist import Checklist, Item

TRIPOD_AI = Checklist(
    "TRIPOD+AI",
    "tripod-ai",
    "Collins et al. 2024, BMJ 385, e078378, doi:10.1136/bmj-2023-078378.",
    "27 items with 52 parts; numbers as published, questions in our words.",
    (
        Item(
            "1",
            "Title",
            "says that a prediction model is developed or evaluated, for whom, for which outcome",
        ),
        Item("2", "Abstract", "follows TRIPOD+AI for Abstracts"),
        Item("3a", "Introduction", "the clinical context, the reason for the model, and models that exist"),
        Item("3b", "Introduction", "for whom, for what purpose in the pathway, used by whom", model.purpose),
        Item("3c", "Introduction", "health inequalities that are known between groups of people"),
        Item("4", "Introduction", "objectives: development, evaluation or both"),
        Item(
            "5a",
            "Methods: data",
            "sources of development and evaluation data, why, how representative",
            data.source,
        ),
        Item("5b", "Methods: data", "dates of the data, first and last participant, end of follow-up"),
        Item("6a", "Methods: participants", "setting, number and place of centres"),
        Item("6b", "Methods: participants", "criteria of eligibility", data.exclusions),
        Item("6c", "Methods: participants", "treatments, and how they were handled"),
        Item(
            "7",
            "Methods: data preparation",
            "preparation and checks of quality, alike across groups",
            data.preprocessing,
        ),
        Item(
            "8a",
            "Methods: outcome",
            "the outcome, its time, how it was assessed and why this one",
            data.outcome,
        ),
        Item("8b", "Methods: outcome", "who assessed a subjective outcome: qualification, demographics"),
        Item("8c", "Methods: outcome", "blinding of the assessment of the outcome"),
        Item(
            "9a", "Methods: predictors", "which predictors were considered and why", model.predictors_chosen
        ),
        Item(
            "9b",
            "Methods: predictors",
            "each predictor, how and when it is measured",
            model.predictors_measured,
        ),
        Item("9c", "Methods: predictors", "who assessed subjective predictors: qualification, demographics"),
        Item(
            "10", "Methods: sample size", "how the size came about, and that it is enough", data.sample_size
        ),
        Item(
            "11",
            "Methods: missing data",
            "how missing data were handled, why any were left out",
            data.missing,
        ),
        Item("12a", "Methods: analysis", "how the data were used and divided", data.partition),
        Item("12b", "Methods: analysis", "how predictors were transformed or scaled", data.preprocessing),
        Item(
            "12c",
            "Methods: analysis",
            "kind of model, why, all steps of building it, tuning, internal validation",
            model.model,
        ),
        Item(
            "12d",
            "Methods: analysis",
            "differences between clusters, such as hospitals",
            results.heterogeneity,
        ),
        Item("12e", "Methods: analysis", "measures and plots of performance", results.measures),
        Item("12f", "Methods: analysis", "updating of the model after its evaluation", policy.no_updating),
        Item(
            "12g",
            "Methods: analysis",
            "how predictions were computed for the evaluation",
            policy.specification,
        ),
        Item(
            "13",
            "Methods: class imbalance",
            "what was done about it, and recalibration after it",
            model.imbalance,
        ),
        Item("14", "Methods: fairness", "what was done for fairness, and why", policy.fairness),
        Item("15", "Methods: output", "the output, its classes, how thresholds were found", policy.threshold),
        Item(
            "16",
            "Methods: training and evaluation",
            "differences between development and evaluation data",
            data.same_source,
        ),
        Item("17", "Methods: ethics", "approval, and consent or its waiver"),
        Item("18a", "Open science", "funding, and the funders' part"),
        Item("18b", "Open science", "conflicts of interest of all authors"),
        Item("18c", "Open science", "where the protocol is, or that there is none"),
        Item("18d", "Open science", "registration, or that there is none"),
        Item("18e", "Open science", "availability of the data", policy.availability),
        Item("18f", "Open science", "availability of the code", policy.code),
        Item("19", "Patients and public", "their part in the study, or that they had none"),
        Item("20a", "Results: participants", "the flow, with and without the outcome", data.flow),
        Item(
            "20b",
            "Results: participants",
            "characteristics, overall and by source, with gaps and events",
            people.characteristics,
        ),
        Item(
            "20c",
            "Results: participants",
            "evaluation data beside development data",
            people.compared_with_training,
        ),
        Item("21", "Results: development", "participants and events in each analysis", data.sizes),
        Item(
            "22",
            "Results: specification",
            "the whole model, so that others can use it; restrictions",
            policy.public_evaluation,
        ),
        Item(
            "23a",
            "Results: performance",
            "estimates with intervals, in groups of people too",
            results.by_group,
        ),
        Item(
            "23b",
            "Results: performance",
            "differences of performance between clusters",
            results.heterogeneity,
        ),
        Item("24", "Results: updating", "the updated model and its performance", policy.no_updating),
        Item("25", "Discussion", "interpretation, with fairness and earlier studies"),
        Item(
            "26", "Discussion", "limits, and what they do to bias, uncertainty and generality", model.limits
        ),
        Item("27a", "Discussion: use", "what to do with poor or absent input", policy.poor_input),
        Item("27b", "Discussion: use", "whether users handle the input, and the skill it takes", model.users),
        Item("27c", "Discussion: use", "next steps of research"),
    ),
)
