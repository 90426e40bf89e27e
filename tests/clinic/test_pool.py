"""Clinics that exchange counts alone get one certificate, and nothing of a case leaves a clinic."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

import tiny_bundle
from lesion_triage.bundle.certificate import GroupBy
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import open_bundle, seal
from lesion_triage.calibrate import ledger
from lesion_triage.calibrate.pooling import Tally
from lesion_triage.cli import main
from lesion_triage.clinic import cases as local_cases
from lesion_triage.clinic.tally import tally_and_record
from made_predictions import spread


def tally(bundle: Path, cases: Path, site: str, out: Path) -> int:
    return main(["tally", str(bundle), "--cases", str(cases), "--site", site, "--out", str(out)])


def test_two_small_sites_are_certified_together(clinic, bundle, tmp_path, capsys):
    for site, positives in (("north", 40), ("south", 30)):
        assert tally(bundle, clinic(spread(positives), name=site), site, tmp_path / f"{site}.json") == 0
    words = [str(tmp_path / "north.json"), str(tmp_path / "south.json"), "--out", str(tmp_path / "pooled")]
    assert main(["pool", str(bundle), *words]) == 0
    made = open_bundle(tmp_path / "pooled")
    Scorer(made).self_test()
    certificate = made.certificate
    assert (certificate.positives, certificate.misses_allowed, certificate.method) == (70, 0, "pooled_counts")
    assert [(row.group, row.status) for row in certificate.groups] == [
        ("all", "certified"),
        ("north", "not_certifiable"),
        ("south", "not_certifiable"),
    ]
    assert "covered in the mean only" in capsys.readouterr().out


def test_a_site_whose_counts_chose_the_pooled_threshold_is_no_test_of_it(clinic, bundle, tmp_path, capsys):
    tables = {site: clinic(spread(65), name=site) for site in ("north", "south")}
    for site, cases in tables.items():
        for name in (site, f"{site}-again"):
            assert tally(bundle, cases, site, tmp_path / f"{name}.json") == 0
    assert len(ledger.read(tables["north"].with_name(ledger.LEDGER_FILE_NAME))) == 1
    words = [str(tmp_path / "north.json"), str(tmp_path / "south.json"), "--out", str(tmp_path / "pooled")]
    assert main(["pool", str(bundle), *words]) == 0
    again = ["recertify", str(tmp_path / "pooled"), "--cases", str(tables["north"]), "--site", "north"]
    again += ["--out", str(tmp_path / "new")]
    assert main(again) == 2
    assert "--second-look" in capsys.readouterr().err
    assert main([*again, "--second-look", "the pool was too strict"]) == 0
    said = capsys.readouterr().out
    assert "cannot test its certificate" in said
    assert "HOLDS" not in said
    certificate = open_bundle(tmp_path / "new").certificate
    assert certificate.confidence_if_selected == pytest.approx(0.9)
    assert not any("once, here" in sentence for sentence in certificate.assumptions)


def test_counts_that_chose_a_threshold_before_are_not_said_to_choose_once(clinic, bundle, tmp_path):
    tables = {site: clinic(spread(65), name=site) for site in ("north", "south")}
    for site, cases in tables.items():
        assert tally(bundle, cases, site, tmp_path / f"{site}.json") == 0
    words = [str(tmp_path / "north.json"), str(tmp_path / "south.json"), "--out"]
    assert main(["pool", str(bundle), *words, str(tmp_path / "pooled")]) == 0
    again = ["pool", str(tmp_path / "pooled"), *words, str(tmp_path / "again"), "--target", "0.9"]
    assert main(again) == 0
    alone = ["recertify", str(bundle), "--cases", str(tables["north"]), "--site", "north"]
    assert main([*alone, "--out", str(tmp_path / "alone"), "--second-look", "alone first"]) == 0
    assert main(["pool", str(tmp_path / "alone"), *words, str(tmp_path / "after")]) == 0
    for name, left, times in (("pooled", 0.95, ""), ("again", 0.9, "once"), ("after", 0.85, "2 times")):
        certificate = open_bundle(tmp_path / name).certificate
        assert certificate.confidence_if_selected == pytest.approx(left)
        said = " ".join(certificate.assumptions)
        assert "once, here" not in said
        assert "in the ledger of that site" in said
        assert (f"had chosen a threshold {times} before" in said) is bool(times)


def test_a_pool_that_a_further_site_joins_counts_the_pool_before(clinic, bundle, tmp_path):
    """Decision 81: a look at some of the same cases is a look."""
    for site in ("north", "south", "east"):
        assert tally(bundle, clinic(spread(65), name=site), site, tmp_path / f"{site}.json") == 0
    words = [str(tmp_path / f"{site}.json") for site in ("north", "south", "east")]
    assert main(["pool", str(bundle), *words[:2], "--out", str(tmp_path / "two"), "--confidence", "0.9"]) == 0
    assert main(["pool", str(tmp_path / "two"), *words, "--out", str(tmp_path / "three")]) == 0
    certificate = open_bundle(tmp_path / "three").certificate
    assert certificate.confidence == 0.9
    assert certificate.confidence_if_selected == pytest.approx(0.8)
    assert any("had chosen a threshold once before" in said for said in certificate.assumptions)
    assert main(["pool", str(tmp_path / "two"), words[2], words[0], "--out", str(tmp_path / "other")]) == 0
    assert open_bundle(tmp_path / "other").certificate.confidence_if_selected == pytest.approx(0.8)


def test_a_site_certifying_after_a_pool_counts_what_the_pool_chose_at_its_own_confidence(
    clinic, bundle, tmp_path
):
    """The line of the site's ledger was written before anybody knew at which confidence, or how often."""
    tables = {site: clinic(spread(65), name=site) for site in ("north", "south")}
    for site, cases in tables.items():
        assert tally(bundle, cases, site, tmp_path / f"{site}.json") == 0
    words = [str(tmp_path / f"{site}.json") for site in tables]
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert main(["pool", str(bundle), *words, "--out", one, "--confidence", "0.9"]) == 0
    assert main(["pool", one, *words, "--out", two, "--target", "0.9"]) == 0
    of_site = tables["north"].with_name(ledger.LEDGER_FILE_NAME)
    only_counted = of_site.read_bytes()
    for name, left in (("one", 0.8), ("two", 0.7)):
        alone = ["recertify", str(tmp_path / name), "--cases", str(tables["north"]), "--site", "north"]
        alone += ["--out", str(tmp_path / f"{name}-alone"), "--second-look", "by itself"]
        assert main(alone) == 0
        certificate = open_bundle(tmp_path / f"{name}-alone").certificate
        assert certificate.confidence_if_selected == pytest.approx(left)
        of_site.write_bytes(only_counted)


