"""The report says what it must, loads nothing, and is refused for the wrong table."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import tiny_bundle as tiny
from histories import flag
from lesion_triage.bundle.document import sha256_of
from lesion_triage.bundle.messages import english_catalogue
from lesion_triage.bundle.red_flags import RedFlags
from lesion_triage.bundle.store import seal
from lesion_triage.cli import main
from lesion_triage.config import Evaluate
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.records import Record
from lesion_triage.errors import ManifestError, PredictionsError
from lesion_triage.evaluate import report
from lesion_triage.predictions import Predictions
from made_predictions import row

SOURCES = ("drawn_camera", "vidir_molemax")
KINDS = ("referred", "below", "black")
PARITY = {"split": "test", "images": 300, "largest_score_difference": 3.1e-7, "decision_flips": 0}
FIGURES = (
    "roc", "precision_recall", "reliability", "scores", "groups_1", "metadata", "decision_curve",
    "predictive_values", "queue",
)  # fmt: skip
VOID = {"meta", "img", "link", "br", "hr", "input", "source"}


class Page(HTMLParser):
    """What a reader and a browser find in the page."""

    def __init__(self, text):
        super().__init__()
        self.policy = ""
        self.open, self.ids, self.links, self.images, self.tags = [], [], [], [], Counter()
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags[tag] += 1
        if tag not in VOID:
            self.open.append(tag)
        if "id" in found:
            self.ids.append(found["id"])
        self.links += [value for name, value in attrs if name in {"href", "src", "srcset", "data", "action"}]
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]
        if tag == "img":
            self.images.append(found)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny.make(tmp_path_factory.mktemp("bundle") / "tiny", threshold=0.3, band_limits=(0.8, 0.5, 0.2))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A root with three drawn pictures, and a manifest of 300 photographs that uses them."""
    root = tmp_path_factory.mktemp("data")
    contents = {kind: tiny.picture_bytes(kind) for kind in KINDS}
    for kind, content in contents.items():
        (root / f"{kind}.png").write_bytes(content)
    records = tuple(
        Record(
            image_id=f"image-{number}",
            path=f"{kind}.png",
            lesion_id=f"lesion-{number // 2}",
            needs_in_person=None,
            source="synthetic",
            sha256=sha256_of(contents[kind]),
            width_px=160,
            height_px=120,
            attribution="A program",
            copyright_license="CC0-1.0",
        )
        for number, kind in ((number, KINDS[number % 3]) for number in range(300))
    )
    dropped = {"missing": ("gone",)}
    return root, Manifest(records, "synthetic", True, dropped, ("Drawn <by> a program & nobody else.",))


def table_for(bundle, cases=150, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(2 * cases):
        lesion = number // 2
        positive = lesion % 3 == 0
        dark = lesion % 15 == 0 or rng.random() < 0.1
        rows.append(
            row(
                f"image-{number}",
                f"lesion-{lesion}",
                None if dark else float(rng.normal() + (2 if positive else -1.5)),
                positive,
                diagnosis_confirm_type="histopathology" if lesion % 2 else "",
                source=SOURCES[lesion % 2],
            )
        )
    certificate = bundle.certificate
    return Predictions(
        "test", certificate.manifest_sha256, certificate.splits_sha256, certificate.model_sha256, tuple(rows)
    )


@pytest.fixture(scope="module")
def results(bundle):
    return report.evaluate(table_for(bundle), bundle, Evaluate(bootstrap_draws=200), PARITY, training())


def training():
    """Labelled records in which sex says nothing and age half of the label."""
    return [
        Record(
            image_id=f"train-{number}",
            path="below.png",
            lesion_id=f"train-{number}",
            needs_in_person=number % 3 == 0,
            source=SOURCES[number % 2],
            sex="female" if number % 2 else "male",
            age_approx=60.0 if number % 3 == 0 and number % 2 else 40.0,
            sha256="a" * 64,
            width_px=160,
            height_px=120,
        )
        for number in range(120)
    ]


@pytest.fixture(scope="module")
def folder(bundle, results, data, tmp_path_factory):
    root, manifest = data
    folder = tmp_path_factory.mktemp("run") / "report"
    index = report.write_report(folder, results, table_for(bundle), bundle, manifest, root)
    assert index == folder / "index.html"
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "index.html").read_text(encoding="utf-8"))


def test_page_is_well_formed(page):
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))


def test_page_loads_nothing_from_anywhere(page):
    assert page.links
    for link in page.links:
        assert link.startswith(("data:image/png;base64,", "#"))
    assert not page.tags["script"]
    assert not page.tags["iframe"]


