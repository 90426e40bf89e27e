"""What a finished run says of itself, held against the run's own files."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from lesion_triage import cli
from lesion_triage.bundle.forbidden_words import forbidden_words_in
from lesion_triage.bundle.messages import english_catalogue
from lesion_triage.bundle.store import open_bundle
from lesion_triage.cards import (
    answers_data,
    answers_model,
    answers_people,
    answers_policy,
    answers_results,
)
from lesion_triage.cards.checklist import BLANK, Status, counts, fill
from lesion_triage.cards.claim import CLAIM
from lesion_triage.cards.command import CHECKLISTS
from lesion_triage.cards.dossier import Dossier, Pointer, Unknown, open_run
from lesion_triage.cards.markdown_tables import table
from lesion_triage.cards.model_card import model_card
from lesion_triage.cards.population import Population
from lesion_triage.cards.tripod_ai import TRIPOD_AI
from lesion_triage.data.records import COLUMNS, Record
from lesion_triage.errors import RunError

CARDS = ("model-card.md", "dataset-card.md", *(f"{checklist.file}.md" for checklist in CHECKLISTS))


@pytest.fixture(scope="module")
def cards(finished, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    assert cli.main(["cards", str(finished), "--out", str(folder)]) == 0
    return folder


def test_checklists_name_the_bundle_as_every_answer_does(cards, finished):
    sha256 = open_bundle(finished / "bundle").sha256
    for checklist in CHECKLISTS:
        assert f"bundle `{sha256[:16]}`" in (cards / f"{checklist.file}.md").read_text()


def rows(finished: Path) -> list[dict[str, str]]:
    with (finished / "manifest.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def tables(text: str) -> dict[str, dict[str, list[str]]]:
    """Tables of a page by the title of their first column, rows by their first cell."""
    found: dict[str, dict[str, list[str]]] = {}
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines()]
        found[lines[0][0]] = {line[0]: line[1:] for line in lines[2:]}
    return found


@pytest.mark.parametrize("checklist", CHECKLISTS, ids=lambda one: one.file)
def test_every_item_points_at_evidence_that_is_there_or_is_blank_in_words(finished, cards, checklist):
    told = json.loads((cards / f"{checklist.file}.json").read_text())
    page, run = (cards / f"{checklist.file}.md").read_text(), Dossier(finished)
    assert [one["number"] for one in told["items"]] == [item.number for item in checklist.items]
    for one in told["items"]:
        if one["status"] == "blank":
            assert (one["answer"], one["evidence"]) == ("", [])
            continue
        assert one["answer"]
        assert one["evidence"]
        assert (one["status"] == "partly filled") == bool(one["missing"])
        for pointer in one["evidence"]:
            file, _, place = pointer.partition(": ")
            run.at(file, place)  # raises where nothing stands
    blank = [one for one in told["items"] if one["status"] == "blank"]
    assert page.count(f"**{BLANK}**") == len(blank) == told["counts"]["blank"]
    assert sum(told["counts"].values()) == len(checklist.items)


@pytest.mark.parametrize(
    ("name", "main", "parts"),
    [("TRIPOD+AI", 27, 52), ("STARD-AI", 40, 48), ("CLAIM 2024", 44, 44), ("CLEAR Derm", 25, 25)],
)
def test_a_checklist_has_the_items_of_its_publication_in_their_order(name, main, parts):
    (checklist,) = (one for one in CHECKLISTS if one.name == name)
    numbers = [item.number for item in checklist.items]
    assert len(numbers) == len(set(numbers)) == parts
    keys = [(int(re.match(r"\d+", number)[0]), number) for number in numbers]
    assert keys == sorted(keys)
    assert [key for key, _ in keys][-1] == len({key for key, _ in keys}) == main
    assert re.search(r"doi:10\.\d{4,}/\S+\.", checklist.source)


@pytest.mark.parametrize(("name", "number"), [("TRIPOD+AI", "9b"), ("STARD-AI", "13"), ("STARD-AI", "15b")])
def test_an_item_of_several_questions_is_filled_in_part_if_one_has_no_answer(finished, name, number):
    (checklist,) = (one for one in CHECKLISTS if one.name == name)
    (status,) = (one.status for one in fill(checklist, open_run(finished)) if one.item.number == number)
    assert status is Status.PARTLY


def test_a_finished_run_fills_at_least_half_of_every_checklist(finished):
    run = open_run(finished)
    for checklist in CHECKLISTS:
        found = counts(fill(checklist, run))
        assert found[Status.FILLED] + found[Status.PARTLY] >= len(checklist.items) / 2, checklist.name


def test_what_a_run_cannot_know_is_blank_in_every_checklist(finished):
    """Ethics, funding, registration, who labelled: a program that fills these in has made them up."""
    run = open_run(finished)
    asked = {
        "TRIPOD+AI": {"5b", "6a", "8b", "8c", "17", "18a", "18b", "18c", "18d", "19", "25"},
        "STARD-AI": {"5", "6", "8", "9", "10", "12", "16b", "17b", "27", "32", "36", "37", "38", "39"},
        "CLAIM 2024": {"5", "11", "15", "16", "18", "34", "44"},
        "CLEAR Derm": {"3", "22"},
    }
    for checklist in CHECKLISTS:
        blank = {one.item.number for one in fill(checklist, run) if one.status is Status.BLANK}
        assert asked[checklist.name] <= blank, checklist.name


def test_an_item_whose_evidence_is_gone_turns_blank(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "report")
    (tripod,) = (one for one in CHECKLISTS if one.name == "TRIPOD+AI")
    status = {one.item.number: one.status for one in fill(tripod, Dossier(run))}
    assert status["23a"] is status["12e"] is status["20a"] is Status.BLANK
    assert status["15"] is Status.FILLED
    assert cli.main(["cards", str(run)]) == 0
    assert f"No evaluation. {BLANK}" in (run / "cards" / "model-card.md").read_text()


@pytest.mark.parametrize(
    ("ensemble", "said"),
    [
        ({"members": 1}, "No ensemble: one network."),  # written before the other keys existed
        ({"members": 3, "combine": "distil"}, "3 networks of different seeds, distil."),
        (
            {"members": 2, "combine": "average", "backbones": [{"backbone": "vgg11"}]},
            "4 networks, 2 of each of test_efficientnet, vgg11; average.",
        ),
    ],
)
def test_the_model_card_says_what_the_network_is_made_of(finished, tmp_path, ensemble, said):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    frozen = yaml.safe_load((run / "config.yaml").read_text())
    assert frozen["model"]["backbone"] == "test_efficientnet"
    (run / "config.yaml").write_text(yaml.safe_dump({**frozen, "ensemble": ensemble}))
    assert cli.main(["cards", str(run)]) == 0
    assert f"| ensemble | {said} " in (run / "cards" / "model-card.md").read_text()


def test_the_first_weights_are_those_of_every_backbone(tmp_path):
    config = {
        "model": {"backbone": "resnet18", "weights": "hub"},
        "ensemble": {
            "members": 1,
            "backbones": [
                {"backbone": "vgg11", "weights": "hub"},
                {"backbone": "vit", "weights": "/srv/own.safetensors"},
            ],
        },
        "seed": 3,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert answers_model.weights(Dossier(tmp_path)).text == (
        "Timm's published weights (random head) and weights of a local file. Seed 3."
    )


def test_a_run_from_before_a_setting_existed_leaves_the_recipe_blank(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    frozen = yaml.safe_load((run / "config.yaml").read_text())
    del frozen["train"]["label_smoothing"]
    (run / "config.yaml").write_text(yaml.safe_dump(frozen))
    assert f"| recipe | {BLANK} |" in model_card(Dossier(run))


def test_the_same_run_gives_the_same_bytes(finished, cards, tmp_path):
    cli.main(["cards", str(finished), "--out", str(tmp_path)])
    for name in CARDS:
        assert (tmp_path / name).read_bytes() == (cards / name).read_bytes()


@pytest.mark.parametrize(
    ("column", "title"),
    [
        ("sex", "sex"),
        ("fitzpatrick_skin_type", "Fitzpatrick skin type"),
        ("diagnosis_confirm_type", "how the label was confirmed"),
        ("source", "source"),
    ],
)
def test_the_dataset_card_counts_as_the_table_does(finished, cards, column, title):
    photographs, cases, positives = defaultdict(int), defaultdict(set), defaultdict(set)
    for row in rows(finished):
        photographs[row[column]] += 1
        cases[row[column]].add(row["lesion_id"])
        if row["needs_in_person"] == "True":
            positives[row[column]].add(row["lesion_id"])
    shown = tables((cards / "dataset-card.md").read_text())[title]
    assert shown == {
        name: [str(photographs[name]), str(len(cases[name])), str(len(positives[name]))]
        for name in photographs
    }


@pytest.mark.parametrize(
    ("data", "said", "unsaid"),
    [
        ({"source": "folder"}, ["The column needs_in_person of the owner's own table"], "table of classes"),
        ({"source": "ham10000"}, ["One table of classes (docs/labels.md)"], "owner's own table"),
        (
            {"source": "mixture", "mixture": [{"source": "folder"}, {"source": "ham10000"}]},
            [
                "Of the public datasets one table",
                "of the others the column needs_in_person of the owner's own",
            ],
            "drawn together",
        ),
    ],
)
def test_the_cards_say_who_decided_which_case_is_positive(finished, tmp_path, data, said, unsaid):
    shutil.copytree(finished, tmp_path / "run")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    (tmp_path / "run" / "config.yaml").write_text(
        yaml.safe_dump({**config, "data": {**config["data"], **data}})
    )
    assert cli.main(["cards", str(tmp_path / "run"), "--out", str(tmp_path / "cards")]) == 0
    for name in ("dataset-card.md", "tripod-ai.md", "stard-ai.md"):
        text = " ".join((tmp_path / "cards" / name).read_text().split())
        assert all(sentence in text for sentence in said), name
        assert unsaid not in text
        assert "reviewed" not in text


def test_the_dataset_card_gives_sizes_of_splits_and_why_pictures_were_dropped(finished, cards, tmp_path):
    dealt = json.loads((finished / "splits.json").read_text())["image_ids"]
    shown = tables((cards / "dataset-card.md").read_text())["split"]
    assert {name: int(cells[0]) for name, cells in shown.items()} == {
        name: len(ids) for name, ids in dealt.items()
    }
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    header = json.loads((run / "manifest.json").read_text())
    header["dropped"] = {"the file is missing": ["images/Jane-Doe.jpg", "images/b.jpg"]}
    (run / "manifest.json").write_text(
        json.dumps(header, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    )
    assert cli.main(["cards", str(run)]) == 0
    text = (run / "cards" / "dataset-card.md").read_text()
    assert "| 2 | the file is missing |" in text
    assert "Jane-Doe" not in "".join((run / "cards" / name).read_text() for name in CARDS)


def test_the_model_card_has_the_results_of_every_slice(finished, cards):
    results = json.loads((finished / "report" / "results.json").read_text())
    shown = tables((cards / "model-card.md").read_text())["slice"]
    assert list(shown) == [part["title"] for part in results["slices"]]
    for part in results["slices"]:
        cells = shown[part["title"]]
        assert cells[:2] == [str(part["cases"]), str(part["positives"])]
        if part["sensitivity_exact"]:
            assert cells[3].startswith(f"{part['sensitivity_exact']['value']:.3f} (")


def test_groups_that_are_not_certifiable_stand_in_the_model_card_by_name(finished, cards):
    certificate = json.loads((finished / "bundle" / "certificate.json").read_text())
    text = (cards / "model-card.md").read_text()
    small = [row for row in certificate["groups"] if row["status"] == "not_certifiable"]
    assert small
    for row in small:
        assert f"| {row['by']} | {row['group']} | NOT CERTIFIABLE | {row['positives']} |" in text


def test_the_model_card_names_no_condition_promises_nothing_and_warns_of_drawings(cards):
    text = (cards / "model-card.md").read_text()
    assert "Never use it on patients." in text
    prose = text.replace(english_catalogue().notice, "").replace("is no discharge", "")
    assert forbidden_words_in("en", prose) == []


def test_no_picture_and_no_lesion_is_named_in_any_card(finished, cards):
    text = "".join((cards / name).read_text() for name in CARDS)
    told = rows(finished)
    assert not [row["image_id"] for row in told if row["image_id"] in text]
    assert not [row["lesion_id"] for row in told if row["lesion_id"] in text]


def test_cards_are_refused_for_what_is_no_run(tmp_path, finished):
    with pytest.raises(RunError, match=r"no config\.yaml, expected the folder of a run"):
        open_run(tmp_path)
    (tmp_path / "config.yaml").write_text("name: x\n")
    with pytest.raises(RunError, match=r"no bundle; `lesion-triage export` seals one"):
        open_run(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("manifest.json", None, r"run: manifest\.json: sha256 is missing"),
        ("manifest.csv", None, r"run: manifest\.csv is missing, and"),
        ("manifest.json", "{", r"manifest\.json: cannot be read"),
        ("audit/audit.json", "{", r"audit\.json: cannot be read"),
        ("audit/audit.json", "[]", r"audit\.json: damaged"),
        ("report/results.json", "{}", r"results\.json: damaged \(slices: Field required"),
        ("report/results.json", '{"slices": 3}', r"results\.json: damaged"),
        ("test_openings.jsonl", '{"a":', r"test_openings\.jsonl: cannot be read"),
        ("test_openings.jsonl", "3", r"test_openings\.jsonl: damaged"),
        ("learning_curve.json", "3", r"learning_curve\.json: damaged"),
        ("stages/train.json", '{"seconds": "long"}', r"train\.json: damaged \(seconds: "),
        (
            "config.yaml",
            "data: {source: mixture, mixture: [3]}",
            r"config\.yaml: damaged \(data\.mixture\.0: ",
        ),
        ("config.yaml", "data: {source: [folder]}", r"config\.yaml: damaged \(data\.source: "),
        ("config.yaml", "ensemble: {members: many}", r"config\.yaml: damaged \(ensemble\.members: "),
        ("config.yaml", "[", r"config\.yaml: cannot be read"),
        ("config.yaml", "model: {}", r"run: config\.yaml: model\.weights is missing"),
        ("bundle/certificate.json", "{", r"BundleError: .*certificate\.json"),
        ("cards", "", r"RunError: .*cannot be written there"),
    ],
)
def test_a_run_that_is_damaged_gets_a_sentence_and_no_card(finished, tmp_path, capsys, file, content, said):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    if content is None:
        (run / file).unlink()
    else:
        (run / file).write_text(content)
    assert cli.main(["cards", str(run)]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not (run / "cards").is_dir()


@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("report/results.json", ["bundle_sha256"]),
        ("audit/audit.json", ["facts", "manifest_sha256"]),
        ("audit_with_model/audit.json", ["facts", "model_sha256"]),
    ],
)
def test_results_of_another_bundle_and_an_audit_of_another_model_stand_on_no_card(
    finished, tmp_path, capsys, file, keys
):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    told = json.loads((run / file).read_text())
    place = told if len(keys) == 1 else told[keys[0]]
    place[keys[-1]] = "f" * 64
    (run / file).write_text(json.dumps(told))
    assert cli.main(["cards", str(run)]) == 2
    assert re.search(rf"{file}: made for f{{12}} \({'.'.join(keys)}\)", capsys.readouterr().err)
    assert not (run / "cards").is_dir()


def test_what_was_measured_in_groups_of_people_is_not_called_missing(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    file = run / "report" / "results.json"
    found = {"value": 0.9, "low": 0.7, "high": 0.95}
    rows = [
        {"by": by, "group": group, "cases": 40, "positives": 12, "sensitivity": one, "specificity": other}
        for by, group, one, other in (
            ("all", "all", found, found),
            ("sex", "female", found, found),
            ("sex", "male", None, found),
            ("age_band", "30 to 49", None, None),
        )
    ]
    file.write_text(json.dumps({**json.loads(file.read_text()), "groups": rows}))
    for checklist, number in ((TRIPOD_AI, "23a"), (CLAIM, "37")):
        (answer,) = (one.answer for one in fill(checklist, open_run(run)) if one.item.number == number)
        assert answer.text.endswith(
            " Sex female (40 cases, 12 positive): sensitivity 0.900 (0.700 to 0.950), specificity "
            "0.900 (0.700 to 0.950). Sex male (40 cases, 12 positive): sensitivity -, specificity "
            "0.900 (0.700 to 0.950)."
        )
        assert answer.missing == "results by age, skin type."


@pytest.mark.parametrize(
    ("file", "place", "value"),
    [
        ("report/results.json", ("cases",), "many"),
        ("report/results.json", ("slices", 0, "title"), None),
        ("report/results.json", ("slices", 0, "metrics", "auroc"), {"value": 0.5}),
        ("report/results.json", ("slices", 0, "sensitivity_exact"), {"value": 1, "low": 0, "high": 1}),
        ("report/results.json", ("groups", 0), {}),
        ("audit/audit.json", ("findings", 0), {"code": "leakage"}),
        ("audit_with_model/audit.json", ("findings",), 3),
    ],
)
def test_a_part_that_was_altered_by_hand_is_one_sentence_and_no_traceback(
    finished, tmp_path, capsys, file, place, value
):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    told = json.loads((run / file).read_text())
    part = told
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    (run / file).write_text(json.dumps(told))
    assert cli.main(["cards", str(run)]) == 2
    error = capsys.readouterr().err
    assert re.match(rf"RunError: \S+{file}: damaged \({place[0]}", error)
    assert error.count("\n") == 1
    assert not (run / "cards").is_dir()


def test_a_certificate_that_was_altered_by_hand_gets_no_card(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    file = run / "bundle" / "certificate.json"
    text = file.read_text()
    assert '"target_sensitivity": 0.8' in text
    file.write_text(text.replace('"target_sensitivity": 0.8', '"target_sensitivity": 0.999'))
    assert cli.main(["cards", str(run)]) == 2
    assert capsys.readouterr().err.startswith("BundleError: ")


def test_the_model_card_does_not_say_that_a_test_split_was_never_opened_where_no_record_is(
    finished, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "test_openings.jsonl").unlink()
    text = model_card(Dossier(run))
    assert "the record of how often it was opened is missing" in text
    assert "0 time" not in text


def test_shares_that_were_asked_for_keep_every_digit(tmp_path):
    """Half of a per cent was 0 %, of which the gate would send nobody up."""
    for name, text in (
        ("config.yaml", "calibrate: {novelty_share: 0.005}\nsplit: {official: false}\n"),
        ("splits.json", '{"fractions": {"train": 0.625, "test": 0.375}, "seed": 0}'),
        ("bundle/policy.json", '{"novelty_limit": 4.0}'),
        ("audit/audit.json", '{"findings": [{"code": "leakage", "summary": "None was found."}]}'),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    run = Dossier(tmp_path)
    assert "sends up at most 0.5% of the validation photographs" in answers_policy.unfamiliar(run).text
    assert "Asked for: train 62.5%, test 37.5%." in answers_data.partition(run).text


def test_a_bundle_that_was_sealed_after_an_opening_is_not_said_to_be_sealed_before(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    openings, run = tmp_path / "run" / "test_openings.jsonl", Dossier(tmp_path / "run")
    first = " The bundle was sealed before the run opened its test split."
    assert first in answers_policy.no_updating(run).text
    assert first in answers_policy.threshold(run).text
    openings.write_text(json.dumps({"bundle_sha256": "f" * 64}) + "\n" + openings.read_text())
    later = Dossier(tmp_path / "run")
    for answer in (answers_policy.no_updating(later), answers_policy.threshold(later)):
        assert "sealed before" not in answer.text
        assert "had opened its test split before, on another bundle: 1 time(s)." in answer.text
    openings.unlink()
    assert "sealed before" not in answers_policy.threshold(Dossier(tmp_path / "run")).text


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((20, 20), "Measured in 2 of 2 sources by itself. AUROC from 0.900 to 0.900."),
        ((20, 0), "Measured in 1 of 2 sources by itself. In 1 there are too few cases of a class. AUROC"),
        ((0, 0), None),
    ],
)
def test_a_source_with_too_few_cases_is_not_said_to_be_measured(tmp_path, sizes, said):
    slices = [
        {"name": f"source_{place}", "title": "Source", "metrics": {"auroc": {"value": 0.9}} if size else {}}
        for place, size in enumerate(sizes)
    ]
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "results.json").write_text(json.dumps({"slices": slices}))
    if said is None:
        with pytest.raises(Unknown):
            answers_results.heterogeneity(Dossier(tmp_path))
        return
    answer = answers_results.heterogeneity(Dossier(tmp_path))
    assert answer.text.startswith(said)
    assert all(map(Dossier(tmp_path).holds, answer.evidence))


@pytest.mark.parametrize("metrics", [{}, {"auroc": None}])
def test_results_on_confirmed_cases_are_claimed_only_where_they_are(finished, tmp_path, metrics):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    file = run / "report" / "results.json"
    results = json.loads(file.read_text())
    for part in results["slices"]:
        part["metrics"] = metrics
    file.write_text(json.dumps(results))
    claimed = (
        "Results on the confirmed ones alone are reported." in answers_people.histology(Dossier(run)).text
    )
    assert claimed is bool(metrics)


def test_data_without_a_citation_are_cited_by_nobody(finished, tmp_path):
    """An owner's own table states none; the item on references was filled with an empty answer."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    header = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**header, "citation": []}))
    with pytest.raises(Unknown):
        answers_data.references(Dossier(run))
    assert answers_data.source(Dossier(run)).text.endswith("No citation is stated.")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").write_text('{"data_citation": [], "made_with": "lesion-triage"}')
    assert answers_policy.availability(Dossier(tmp_path)).text.startswith(
        "Data: no citation is stated. Code:"
    )


