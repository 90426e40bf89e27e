from __future__ import annotations

import json
import re

import pytest

from lesion_triage.audit import checks, report
from lesion_triage.audit.findings import Finding, Report, Verdict, with_acceptance
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.config import Audit
from lesion_triage.errors import ManifestError

SPEC = PixelSpec(size_px=64)
CONFIG = Audit(pictures=120)


@pytest.fixture(scope="module")
def written(drawn, tmp_path_factory):
    known, splits, root = drawn
    data = checks.Data(known, splits, root, SPEC)
    found, seen = checks.audit_data(data, CONFIG)
    folder = tmp_path_factory.mktemp("report") / "audit"
    report.write(folder, found, CONFIG, seen, known)
    return folder, found, data


def test_the_page_loads_nothing_from_anywhere_and_has_no_script(written):
    page = (written[0] / "audit.html").read_text()
    assert "<script" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "url(" not in page
    assert "@import" not in page


def test_every_figure_has_an_alternative_text_and_lies_beside_the_page_as_a_file(written):
    folder, _, _ = written
    page = (folder / "audit.html").read_text()
    images = re.findall(r"<img [^>]*>", page)
    assert images
    assert all(re.search(r'alt="[^"]{10,}"', image) for image in images)
    assert {path.stem for path in (folder / "figures").iterdir()} == set(
        re.findall(r'id="figure-(\w+)"', page)
    )


def test_every_finding_stands_on_the_page_with_its_verdict_and_its_reason(written):
    folder, found, _ = written
    page = (folder / "audit.html").read_text()
    for finding in found.findings:
        assert f'id="{finding.code}"' in page
    assert json.loads((folder / "audit.json").read_text())["verdict"] == found.verdict


def test_page_and_json_name_no_picture_lesion_or_patient(written):
    folder, _, data = written
    for name in ("audit.html", "audit.json"):
        text = (folder / name).read_text()
        for record in data.manifest.records:
            assert record.image_id not in text
            assert f'"{record.lesion_id}"' not in text
            assert f">{record.lesion_id}<" not in text


def test_photographs_stand_only_in_the_copy_that_warns_of_them(written, tmp_path):
    folder, _, data = written
    page = report.write_with_pictures(tmp_path / "local.html", folder, data, CONFIG)
    local, plain = page.read_text(), (folder / "audit.html").read_text()
    assert "photographs of people" in local
    assert "photographs of people" not in plain
    assert local.count("<img") > plain.count("<img")


def test_a_copy_with_photographs_takes_opened_pictures(drawn, tmp_path):
    known, splits, root = drawn
    data = checks.Data(known, splits, root, SPEC)
    found, seen = checks.audit_data(data, Audit(pictures=0))
    report.write(tmp_path / "audit", found, Audit(pictures=0), seen, known)
    with pytest.raises(ManifestError, match=r"audit\.pictures"):
        report.write_with_pictures(tmp_path / "local.html", tmp_path / "audit", data, CONFIG)


def test_an_accepted_failure_shows_its_reason_escaped(tmp_path, drawn):
    failed = Finding("source_shortcut", Verdict.FAIL, "It tells.", subjects=("<north>",))
    config = Audit(accept={"source_shortcut": "we know of <north> & show it apart"})
    facts = {
        "photographs": 1,
        "rows_compared": 1,
        "positive_rows_compared": 1,
        "pictures_opened": 0,
        "manifest_sha256": "a" * 64,
        "synthetic": False,
        "citation": [],
        "with_model": False,
    }
    found = Report(with_acceptance([failed], config), (), facts)
    page = report.write(tmp_path, found, config, None, drawn[0]).read_text()
    assert "we know of &lt;north&gt; &amp; show it apart" in page
    assert "accepted on purpose" in page


def test_an_incomplete_report_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="no complete report"):
        report.read(tmp_path)
    (tmp_path / "audit.json").write_text('{"format": 0}')
    with pytest.raises(ManifestError, match="not a report of this version"):
        report.read(tmp_path)