def test_page_forbids_the_browser_every_address(page, folder):
    assert page.policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    style = (folder / "index.html").read_text().partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_every_link_within_the_page_arrives(page):
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_every_picture_has_an_alternative_text(page):
    assert len(page.images) > len(FIGURES)
    for image in page.images:
        assert len(image["alt"]) > 20


def test_alternative_texts_say_what_the_figures_show(page, results):
    whole, texts = results.slices[0], "\n".join(image["alt"] for image in page.images)
    auroc, ppv = whole.metrics["auroc"], whole.metrics["ppv"]
    for words in (
        f"ROC curve, AUROC {auroc.value:.3f} ({auroc.low:.3f} to {auroc.high:.3f})",
        f"the PPV {ppv.value:.3f}",
        f"{results.missed} of {results.positives} positive cases lie below the threshold",
        f"AUROC of the model {results.metadata[0].model_auroc.value:.3f}",
        "referring by score beats referring everybody and nobody at threshold probabilities",
        "where 5% need a visit, the PPV is",
        "positive cases that are referred wait",
    ):
        assert words in texts


def test_case_that_a_photograph_shows_is_not_named(page):
    assert not any("image-" in image["alt"] or "lesion-" in image["alt"] for image in page.images)


def test_synthetic_data_are_announced_first(page):
    assert "says nothing about people" in page.text
    assert page.text.index("says nothing about people") < page.text.index("What this is, and is not")


def test_real_data_carry_no_banner_and_no_photograph(bundle, results, data, tmp_path):
    root, manifest = data
    real = replace(bundle, header=bundle.header.model_copy(update={"synthetic": False}))
    table = table_for(bundle)
    numbers = report.evaluate(table, real, Evaluate(bootstrap_draws=100))
    index = report.write_report(tmp_path / "report", numbers, table, real, manifest, root)
    page = Page(index.read_text())
    assert "says nothing about people" not in page.text
    assert not any("Photograph" in image["alt"] for image in page.images)
    assert "Photographs of people are not put into reports" in page.text


def test_page_has_every_section(page):
    assert set(page.ids) >= {
        "what", "operating-point", "certificate", "results", "groups", "calibration", "metadata", "decisions",
        "predictive-values", "bands", "abstentions", "pictures", "data", "licence", "limits",
    }  # fmt: skip
    assert english_catalogue().notice in page.text


def test_certificate_stands_in_the_page_with_every_field(page, bundle):
    certificate = bundle.certificate
    for name in type(certificate).model_fields:
        if name.endswith("_sha256"):
            assert getattr(certificate, name) in page.text
    for words in ("Target sensitivity", "Confidence", "Unit", "Aggregation", "Misses allowed", "Misses seen",
                  "Lower bound of the sensitivity", "abstained", str(certificate.threshold)):  # fmt: skip
        assert words in page.text
    for sentence in certificate.assumptions:
        assert sentence in page.text
    assert certificate.certificate_id() in page.text


def shown_with(folder, data, **certificate):
    """The text of a page whose bundle's certificate has other fields."""
    made = tiny.seal_arguments(threshold=0.3, band_limits=(0.8, 0.5, 0.2))
    issued = made["certificate"].model_copy(update=certificate)
    bundle = seal(folder / "bundle", **{**made, "certificate": issued})
    table = table_for(bundle)
    found = report.evaluate(table, bundle, Evaluate(bootstrap_draws=100))
    index = report.write_report(folder / "report", found, table, bundle, data[1], None)
    return " ".join(Page(index.read_text(encoding="utf-8")).text.split())


def test_what_is_promised_of_patients_is_not_said_of_their_lesions(data, tmp_path):
    text = shown_with(tmp_path, data, unit="patient")
    assert "on at least 95 % of future positive patients that are exchangeable" in text
    assert "100 bootstrap draws of patients" in text


def test_counts_of_a_certificate_are_called_what_they_are(data, tmp_path):
    """Where red flags count, who is sent up without regard to the score may have a score."""
    text = shown_with(tmp_path, data, red_flags_counted=True, rule="group_thresholds")
    assert "0 that a red flag sends up, or without a gradable photograph" in text
    assert "0: what the certified groups allow, added up" in text
    assert "0.9505, the lowest of the certified groups, exact" in text


def test_page_prints_the_numbers_of_the_results(page, results):
    whole, text = results.slices[0], " ".join(page.text.split())
    for estimate in (whole.metrics["auroc"], whole.sensitivity_exact, whole.specificity_exact):
        assert f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})" in text
    for part in results.slices:
        assert part.title in page.text