def test_what_a_site_chose_on_its_cases_before_it_counted_them_is_counted_against_the_pool(
    clinic, bundle, tmp_path, capsys
):
    tables = {site: clinic(spread(65), name=site) for site in ("north", "south")}
    alone = ["recertify", str(bundle), "--cases", str(tables["north"]), "--site", "north"]
    assert main([*alone, "--out", str(tmp_path / "alone"), "--confidence", "0.9"]) == 0
    for site, cases in tables.items():
        for name in (site, f"{site}-again"):  # what was counted before is no choice of the site
            assert tally(bundle, cases, site, tmp_path / f"{name}.json") == 0
    assert "1 threshold(s) have been chosen here before" in capsys.readouterr().out
    told = [Tally.model_validate_json((tmp_path / f"{site}-again.json").read_bytes()) for site in tables]
    assert [each.looked_before for each in told] == [(0.9,), ()]
    words = [str(tmp_path / f"{site}-again.json") for site in tables]
    assert main(["pool", str(bundle), *words, "--out", str(tmp_path / "pooled")]) == 0
    certificate = open_bundle(tmp_path / "pooled").certificate
    assert certificate.confidence_if_selected == pytest.approx(0.85)
    assert any("had chosen a threshold once before" in said for said in certificate.assumptions)


def test_counts_tell_of_a_threshold_that_another_process_chose_while_they_were_made(clinic, bundle):
    cases = clinic(spread(65))
    ledger_path = cases.with_name(ledger.LEDGER_FILE_NAME)
    local = local_cases.read(bundle, cases, None)
    certificate = local.bundle.certificate
    made = []
    counting = threading.Thread(target=lambda: made.append(tally_and_record(local, "north", ledger_path)))
    with ledger.locked(ledger_path):
        counting.start()
        counting.join(0.5)  # until it waits for the lock
        seen = local.files_sha256, local.table.fingerprints()
        ledger.append(ledger_path, ledger.entry_from_certificate(certificate, "0" * 64, *seen))
    counting.join()
    assert [each.looked_before for each in made] == [(certificate.confidence,)]
    assert [look.counted for look in ledger.read(ledger_path)] == [False, True]


def test_drawn_pictures_are_not_counted_for_a_certificate_for_people(clinic, tmp_path, capsys):
    drawn = clinic([(logit, needs, {"source": "synthetic"}) for logit, needs, _ in spread(65)])
    arguments = tiny_bundle.seal_arguments()
    for synthetic, status in ((False, 2), (True, 0)):
        bundle = tmp_path / f"bundle-{synthetic}"
        seal(bundle, **{**arguments, "synthetic": synthetic})
        assert tally(bundle, drawn, "north", tmp_path / f"{synthetic}.json") == status
    assert "drawn by a program" in capsys.readouterr().err


def test_counts_of_a_version_that_told_no_looks_are_pooled(clinic, bundle, tmp_path):
    words = []
    for site in ("north", "south"):
        path = tmp_path / f"{site}.json"
        assert tally(bundle, clinic(spread(40), name=site), site, path) == 0
        told = json.loads(path.read_text())
        del told["looked_before"]
        path.write_text(json.dumps(told))
        words.append(str(path))
    assert main(["pool", str(bundle), *words, "--out", str(tmp_path / "pooled")]) == 0
    assert open_bundle(tmp_path / "pooled").certificate.confidence_if_selected == pytest.approx(0.95)


