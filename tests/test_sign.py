"""``lesion-triage keygen``, ``sign`` and ``verify``, as a person types them."""

from pathlib import Path

import pytest

import tiny_bundle as tiny
from lesion_triage.bundle.store import seal
from lesion_triage.cli import main


def test_keygen_sign_verify_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, stem = str(tiny.make(tmp_path / "bundle").folder), str(tmp_path / "maker")
    assert main(["keygen", stem]) == 0
    fingerprint = capsys.readouterr().out.split()[-1]
    assert main(["verify", bundle, "--trusted", f"{stem}.pub.pem"]) == 2
    assert "not signed" in capsys.readouterr().err
    assert main(["sign", bundle, "--key", f"{stem}.pem"]) == 0
    assert main(["verify", bundle, "--trusted", f"{stem}.pub.pem"]) == 0
    assert fingerprint in capsys.readouterr().out
    (tmp_path / "bundle" / "policy.json").write_text("{}")
    assert main(["verify", bundle, "--trusted", f"{stem}.pub.pem"]) == 2


@pytest.mark.parametrize("drawn", [True, False])
def test_verify_says_that_a_bundle_was_made_from_drawn_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], drawn: bool
) -> None:
    made, stem = (
        seal(tmp_path / "bundle", **{**tiny.seal_arguments(), "synthetic": drawn}),
        str(tmp_path / "maker"),
    )
    main(["keygen", stem])
    main(["sign", str(made.folder), "--key", f"{stem}.pem"])
    assert main(["verify", str(made.folder), "--trusted", f"{stem}.pub.pem"]) == 0
    assert ("made from drawn pictures" in capsys.readouterr().out) is drawn


def test_passphrase_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, stem = str(tiny.make(tmp_path / "bundle").folder), str(tmp_path / "maker")
    monkeypatch.setenv("LESION_TRIAGE_KEY_PASSPHRASE", "correct horse")
    assert main(["keygen", stem]) == 0
    monkeypatch.delenv("LESION_TRIAGE_KEY_PASSPHRASE")
    assert main(["sign", bundle, "--key", f"{stem}.pem"]) == 2
    assert "encrypted" in capsys.readouterr().err
    (tmp_path / "words").write_text("correct horse\n")
    assert main(["sign", bundle, "--key", f"{stem}.pem", "--passphrase-file", str(tmp_path / "words")]) == 0


def test_an_empty_passphrase_makes_no_open_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A secret that was not filled in is set and empty."""
    monkeypatch.setenv("LESION_TRIAGE_KEY_PASSPHRASE", "")
    assert main(["keygen", str(tmp_path / "maker")]) == 2
    assert "set and empty" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