def test_text_of_the_data_is_escaped(page, folder):
    assert "Drawn <by> a program & nobody else." in page.text
    assert "<by>" not in (folder / "index.html").read_text()


def test_refused_photographs_are_counted_with_their_reason(page, results):
    assert "image_too_dark" in page.text
    assert sum(results.photographs_refused.values()) > 0
    assert "1 missing" in page.text


def test_parity_is_told(page):
    assert "Decision flips" in page.text
    assert "3.10e-07" in page.text


def test_words_that_say_too_much_do_not_occur(page):
    text = page.text.replace(english_catalogue().notice, "").lower()
    for word in ("benign", "malignant", "cancer", "melanoma", "diagnosis", "safe", "healthy", "clear"):
        assert word not in text


def test_figures_are_files_too(folder):
    for name in FIGURES:
        with Image.open(io.BytesIO((folder / "figures" / f"{name}.png").read_bytes())) as image:
            assert image.size[0] > 600
            assert image.size[1] > 250


def test_results_are_json_without_nan(folder, results):
    found = json.loads((folder / "results.json").read_text())
    assert found["schema_version"] == 1
    assert found["cases"] == 150
    assert found["slices"][0]["metrics"]["auroc"]["value"] == results.slices[0].metrics["auroc"].value


def test_nothing_temporary_is_left(folder):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "index.html",
        "results.json",
        "case_scores.csv",
        *(f"figures/{name}.png" for name in FIGURES),
    }


def test_bands_and_abstentions_account_for_every_case(results):
    assert sum(row.cases for row in results.bands) == results.cases == 150
    assert sum(row.positives for row in results.bands) == results.positives == 50
    assert sum(row.abstained for row in results.bands) == results.abstained >= 10
    assert results.bands[3].positives == 0 or results.missed > 0


def test_tracker_gets_finite_numbers_under_dotted_names(results):
    flat = results.flat()
    assert flat["test.all.auroc.low"] <= flat["test.all.auroc"] <= flat["test.all.auroc.high"]
    assert all(np.isfinite(value) for value in flat.values())


def test_same_inputs_give_the_same_page(bundle, results, data, folder, tmp_path):
    root, manifest = data
    again = report.write_report(tmp_path / "again", results, table_for(bundle), bundle, manifest, root)
    assert again.read_bytes() == (folder / "index.html").read_bytes()


def test_a_handful_of_cases_gives_a_page_without_numbers(bundle, data, tmp_path):
    root, manifest = data
    table = table_for(bundle)
    few = replace(table, rows=table.rows[:12])
    numbers = report.evaluate(few, bundle, Evaluate(bootstrap_draws=100))
    text = Page(report.write_report(tmp_path / "r", numbers, few, bundle, manifest, root).read_text()).text
    assert "too few cases for numbers: 2 positive and 4 negative" in text
    assert "AUROC" in text


def test_all_ungradable_gives_a_page(bundle, data, tmp_path):
    root, manifest = data
    table = table_for(bundle)
    rows = tuple(
        replace(row, logit=None, quality_codes="image_too_dark image_too_small") for row in table.rows
    )
    dark = replace(table, rows=rows)
    numbers = report.evaluate(dark, bundle, Evaluate(bootstrap_draws=100))
    assert numbers.slices[0].sensitivity_exact.value == 1.0
    text = Page(report.write_report(tmp_path / "r", numbers, dark, bundle, manifest, root).read_text()).text
    assert "not estimable" in text


def test_what_the_novelty_gate_sends_up_is_abstained_on_and_counted_with_its_reason(bundle):
    policy = bundle.policy.model_copy(update={"novelty_limit": 4.0})
    gated, table = replace(bundle, policy=policy), table_for(bundle)
    scored = [row for row in table.rows if row.logit is not None]
    far = {row.case_id for row in scored[:10]}
    rows = tuple(
        replace(row, novelty=9.0) if row.case_id in far and row.logit is not None else row
        for row in table.rows
    )
    before = report.evaluate(table, bundle, Evaluate(bootstrap_draws=100))
    after = report.evaluate(replace(table, rows=rows), gated, Evaluate(bootstrap_draws=100))
    moved = sum(row.case_id in far for row in scored)
    assert after.photographs_refused == before.photographs_refused | {"out_of_distribution": moved}
    assert after.abstained == before.abstained + len(far)