def test_groups_that_the_bundle_promised_are_named_as_lost_and_asked_for_again_later(
    clinic, tmp_path, capsys
):
    made = tiny_bundle.seal_arguments()
    asked = (GroupBy(by="sex"),)
    women = made["certificate"].groups[0].model_copy(update={"by": "sex", "group": "female"})
    certificate = made["certificate"].model_copy(
        update={
            "asked": asked,
            "rule": "group_thresholds",
            "groups": (*made["certificate"].groups, women),
        }
    )
    seal(tmp_path / "grouped", **{**made, "certificate": certificate})
    tables = {site: clinic(spread(65), name=site) for site in ("north", "south")}
    for site, cases in tables.items():
        assert tally(tmp_path / "grouped", cases, site, tmp_path / f"{site}.json") == 0
    words = [str(tmp_path / "north.json"), str(tmp_path / "south.json"), "--out", str(tmp_path / "pooled")]
    assert main(["pool", str(tmp_path / "grouped"), *words]) == 0
    said = capsys.readouterr().out
    assert "LOST: groups by sex are no longer certified" in said
    assert "LOST: a threshold for each group" in said
    pooled = open_bundle(tmp_path / "pooled").certificate
    assert pooled.asked == asked
    assert any("looked at groups by sex." in said for said in pooled.assumptions)
    assert any("promises nothing for a subgroup" in said for said in pooled.assumptions)
    more = ["recertify", str(tmp_path / "pooled"), "--cases", str(tables["north"]), "--site", "north"]
    assert main([*more, "--out", str(tmp_path / "own"), "--second-look", "for the groups"]) == 0
    assert [row.by for row in open_bundle(tmp_path / "own").certificate.groups] == ["all", "sex"]


def test_counts_hold_no_case_no_score_and_no_name_of_a_file(clinic, bundle, tmp_path):
    cases = [
        (logit, needs, {"patient_id": f"Jane Doe {n}"}) for n, (logit, needs, _) in enumerate(spread(30))
    ]
    assert tally(bundle, clinic(cases), "north", tmp_path / "north.json") == 0
    text = (tmp_path / "north.json").read_text()
    assert "Jane" not in text
    assert ".png" not in text
    assert set(json.loads(text)) == set(Tally.model_fields)


@pytest.mark.parametrize(
    ("site", "out", "message"),
    [("north", "none/north.json", "cannot be written"), ("n" * 101, "north.json", "1 to 100 characters")],
)
def test_counts_that_have_no_place_or_no_name_are_refused_before_a_case_is_scored(
    bundle, tmp_path, capsys, site, out, message
):
    try:
        code = tally(bundle, tmp_path / "nowhere.csv", site, tmp_path / out)
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_counts_of_another_model_are_refused(clinic, bundle, tmp_path, capsys):
    for site in ("north", "south"):
        cases = clinic(spread(40), name=site)
        assert tally(bundle, cases, site, tmp_path / f"{site}.json") == 0
    other = tiny_bundle.make(
        tmp_path / "other", calibrator=tiny_bundle.policy().calibrator.model_copy(update={"slope": 2.0})
    )
    words = [str(tmp_path / "north.json"), str(tmp_path / "south.json"), "--out", str(tmp_path / "pooled")]
    assert main(["pool", str(other.folder), *words]) == 2
    assert "another scorer" in capsys.readouterr().err


def test_counts_behind_another_novelty_gate_are_those_of_another_scorer(clinic, bundle, tmp_path, capsys):
    gated = tiny_bundle.make(tmp_path / "gated", novelty_limit=tiny_bundle.NOVELTY_LIMIT).folder
    counted = {"north": bundle, "west": bundle, "south": gated}
    for site, used in counted.items():
        assert tally(used, clinic(spread(40), name=site), site, tmp_path / f"{site}.json") == 0
    for used, sites, sentence in (
        (bundle, ("north", "south"), "differ in scoring_sha256"),
        (gated, ("north", "south"), "differ in scoring_sha256"),
        (gated, ("north", "west"), "counted with another scorer"),
    ):
        words = [str(tmp_path / f"{site}.json") for site in sites]
        assert main(["pool", str(used), *words, "--out", str(tmp_path / "pooled")]) == 2
        assert sentence in capsys.readouterr().err
        assert not (tmp_path / "pooled").exists()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"site": "x"}'])
def test_what_is_no_tally_is_one_sentence(bundle, tmp_path, capsys, text):
    (tmp_path / "a.json").write_text(text)
    words = [str(tmp_path / "a.json"), str(tmp_path / "a.json"), "--out", str(tmp_path / "pooled")]
    assert main(["pool", str(bundle), *words]) == 2
    error = capsys.readouterr().err
    assert "not a file of `lesion-triage tally`" in error
    assert error.count("\n") == 1
