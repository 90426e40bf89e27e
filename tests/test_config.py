from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion_triage import strict_yaml
from lesion_triage.bundle.document import canonical_json, sha256_of
from lesion_triage.config import Calibrate, Config
from lesion_triage.config_file import DATA_ROOT_VARIABLE, load
from lesion_triage.errors import ConfigError
from lesion_triage.strict_yaml import parse

MINIMAL = "name: try\ndata:\n  source: synthetic\n"


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "try.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_unknown_key_is_refused_with_the_nearest_known_name(written):
    with pytest.raises(ConfigError, match=r"unknown key 'train\.learning_rat'.*'learning_rate'"):
        load(written(MINIMAL + "train:\n  learning_rat: 0.1\n"))


def test_unknown_section_is_refused_with_the_nearest_known_name(written):
    with pytest.raises(ConfigError, match=r"unknown key 'modle'.*'model'"):
        load(written(MINIMAL + "modle: {}\n"))


def test_duplicate_key_is_refused_with_its_line(written):
    with pytest.raises(ConfigError, match=r"'name' appears twice.*line 4"):
        load(written(MINIMAL + "name: other\n"))


def test_duplicate_key_deep_inside_is_refused(written):
    with pytest.raises(ConfigError, match="'epochs' appears twice"):
        load(written(MINIMAL + "train:\n  epochs: 3\n  seed: 1\n  epochs: 4\n"))


@pytest.mark.parametrize("text", ["", "[1, 2]", "name: {", "just words", "name: \x00"])
def test_what_is_no_configuration_is_one_sentence(written, text):
    with pytest.raises(ConfigError) as caught:
        load(written(text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 2026-02-30", "line 1: '2026-02-30' cannot be read as a value of type timestamp"),
        ("a: !!timestamp soon", "line 1: 'soon' cannot be read as a value of type timestamp"),
        ("name: try\na: !!int abc", "line 2: 'abc' cannot be read as a value of type int"),
        ("a: !!float abc", "line 1: 'abc' cannot be read as a value of type float"),
        ("a: !!bool abc", "line 1: 'abc' cannot be read as a value of type bool"),
        (f"a: {'9' * 5000}", f"line 1: '{'9' * 40}…' cannot be read as a value of type int"),
        ("a: {2: 24:00}", "line 1: '24:00' would be read as 1440; write a decimal number"),
        ("a: -1:30.5", "line 1: '-1:30.5' would be read as -90.5; write"),
        ("a:\n- 010", "line 2: '010' would be read as 8; write a decimal number without leading zeros"),
        ("? [a, b]\n: 1", "line 1: expected a word as a key"),
        ("? {a: b}\n: 1", "line 1: expected a word as a key"),
        ("a: !!set [x]", "not valid YAML"),
        ("a: &b {x: 1}\nc:\n  <<: *b\n  y: 2", r"line 3: merge keys \('<<'\) are not supported"),
        ("[" * 5000, "nested too deeply"),
        ("{a: " * 5000, "nested too deeply"),
    ],
)
def test_yaml_that_cannot_be_read_is_one_sentence_with_its_place(text, sentence):
    with pytest.raises(ConfigError, match=f"^try.yaml: {sentence}") as caught:
        parse(text, "try.yaml")
    assert "\n" not in str(caught.value)


def test_missing_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "nowhere.yaml")


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_a_value_written_as_yaml_is_one_line_that_reads_back_as_it_was(value):
    line = strict_yaml.dump_line(value)
    assert line.isprintable()
    assert parse(line, "here") == value


def test_exponent_without_a_point_is_a_number(written):
    assert load(written(MINIMAL + "train:\n  learning_rate: 3e-4\n")).train.learning_rate == 0.0003


def test_fractions_must_sum_to_one(written):
    with pytest.raises(ConfigError, match=r"sum to 1, found 1\.1"):
        load(written(MINIMAL + "split:\n  fractions: {train: 0.7}\n"))