@pytest.mark.parametrize("split", ["train", "validation", "calibration"])
def test_split_that_made_the_model_is_refused(bundle, split):
    with pytest.raises(PredictionsError, match=f"made from split '{split}'"):
        report.evaluate(replace(table_for(bundle), split=split), bundle, Evaluate())


@pytest.mark.parametrize("name", ["manifest_sha256", "splits_sha256", "model_sha256"])
def test_table_of_another_origin_is_refused(bundle, name):
    with pytest.raises(PredictionsError, match=f"{name} is eeeeeeeeeeee"):
        report.evaluate(replace(table_for(bundle), **{name: "e" * 64}), bundle, Evaluate())


def test_a_bundle_that_a_site_certified_has_no_test_split(bundle):
    """It was a traceback: such a certificate names no manifest."""
    issued = bundle.certificate.model_copy(update={"site": "Ghent", "manifest_sha256": None})
    with pytest.raises(PredictionsError, match="the bundle's certificate says none"):
        report.evaluate(table_for(bundle), replace(bundle, certificate=issued), Evaluate(bootstrap_draws=100))


def test_unknown_outcome_is_refused(bundle):
    table = table_for(bundle)
    rows = (replace(table.rows[0], needs_in_person=None), *table.rows[1:])
    with pytest.raises(PredictionsError, match="is unknown"):
        report.evaluate(replace(table, rows=rows), bundle, Evaluate())


def test_changed_picture_stops_the_report_before_anything_is_written(bundle, results, data, tmp_path):
    root, manifest = data
    changed = tuple(replace(record, sha256="0" * 64) for record in manifest.records)
    with pytest.raises(ManifestError, match="changed since"):
        report.write_report(
            tmp_path / "r", results, table_for(bundle), bundle, replace(manifest, records=changed), root
        )
    assert not (tmp_path / "r").exists()


def test_scores_of_the_cases_can_be_queued_and_name_no_case(folder, results):
    with (folder / "case_scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == results.cases
    assert sum(row["needs_in_person"] == "True" for row in rows) == results.positives
    assert sum(row["score"] == "" for row in rows) == results.abstained
    missed = [
        row for row in rows if row["disposition"] == "below_threshold" and row["needs_in_person"] == "True"
    ]
    assert len(missed) == results.missed
    assert all(float(row["score"]) < results.threshold for row in missed)
    assert main(["queue", str(folder / "case_scores.csv"), "--threshold", "0.3", "--cases", "4000"]) == 0


def test_photographs_of_people_need_a_licence_and_somebody_who_asks(bundle, results, data, tmp_path):
    root, manifest = data
    real = replace(bundle, header=bundle.header.model_copy(update={"synthetic": False}))
    licensed = replace(manifest, synthetic=False)
    bare = replace(
        licensed, records=tuple(replace(record, copyright_license="") for record in manifest.records)
    )

    def shown(name, known, **asked):
        page = Page(
            report.write_report(
                tmp_path / name, results, table_for(bundle), real, known, root, **asked
            ).read_text()
        )
        return sum("Photograph of a case" in image["alt"] for image in page.images)

    assert shown("nobody-asked", licensed) == 0
    assert shown("no-licence", bare, licensed_pictures=True) == 0
    assert shown("both", licensed, licensed_pictures=True) > 10


def test_the_queue_says_that_whom_a_red_flag_sends_up_is_missed_in_it(data, tmp_path):
    """The policy misses nobody; the simulation, which sees scores alone, has 20 positive cases missed."""
    bleeding = RedFlags(flags=(flag({"field": "bleeding", "is": True}, "bleeding"),))
    bundle = tiny.make(tmp_path / "bundle", threshold=0.3, band_limits=(0.8, 0.5, 0.2), red_flags=bleeding)
    rows = [
        row(
            f"i{n}", f"c{n}", 2.0 if n < 20 else -2.0, n < 40, history='{"bleeding":true}' if n < 40 else "{}"
        )
        for n in range(80)
    ]
    of = bundle.certificate
    table = Predictions("test", of.manifest_sha256, of.splits_sha256, of.model_sha256, tuple(rows))
    results = report.evaluate(table, bundle, Evaluate(bootstrap_draws=100))
    index = report.write_report(tmp_path / "report", results, table, bundle, data[1], None)
    text = " ".join(Page(index.read_text(encoding="utf-8")).text.split())
    assert results.missed == 0
    assert "that this queue misses, the policy refers 20 for another reason" in text


def test_the_queue_says_nothing_of_red_flags_that_change_nothing(page):
    assert "for another reason" not in page.text