def test_a_run_without_recorded_times_did_not_take_no_time(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "stages")
    assert "0.0 s" not in model_card(Dossier(run))


def test_a_case_whose_label_is_unknown_is_not_counted_as_negative():
    row = dict.fromkeys(COLUMNS, "") | {"needs_in_person": None, "age_approx": None, "patient_id": None}
    records = tuple(
        Record(**{**row, "image_id": str(place), "lesion_id": lesion, "needs_in_person": needs, **own})
        for place, (lesion, needs, own) in enumerate(
            [
                ("a", True, {"diagnosis": "mel", "diagnosis_confirm_type": "histopathology"}),
                ("b", False, {"diagnosis": "nv", "diagnosis_confirm_type": "histopathology"}),
                ("b", None, {"diagnosis": "nv"}),
                ("c", None, {"diagnosis": "unk", "diagnosis_confirm_type": "histopathology"}),
            ]
        )
    )
    run = Dossier(Path("nowhere"), facts={"population": Population(records, {})})
    assert answers_people.alternatives(run).text == "By class of the dataset (cases): nv 1."
    assert answers_people.balance(run).text.startswith(
        "Cases: 1 positive, 1 negative, 1 of unknown label. By "
    )
    assert answers_people.histology(run).text.startswith("1 of 1 positive cases have a label confirmed by ")
    assert answers_people.histology(run).text.endswith(" and 1 of 1 others.")