@pytest.mark.parametrize("value", ["0", "-1", ".nan", "many"])
def test_value_out_of_range_names_its_place(written, value):
    with pytest.raises(ConfigError, match=r"train\.epochs"):
        load(written(MINIMAL + f"train:\n  epochs: {value}\n"))


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ("seed: -1", r"seed: .*greater than or equal to 0; found -1"),
        ("seed: 4294967296", r"seed: .*less than or equal to 4294967295"),
        ("seed: 4294967295\nensemble: {members: 2}", r"members of an ensemble go up to 4294967295"),
        ("split: {seed: -1}", r"split\.seed"),
        ("evaluate: {seed: -1}", r"evaluate\.seed"),
        ("audit: {seed: -1}", r"audit\.seed"),
        ("train: {learning_rate: .inf}", r"train\.learning_rate: .*finite number; found inf"),
        ("train: {weight_decay: .inf}", r"train\.weight_decay: .*finite number"),
        ("train: {mixup_alpha: .inf}", r"train\.mixup_alpha: .*finite number"),
        ("train: {focal_gamma: .inf}", r"train\.focal_gamma: .*finite number"),
        ("train: {warmup_epochs: .inf}", r"train\.warmup_epochs: .*finite number"),
        ("train: {warmup_epochs: 1000}", r"a warm-up of 1000 epochs does not end within 15"),
        ("train: {strategy: fsdp, precision: 16-mixed}", r"fsdp does not train in 16-mixed; .* bf16-mixed"),
        ("train: {epochs: true}", r"train\.epochs: Input should be a number, not true or false; found True"),
        ("train: {devices: true}", r"train\.devices: Input should be a number"),
        ("train: {small_first: false}", r"train\.small_first: Input should be a number"),
        ("export: {views: true}", r"export\.views: Input should be a number"),
        (
            "calibrate: {deadline_hours: 87601}",
            r"calibrate\.deadline_hours: Input should be less than or equal",
        ),
        ("calibrate: {deadline_hours: true}", r"calibrate\.deadline_hours: Input should be a number"),
        ("export: {center_crop: 0.8}", r"center_crop needs views of 2 or more"),
        ("export: {views: 8, center_crop: 0.4}", r"export\.center_crop: .*greater than or equal to 0\.5"),
        ("export: {opset: 99}", r"export\.opset: .*less than or equal to 25; found 99"),
        ("export: {parity_tolerance: .inf}", r"export\.parity_tolerance: .*finite number"),
        ("export: {parity_tolerance: 1}", r"export\.parity_tolerance: .*less than 1; found 1"),
    ],
)
def test_what_would_fail_after_hours_is_refused_when_it_is_read(written, section, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load(written(f"{MINIMAL}{section}\n"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("data: {source: folder}\n", "name: Field required."),
        (f"{MINIMAL}train: {{probe: true}}\nensemble: {{members: 2, combine: distil}}\n", "use average."),
    ],
)
def test_an_error_of_a_whole_section_does_not_repeat_it_with_the_password_in_it(written, text, complaint):
    tracking = "tracking: {uri: 'http://ada:secret@127.0.0.1'}\n"
    with pytest.raises(ConfigError, match=f"{complaint}$") as caught:
        load(written(text + tracking))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("misplaced", ["{0}", "[{0}]", "{{uri: [{0}]}}", "{{uri: {{host: {0}}}}}"])
def test_an_address_in_the_wrong_place_is_repeated_without_its_password(written, misplaced):
    tracking = misplaced.format("'http://ada:sec@ret@127.0.0.1'")
    with pytest.raises(ConfigError, match=r"tracking.*: Input should be a valid") as caught:
        load(written(f"{MINIMAL}tracking: {tracking}\n"))
    assert "ada" not in str(caught.value)
    assert "ret" not in str(caught.value)


def test_the_ends_of_the_ranges_are_taken(written):
    text = "seed: 4294967295\nsplit: {seed: 0}\nexport: {opset: 25}\ntrain: {epochs: 1, probe: true}\n"
    loaded = load(written(MINIMAL + text))
    assert (loaded.seed, loaded.export.opset, loaded.train.warmup_epochs) == (2**32 - 1, 25, 1.0)
    with pytest.raises(ConfigError, match=r"data\.synthetic\.seed"):
        load(written(MINIMAL), ["data.synthetic.seed=-1"])


def test_override_stands_above_the_file(written):
    loaded = load(written(MINIMAL + "seed: 1\n"), ["seed=5", "train.epochs=2"])
    assert (loaded.seed, loaded.train.epochs) == (5, 2)


@pytest.mark.parametrize("override", ["seed", "=3", "seed.deep=1", "train.epoch=3"])
def test_broken_override_is_refused(written, override):
    with pytest.raises(ConfigError):
        load(written(MINIMAL + "seed: 1\n"), [override])


def test_data_root_comes_from_argument_then_override_then_environment_then_file(
    written, monkeypatch, tmp_path
):
    path = written("name: try\ndata:\n  source: folder\n  root: beside\n")
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)
    assert load(path).data.root == tmp_path / "beside"
    monkeypatch.setenv(DATA_ROOT_VARIABLE, "/from/environment")
    assert load(path).data.root == Path("/from/environment")
    told = ("data.root=/from/override",)
    assert load(path, told).data.root == Path("/from/override")
    assert load(path, told, data_root=Path("/from/argument")).data.root == Path("/from/argument")


