"""``lesion-triage keygen``, ``sign`` and ``verify``, as a person types them."""

import os
from pathlib import Path

import pytest

import tiny_bundle as tiny
from lesion_triage.bundle import signing
from lesion_triage.bundle.schema import SelfTest
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


def test_altered_bundle_is_not_signed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, stem = tiny.make(tmp_path / "bundle").folder, str(tmp_path / "maker")
    main(["keygen", stem])
    (folder / "MODEL_CARD.md").write_text("another card")
    assert main(["sign", str(folder), "--key", f"{stem}.pem"]) == 2
    assert "MODEL_CARD.md" in capsys.readouterr().err
    assert not (folder / "signature.json").exists()


def test_bundle_that_fails_its_self_test_is_neither_signed_nor_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts, stem = tiny.seal_arguments(), str(tmp_path / "maker")
    first, *others = parts["selftest"].cases
    parts["selftest"] = SelfTest(cases=(first.model_copy(update={"logit": first.logit + 1}), *others))
    bundle = seal(tmp_path / "bundle", **parts)
    main(["keygen", stem])
    assert main(["sign", str(bundle.folder), "--key", f"{stem}.pem"]) == 2
    assert "Self-test picture" in capsys.readouterr().err
    assert not (bundle.folder / "signature.json").exists()
    signing.sign(bundle, signing.read_private_key(Path(f"{stem}.pem"), None))
    assert main(["verify", str(bundle.folder), "--trusted", f"{stem}.pub.pem"]) == 2
    assert "Self-test picture" in capsys.readouterr().err


@pytest.mark.parametrize("stem", [".", "/", ".."])
def test_keys_without_a_name_are_refused_with_one_sentence(
    stem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["keygen", stem]) == 2
    assert capsys.readouterr().err == (
        f"SignatureError: {stem}: expected the path of the keys without extension, such as maker.\n"
    )
    assert list(tmp_path.iterdir()) == []


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


def test_passphrase_that_is_no_utf_8_is_the_same_bytes_from_file_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, stem = str(tiny.make(tmp_path / "bundle").folder), str(tmp_path / "maker")
    (tmp_path / "words").write_bytes(b"stra\xdfe\n")
    assert main(["keygen", stem, "--passphrase-file", str(tmp_path / "words")]) == 0
    monkeypatch.setenv("LESION_TRIAGE_KEY_PASSPHRASE", os.fsdecode(b"stra\xdfe"))
    assert main(["sign", bundle, "--key", f"{stem}.pem"]) == 0


def test_passphrase_too_long_to_encrypt_with_is_refused_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as the first line of a file that holds something else."""
    (tmp_path / "words").write_bytes(b"x" * 2000)
    assert main(["keygen", str(tmp_path / "maker"), "--passphrase-file", str(tmp_path / "words")]) == 2
    assert "The passphrase has 2,000 bytes, expected at most 1,023." in capsys.readouterr().err
    assert not (tmp_path / "maker.pem").exists()