def certified_by_sex(folder: Path, rule: str, thresholds: dict[str, float]) -> Dossier:
    """A dossier whose policy reads the sex, with as much of the certificate as the answers on it take."""
    certificate = {
        "rule": rule,
        "threshold": min(thresholds.values()),
        "target_sensitivity": 0.95,
        "confidence": 0.95,
        "positives": 200,
        "misses_allowed": 2,
        "unit": "lesion",
        "red_flags_counted": False,
        "groups": [{"by": "all", "group": "all", "minimum_positives": 72}],
    }
    (folder / "bundle").mkdir()
    (folder / "bundle" / "certificate.json").write_text(json.dumps(certificate))
    groupings = [{"by": "sex", "age_edges_years": [], "thresholds": thresholds}]
    (folder / "bundle" / "policy.json").write_text(json.dumps({"groupings": groupings}))
    return Dossier(folder)


def test_thresholds_of_groups_are_not_called_one_threshold(tmp_path):
    """A score at the lowest of them was said to refer everyone."""
    run = certified_by_sex(tmp_path, "group_thresholds", {"female": 0.25, "male": 0.125})
    text = answers_policy.threshold(run).text
    assert "threshold of its group refers: sex female 0.250000, sex male 0.125000." in text
    assert "0.125000 or more refers" not in text
    assert "whose sex is in no certified group goes up" in text
    assert "The sex in it decides which threshold a case has" in answers_model.predictors(run).text