def test_the_pictures_of_a_run_lie_where_its_folder_says_as_long_as_they_do(written, monkeypatch, tmp_path):
    path = written(f"name: try\ndata:\n  source: folder\n  root: {tmp_path / 'own'}\n")
    monkeypatch.setenv(DATA_ROOT_VARIABLE, "/from/environment")
    assert load(path, frozen=True).data.root == Path("/from/environment")
    (tmp_path / "own").mkdir()
    assert load(path, frozen=True).data.root == tmp_path / "own"
    assert load(path, (), Path("/from/argument"), frozen=True).data.root == Path("/from/argument")


def test_identity_ignores_where_things_lie_and_nothing_else(written):
    path = written(MINIMAL)
    plain = load(path).identity_sha256()
    assert load(path, ["tracking.experiment=other"], Path("/elsewhere")).identity_sha256() == plain
    assert load(path, ["seed=1"]).identity_sha256() != plain
    assert load(path, ["train.epochs=1"]).identity_sha256() != plain


def test_frozen_yaml_reads_back_as_the_same_configuration(written, tmp_path):
    loaded = load(written(MINIMAL), ["train.learning_rate=1e-5"])
    again = tmp_path / "frozen.yaml"
    again.write_text(loaded.to_yaml(), encoding="utf-8")
    assert load(again) == loaded


@given(st.text(max_size=80))
def test_any_text_is_a_configuration_or_a_config_error(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("fuzz") / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(ConfigError):
        assert isinstance(load(path), Config)


RUNS = sorted(path for path in Path("configs").glob("*.yaml") if path.stem != "red_flags")


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_shipped_configuration_of_a_run_loads(path):
    assert load(path).name == path.stem.split(".")[0]


def test_band_shares_that_leave_no_last_band_are_refused(written):
    with pytest.raises(ConfigError, match=r"band_shares must sum to less than 1, found 1\.5"):
        load(written(MINIMAL + "calibrate:\n  band_shares: [0.5, 0.5, 0.5]\n"))


MIXED = """name: try
data:
  source: mixture
  mixture:
    - source: ham10000
    - {source: ddi, root: there}
"""


def test_parts_of_a_mixture_lie_below_the_root_unless_they_say_otherwise(written, tmp_path):
    loaded = load(written(MIXED), data_root=Path("/data"))
    assert loaded.data.folders == {"ham10000": Path("/data/ham10000"), "ddi": tmp_path / "there"}
    assert load(written(MIXED)).data.folders["ham10000"] is None


def test_identity_ignores_where_the_parts_of_a_mixture_lie(written):
    plain = load(written(MIXED)).identity_sha256()
    assert load(written(MIXED.replace("there", "elsewhere")), data_root=Path("/x")).identity_sha256() == plain
    assert load(written(MIXED.replace("ddi", "ph2"))).identity_sha256() != plain


def test_unknown_key_in_a_part_is_refused_with_the_nearest_known_name(written):
    with pytest.raises(ConfigError, match=r"unknown key 'data\.mixture\.1\.rot'; did you mean 'root'\?"):
        load(written(MIXED.replace("root:", "rot:")))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("source: mixture", "source: ham10000", "goes with 'source: mixture', and only with it"),
        ("source: ddi", "source: ham10000", r"one name: ham10000, ham10000; add 'name'"),
        ("source: ddi", "source: mixture", "data.mixture.1.source"),
        ("source: ddi", "source: ddi, name: a/b", "data.mixture.1.name"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(written, old, new, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load(written(MIXED.replace(old, new)))


def test_a_training_key_that_came_later_changes_no_identity_while_it_has_its_default():
    """ADR 38: the hash of a configuration from before those keys, computed by the program of then."""
    base = {"name": "try", "data": {"source": "synthetic"}}
    plain = Config.model_validate(base)
    for key, default in (("loss", "bce"), ("layer_decay", 1.0), ("accumulate", 1), ("probe", False)):
        stated = Config.model_validate({**base, "train": {key: default}})
        assert stated.identity_sha256() == plain.identity_sha256()
        assert key not in plain.train.recipe()
    other = Config.model_validate({**base, "train": {"loss": "focal"}})
    assert other.identity_sha256() != plain.identity_sha256()
    elsewhere = Config.model_validate(
        {**base, "train": {"devices": 2, "compile": True, "channels_last": False}}
    )
    assert elsewhere.identity_sha256() == plain.identity_sha256()
    assert elsewhere.train.recipe() == plain.train.recipe()


def test_a_centre_crop_changes_the_identity_and_none_does_not():
    base = {"name": "try", "data": {"source": "synthetic"}}
    plain = Config.model_validate({**base, "export": {"views": 8}})
    assert "center_crop" not in plain.export.recipe()
    stated = Config.model_validate({**base, "export": {"views": 8, "center_crop": 1}})
    assert stated.identity_sha256() == plain.identity_sha256()
    cropped = Config.model_validate({**base, "export": {"views": 8, "center_crop": 0.8}})
    assert cropped.identity_sha256() != plain.identity_sha256()


def test_an_ensemble_of_one_changes_no_identity_and_members_are_the_runs_of_their_seeds(written):
    """The section came later: without it, what is hashed is what was hashed before it."""
    path = written(MINIMAL + "seed: 4\n")
    plain = load(path)
    hashed = plain.model_dump(mode="json", exclude={"tracking", "data", "ensemble"})
    hashed["data"] = plain.data.identity()
    del hashed["export"]["center_crop"]
    how = {"accelerator": plain.train.accelerator, "workers": plain.train.workers}
    hashed["train"] = {**how, **plain.train.recipe()}
    assert plain.identity_sha256() == sha256_of(canonical_json(hashed).encode())
    assert load(path, ["ensemble.members=1"]).identity_sha256() == plain.identity_sha256()
    assert plain.members() == ()
    several = load(path, ["ensemble.members=3"])
    assert several.members() == tuple(load(path, [f"seed={seed}"]) for seed in (4, 5, 6))
    assert several.identity_sha256() != plain.identity_sha256()


def test_members_of_several_backbones_are_the_runs_that_each_backbone_has_by_itself(written, tmp_path):
    path = written(
        MINIMAL + "seed: 4\ntrain: {frozen_stages: 1}\nensemble:\n  members: 2\n  backbones:\n"
        "    - {backbone: resnet18, weights: own/first.safetensors, frozen_stages: 0}\n"
        "    - {backbone: vgg11, drop_path_rate: 0, learning_rate: 2.5e-4}\n"
    )
    several = load(path)
    file = str(path.parent / "own/first.safetensors")
    others = (
        ("model.backbone=resnet18", f"model.weights={file}", "train.frozen_stages=0"),
        ("model.backbone=vgg11", "model.weights=hub", "model.drop_path_rate=0", "train.learning_rate=2.5e-4"),
    )
    plain = ["ensemble.backbones=[]", "ensemble.members=1"]
    assert several.members() == tuple(
        load(path, [*plain, f"seed={seed}", *sets]) for sets in ((), *others) for seed in (4, 5)
    )
    own = several.model.backbone
    assert several.served_backbones() == (own, "resnet18", "vgg11")
    assert load(path, ["ensemble.combine=distil"]).served_backbones() == (own,)
    one_of_each = load(path, ["ensemble.members=1"])
    assert [member.seed for member in one_of_each.members()] == [4, 4, 4]


@pytest.mark.parametrize(
    "backbones",
    [
        "[{backbone: tf_efficientnet_lite0}]",
        "[{backbone: tf_efficientnet_lite0, drop_path_rate: 0.1, learning_rate: 1e-3}]",  # the defaults
        "[{backbone: resnet18}, {backbone: resnet18}]",
    ],
)
def test_a_network_that_an_ensemble_would_count_twice_is_refused(written, backbones):
    path = written(MINIMAL)
    with pytest.raises(ConfigError, match=r"ensemble\.backbones names one network twice"):
        load(path, [f"ensemble.backbones={backbones}"])
    load(path, ["ensemble.backbones=[{backbone: tf_efficientnet_lite0, learning_rate: 2e-3}]"])


def test_identity_of_an_ensemble_knows_its_backbones_and_not_where_their_weights_lie(written):
    path = written(MINIMAL)

    def identity(*others: str) -> str:
        return load(path, [f"ensemble.backbones=[{', '.join(others)}]"]).identity_sha256()

    here, there = (
        "{backbone: resnet18, weights: " + place + "}" for place in ("a.safetensors", "b.safetensors")
    )
    assert identity(here) == identity(there)
    others = ("{backbone: resnet18}", "{backbone: vgg11}", "{backbone: vgg11, drop_path_rate: 0}")
    others += ("{backbone: vgg11, learning_rate: 2.5e-4}",)
    assert len({identity(), identity(here), *map(identity, others)}) == 6


def test_what_a_further_backbone_leaves_to_the_model_is_not_hashed(written):
    """Its rates came later: an ensemble from before is known again."""
    config = load(written(MINIMAL), ["ensemble.backbones=[{backbone: vgg11}]"])
    (found,) = config.ensemble.recipe()["backbones"]
    assert found == {"backbone": "vgg11", "weights": "hub", "frozen_stages": None}


def test_the_share_of_teachers_decides_nothing_where_nobody_teaches(written):
    path = written(MINIMAL + "ensemble: {members: 2}\n")
    for combine, same in (("average", True), ("distil", False)):
        one, other = (
            load(path, [f"ensemble.combine={combine}", f"ensemble.teacher_share={share}"])
            for share in (0.5, 0.9)
        )
        assert (one.identity_sha256() == other.identity_sha256()) is same


def test_blanks_are_no_reason_for_a_second_look():
    assert Calibrate(second_look=" ").second_look == ""