def test_groups_that_go_up_are_named_beside_the_one_threshold(tmp_path):
    text = answers_policy.threshold(certified_by_sex(tmp_path, "common_threshold", {"female": 0.25})).text
    assert "A score of 0.250000 or more refers. A case whose sex is in no certified group goes up." in text


def test_the_fewest_positives_are_those_of_the_target_and_the_confidence_beside_them(tmp_path):
    """With thresholds of groups, the certificate's row for everyone has the number that a group needs."""
    run = certified_by_sex(tmp_path, "group_thresholds", {"female": 0.25, "male": 0.125})
    run.facts["population"] = Population((), {"train": ()})
    text = answers_data.sample_size(run).text
    assert "To certify a sensitivity of 95% at 95% confidence takes at least 59 positive lesions" in text


def test_a_line_break_in_a_cell_does_not_end_the_table():
    assert table(("source",), [("north\nand | south",)])[-1] == r"| north and \| south |"


def test_a_pointer_leads_through_keys_places_and_names(tmp_path):
    (tmp_path / "a.json").write_text('{"x": [{"name": "one", "v": {"w": 0}}, {"name": "two", "v": null}]}')
    (tmp_path / "b.csv").write_text("sex,age.approx\nmale,3\n")
    (tmp_path / "c.md").write_text("# Title\n\n## A part\n")
    run = Dossier(tmp_path)
    assert run.at("a.json", "x[name=one].v.w") == run.at("a.json", "x[0].v.w") == 0
    for file, place in (("b.csv", "sex"), ("b.csv", "age.approx"), ("c.md", "A part"), ("a.json", "")):
        assert run.holds(Pointer(file, place))
    for file, place in (
        ("a.json", "x[name=three]"),
        ("a.json", "x[1].v"),
        ("a.json", "x[7]"),
        ("a.json", "x.y"),
        ("b.csv", "site"),
        ("c.md", "B part"),
        ("d.json", ""),
    ):
        with pytest.raises(Unknown):
            run.at(file, place)
