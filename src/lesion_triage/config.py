"""The whole configuration vocabulary on one page. ``config_file`` says how a file becomes it.

Imports the bundle's contracts; no package above.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from lesion_triage.bundle.certificate import KNOWN_WHEN_SERVING, GroupBy, Rule
from lesion_triage.bundle.document import canonical_json, sha256_of
from lesion_triage.bundle.red_flags import RedFlags
from lesion_triage.bundle.schema import PixelSpec, QualityLimits

DatasetName = Literal[
    "ham10000",
    "isic_2018",
    "isic_2019",
    "isic_2020",
    "isic_2024",
    "bcn20000",
    "pad_ufes_20",
    "milk10k",
    "derm7pt",
    "ph2",
    "fitzpatrick17k",
    "ddi",
    "scin",
    "dermamnist",
    "folder",
]
"""Every dataset that has a reader, and ``folder`` for pictures and a table of one's own."""

Roots = Path | Mapping[str, Path]
"""Where the pictures are: one folder, or for a mixture the folder of each part by its name."""


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):  # pydantic would read 1 and 0
        raise ValueError("Input should be a number, not true or false")
    return value


Whole = Annotated[int, BeforeValidator(_no_boolean)]
Number = Annotated[float, BeforeValidator(_no_boolean)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(gt=0, lt=1)]
Seed = Annotated[Whole, Field(ge=0)]

LARGEST_SEED = 2**32 - 1
"""Of a training: numpy's generator takes no larger one."""
LARGEST_OPSET = 25
"""Of ONNX: the largest that exporter and runtime take for every backbone."""


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, and so is infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Synthetic(Section):
    """What ``source: synthetic`` draws: lesions in one to three pictures each, nothing like skin."""

    lesions: Whole = Field(default=1200, ge=20)
    positive_share: Share = 0.4
    seed: Seed = 0


class Part(Section):
    """One dataset of a mixture."""

    source: DatasetName
    name: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9_-]{0,62})?$")] = ""
    """Name of the part, needed if a source occurs twice; empty: the source's own name."""
    root: Path | None = None
    """Folder of this dataset; None: the folder of the part's name below ``data.root``."""
    table: str = "cases.csv"
    """For ``source: folder``: the table, relative to the part's folder."""

    @property
    def label(self) -> str:
        """The name that this part's paths and identifiers begin with."""
        return self.name or self.source


class Data(Section):
    """Where the pictures come from."""

    source: DatasetName | Literal["synthetic", "mixture"]
    """A dataset in its official layout; folder: your own; synthetic: drawn; mixture: several datasets."""
    root: Path | None = None
    """Folder of the dataset; ``--data-root`` and LESION_TRIAGE_DATA_ROOT override it."""
    table: str = "cases.csv"
    """For ``source: folder``: the table, relative to the root."""
    mixture: tuple[Part, ...] = ()
    """For ``source: mixture``: the datasets. Where two have the same record, the first named counts."""
    synthetic: Synthetic = Synthetic()

    @model_validator(mode="after")
    def _parts_fit_the_source(self) -> Self:
        if (self.source == "mixture") != bool(self.mixture):
            raise ValueError(
                "data.mixture goes with 'source: mixture', and only with it: list its datasets there"
            )
        names = [part.label for part in self.mixture]
        if len(set(names)) < len(names):
            raise ValueError(f"two parts of data.mixture have one name: {', '.join(names)}; add 'name'")
        return self

    @property
    def folders(self) -> Mapping[str, Path | None]:
        """Folder of each part by its name; of a single dataset, by its source. None: not given."""
        if self.source != "mixture":
            return {self.source: self.root}
        beside = self.root
        return {part.label: part.root or (beside and beside / part.label) for part in self.mixture}

    def identity(self) -> dict[str, Any]:
        """What decides which pictures and labels there are: everything but their location."""
        return self.model_dump(mode="json", exclude={"root": True, "mixture": {"__all__": {"root"}}})


class Fractions(Section):
    """Share of the groups in each split; they sum to one. Patient, lesion and copies join a group."""

    train: Share = 0.60
    validation: Share = 0.10
    calibration: Share = 0.15
    test: Share = 0.15

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.validation + self.calibration + self.test
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"the fractions must sum to 1, found {total:.6g}")
        return self


class Split(Section):
    """How groups are assigned to splits at random. Its seed is separate from the training seed."""

    seed: Seed = 0
    fractions: Fractions = Fractions()
    official: bool = False
    """Keep the dataset's own test and validation pictures; every record must state its official split."""


class Model(Section):
    """The network."""

    backbone: str = "tf_efficientnet_lite0"
    """Any timm model name."""
    weights: str = "hub"
    """``hub`` (timm's own), ``none`` (random), or a safetensors file, relative to the configuration file."""
    drop_rate: Annotated[Number, Field(ge=0, lt=1)] = 0.2
    drop_path_rate: Annotated[Number, Field(ge=0, lt=1)] = 0.1


class Train(Section):
    """The training loop. Defaults were chosen on HAM10000's validation split; see experiments/LOG.md."""

    epochs: Whole = Field(default=15, ge=1)
    batch_size: Whole = Field(default=32, ge=2)
    """Global batch: pictures in one optimiser step, over all processes and all accumulated parts."""
    accumulate: Whole = Field(default=1, ge=1)
    """Gradient accumulation: parts into which each process cuts its share. Less memory, the same gradient."""
    learning_rate: Positive = 1e-3
    """Peak, for AdamW; not scaled with the batch size."""
    warmup_epochs: Annotated[Number, Field(ge=0)] = 1.0
    """Epochs of linear warm-up."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls to zero after the warm-up; constant: it does not."""
    layer_decay: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """Learning rate of a layer, as a share of that of the layer above it; 1 gives all layers the same."""
    weight_decay: Annotated[Number, Field(ge=0)] = 0.05
    loss: Literal["bce", "balanced", "focal"] = "bce"
    """balanced: both classes weigh the same. focal: well-classified examples weigh less."""
    focal_gamma: Annotated[Number, Field(ge=0)] = 2.0
    """For ``loss: focal``."""
    label_smoothing: Annotated[Number, Field(ge=0, lt=0.5)] = 0.05
    auxiliary_diagnosis_weight: Annotated[Number, Field(ge=0)] = 1.0
    """Weight of a second head that learns the diagnosis; it shapes the features and is never exported."""
    mixup_alpha: Annotated[Number, Field(ge=0)] = 0.0
    """Blend each picture with another, by a share drawn from Beta(alpha, alpha); 0 turns it off."""
    cutmix_alpha: Annotated[Number, Field(ge=0)] = 0.0
    """Paste a rectangle of another picture, of a share drawn from Beta(alpha, alpha); 0 turns it off."""
    ema_decay: Annotated[Number, Field(ge=0, lt=1)] = 0.995
    """Exponential moving average of the weights, which is what is evaluated and exported; 0 turns it off."""
    probe: bool = False
    """Linear probe: freeze the backbone and train the heads on its embeddings, which are computed once."""
    frozen_stages: Whole = Field(default=0, ge=0)
    """Freeze the stem and this many first stages (timm's), weights and statistics; 0 freezes nothing."""
    small_first: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Share of the epochs, from the start, that see pictures of 0.8 times the side, to a multiple of 32."""
    augmentation: Literal["none", "flips", "standard", "strong"] = "standard"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """auto: bf16-mixed where GPU or processor computes in it natively, 16-mixed on an older GPU unless with
    fsdp, else 32-true."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: Annotated[Annotated[int, Field(ge=1)] | Literal["auto"], BeforeValidator(_no_boolean)] = 1
    """Processes on this machine, one for each GPU; torchrun overrides it."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """How several processes share the work."""
    compile: bool = False
    """torch.compile; it takes minutes to start and gained nothing on a CPU."""
    channels_last: bool = True
    """Memory layout of the weights; ignored with fsdp. docs/training.md says when it is faster."""
    checkpoint_minutes: Annotated[Number, Field(ge=0)] = 5.0
    """A state to resume from is written after each epoch and, in between, this often; 0: after each step."""
    workers: Whole = Field(default=1, ge=0)
    """Loader processes for each training process."""
    pixel_cache: bool = True
    """Keep prepared pictures on disk beside the runs, so that only the first epoch decodes them."""

    @model_validator(mode="after")
    def _keys_go_together(self) -> Self:
        devices = 1 if self.devices == "auto" else self.devices
        if self.batch_size < 2 * self.accumulate * devices:
            raise ValueError(
                f"a batch_size of {self.batch_size} leaves less than two pictures for each of {devices} "
                f"devices times {self.accumulate} accumulated parts"
            )
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"a warm-up of {self.warmup_epochs:g} epochs does not end within {self.epochs}; lower "
                "warmup_epochs"
            )
        if self.strategy == "fsdp" and self.precision == "16-mixed":
            raise ValueError("fsdp does not train in 16-mixed; set precision to bf16-mixed or 32-true")
        if self.probe and (devices > 1 or self.strategy == "fsdp"):
            raise ValueError("probe takes one process: its head is trained in seconds; set devices to 1")
        if self.probe and self.cutmix_alpha:
            raise ValueError("cutmix needs pictures, and probe trains on embeddings; set cutmix_alpha to 0")
        return self

    def recipe(self) -> dict[str, Any]:
        """What decides the result. A key that came later is left out while it has its default.

        So a run from before the key existed is recognised, and not repeated.
        """
        content = self.model_dump(mode="json", exclude=set(_EXECUTION_KEYS))
        fields = type(self).model_fields
        return {
            key: value
            for key, value in content.items()
            if key not in _KEYS_ADDED_LATER or value != fields[key].default
        }


def _without_location(weights: str) -> str:
    """Initial weights without the location of their file."""
    return weights if weights in ("hub", "none") else "file"


_EXECUTION_KEYS = frozenset(
    (
        "accelerator",
        "devices",
        "strategy",
        "compile",
        "channels_last",
        "checkpoint_minutes",
        "workers",
        "pixel_cache",
    )
)
_KEYS_ADDED_LATER = frozenset(
    (
        "accumulate",
        "warmup_epochs",
        "schedule",
        "layer_decay",
        "loss",
        "focal_gamma",
        "cutmix_alpha",
        "probe",
    )
)


class OtherBackbone(Section):
    """What a further network of an ensemble has of its own; the rest is as ``model`` and ``train`` say."""

    backbone: str
    """Any timm model name."""
    weights: str = "hub"
    """As ``model.weights``."""
    frozen_stages: Annotated[Whole, Field(ge=0)] | None = None
    """None: as ``train.frozen_stages``."""
    drop_path_rate: Annotated[Number, Field(ge=0, lt=1)] | None = None
    """None: as ``model.drop_path_rate``; must be 0 for a backbone without stochastic depth."""
    learning_rate: Positive | None = None
    """None: as ``train.learning_rate``."""


class Ensemble(Section):
    """Several training runs that differ in seed or backbone, made into one network."""

    members: Annotated[Whole, Field(ge=1)] = 1
    """Training runs of each backbone, with the seeds ``seed``, ``seed`` + 1 and so on."""
    backbones: tuple[OtherBackbone, ...] = ()
    """Beside ``model.backbone``."""
    combine: Literal["average", "distil"] = "average"
    """average: the graph holds all members and gives their mean logit, in which none counts as lower than
    the loss wants a negative. distil: one network learns from them."""
    teacher_share: Annotated[Number, Field(gt=0, le=1)] = 0.5
    """For ``distil``: weight of the members' probabilities in the loss; the labels have the rest."""

    @model_validator(mode="after")
    def _require_teachers(self) -> Self:
        if self.combine == "distil" and self.size < 2:
            raise ValueError("distil learns from several members; set members to 2 or more")
        return self

    @property
    def size(self) -> int:
        """Training runs in all; 1: there is no ensemble."""
        return self.members * (1 + len(self.backbones))

    def recipe(self) -> dict[str, Any]:
        """What decides the result, and no more.

        ``backbones`` came later and is left out while empty, and so are each one's ``drop_path_rate`` and
        ``learning_rate``. ``held`` tells an average with the floor from one made before it.
        """
        content = self.model_dump(mode="json")
        if self.combine != "distil":
            del content["teacher_share"]
            content["held"] = True
        if not self.backbones:
            del content["backbones"]
        for backbone in content.get("backbones", ()):
            backbone["weights"] = _without_location(backbone["weights"])
            for came_later in ("drop_path_rate", "learning_rate"):
                if backbone[came_later] is None:
                    del backbone[came_later]
        return content


class Calibrate(Section):
    """The certificate's target and groups, and everything between a logit and an answer."""

    target_sensitivity: Share = 0.95
    confidence: Share = 0.95
    groups: tuple[GroupBy, ...] = ()
    """Groups that must reach the target too, all of them together with this confidence."""
    rule: Rule = "common_threshold"
    """One threshold for everyone, at no loss of confidence; or one for each group, splitting the error."""
    second_look: Annotated[str, StringConstraints(strip_whitespace=True)] = ""
    """The reason for using calibration cases again that have chosen a threshold before; empty: refused."""
    calibrator: Literal["platt", "beta", "temperature", "isotonic", "venn_abers", "auto"] = "platt"
    """``auto`` takes the one with the lowest cross-fitted log loss on the validation cases."""
    aggregation: Literal["max", "mean"] = "max"
    quality: QualityLimits = QualityLimits()
    red_flags: RedFlags | None = None
    """What in a history sends a case up: the rules, or a file of them, relative to the configuration file."""
    count_red_flags: bool = False
    """Whether a positive case that only a red flag sends up counts as referred. The certificate then holds
    only where the same questions are asked; without it, whether or not they are."""
    novelty_share: Annotated[Number, Field(ge=0, lt=0.5)] = 0.01
    """Share of the gradable validation photographs that the novelty gate may send up; 0 switches it off."""
    band_shares: tuple[Share, Share, Share] = (0.10, 0.25, 0.35)
    """Shares of the scored calibration cases in priority bands 1, 2 and 3; the rest is band 4."""
    deadline_hours: Annotated[Number, Field(gt=0, le=87_600)] | None = None
    """A case that has waited longer is read next, whatever its band; see ``lesion-triage queue``."""

    @model_validator(mode="after")
    def _groups_fit_the_rule(self) -> Self:
        names = [group.by for group in self.groups]
        if len(set(names)) < len(names):
            raise ValueError(f"groups name one dimension twice: {', '.join(names)}")
        if self.rule == "group_thresholds":
            if len(names) != 1 or names[0] not in KNOWN_WHEN_SERVING:
                raise ValueError(
                    "group_thresholds takes exactly one entry in groups, by something that is known of a new "
                    f"case ({', '.join(KNOWN_WHEN_SERVING)}); found {', '.join(names) or 'none'}"
                )
            if self.groups[0].small == "report":
                raise ValueError(
                    "group_thresholds needs small: route_up or small: merge: no group may be left out"
                )
        return self

    @model_validator(mode="after")
    def _require_flags_to_count(self) -> Self:
        if self.count_red_flags and self.red_flags is None:
            raise ValueError("count_red_flags needs red_flags: there is nothing to count")
        return self

    @model_validator(mode="after")
    def _require_room_for_last_band(self) -> Self:
        if sum(self.band_shares) >= 1:
            raise ValueError(f"band_shares must sum to less than 1, found {sum(self.band_shares):.6g}")
        return self


class Export(Section):
    """The exported graph and its parity gate."""

    opset: Whole = Field(default=20, ge=18, le=LARGEST_OPSET)
    views: Annotated[Literal[1, 2, 4, 8], BeforeValidator(_no_boolean)] = 1
    """Test-time augmentation: mirrored and rotated copies of each picture that the graph averages over."""
    center_crop: Annotated[Number, Field(ge=0.5, le=1)] = 1.0
    """Half of the views show the middle of the picture, this share of each side, enlarged; 1: none does."""
    parity_tolerance: Share = 1e-4
    """Largest difference of a score between torch and onnxruntime, on the validation pictures."""

    @model_validator(mode="after")
    def _require_views_to_share(self) -> Self:
        if self.center_crop < 1 and self.views == 1:
            raise ValueError("center_crop needs views of 2 or more: half of them show the middle")
        return self

    def recipe(self) -> dict[str, Any]:
        """What decides the result. ``center_crop`` came later and is left out where no view is cropped."""
        content = self.model_dump(mode="json")
        if self.center_crop == 1:
            del content["center_crop"]
        return content


class Evaluate(Section):
    """The report."""

    bootstrap_draws: Whole = Field(default=2000, ge=100)
    seed: Seed = 0


AcceptableCode = Literal[
    "contradictory_labels",
    "source_shortcut",
    "size_shortcut",
    "missingness",
    "frame_shortcut",
    "file_size_shortcut",
    "dark_corners",
    "hair",
    "ink",
    "ruler",
    "patches",
]
"""Findings of the audit that may say fail and that a person may accept. Leakage is not among them."""


class Audit(Section):
    """What the audit calls a warning and a failure, and which failures were accepted on purpose."""

    pictures: Whole = Field(default=1000, ge=0)
    """How many pictures are opened to look for artefacts and skin tone; 0 opens none."""
    seed: Seed = 0
    """Which photograph represents its unit, which are opened, and how folds are drawn."""
    warn_auroc: Annotated[Number, Field(gt=0.5, lt=1)] = 0.65
    """A baseline that sees no lesion warns when the lower end of its AUROC's interval is above this."""
    fail_auroc: Annotated[Number, Field(gt=0.5, lt=1)] = 0.80
    """As ``warn_auroc``, for failure."""
    warn_odds_ratio: Annotated[Number, Field(ge=1)] = 1.5
    """An artefact or an empty cell warns when the confidence interval of its odds ratio with the label
    lies beyond this, in either direction."""
    fail_odds_ratio: Annotated[Number, Field(ge=1)] = 10.0
    """As ``warn_odds_ratio``, for failure; the shares must differ by a tenth as well."""
    false_alarm: Share = 0.01
    """Chance that a family of such tests warns although nothing is associated (Holm)."""
    accept: dict[AcceptableCode, Annotated[str, Field(min_length=10)]] = {}
    """Failures that do not stop ``run``: code and reason. The reason names every source or column that
    the finding names."""

    @model_validator(mode="after")
    def _require_ordered_limits(self) -> Self:
        if self.warn_auroc > self.fail_auroc or self.warn_odds_ratio > self.fail_odds_ratio:
            raise ValueError("a limit for a warning must not be above the one for a failure")
        return self


class Tracking(Section):
    """MLflow. The default is a database under experiments/; any tracking URI will do."""

    enabled: bool = True
    uri: str | None = None
    experiment: str = "lesion-triage"


class Config(Section):
    """One run."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    seed: Annotated[Whole, Field(ge=0, le=LARGEST_SEED)] = 0
    """Training seed: initialisation, order, augmentation."""
    data: Data
    split: Split = Split()
    pixels: PixelSpec = PixelSpec(size_px=160)
    model: Model = Model()
    train: Train = Train()
    ensemble: Ensemble = Ensemble()
    calibrate: Calibrate = Calibrate()
    export: Export = Export()
    evaluate: Evaluate = Evaluate()
    audit: Audit = Audit()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _refuse_probe_with_distil(self) -> Self:
        if self.train.probe and self.ensemble.combine == "distil":
            raise ValueError(
                "ensemble.combine distil needs pictures, and train.probe trains on embeddings; use average"
            )
        return self

    @model_validator(mode="after")
    def _require_seeds_for_members(self) -> Self:
        if self.seed + self.ensemble.members - 1 > LARGEST_SEED:
            raise ValueError(f"the seeds of the members of an ensemble go up to {LARGEST_SEED}; lower seed")
        return self

    @model_validator(mode="after")
    def _refuse_equal_members(self) -> Self:
        members = [(member.seed, member.model, member.train) for member in self.members()]
        if len(set(members)) < len(members):
            raise ValueError(
                "ensemble.backbones names one network twice, model.backbone included, and the same training "
                "run would count twice; give it weights or a rate of its own, or raise ensemble.members"
            )
        return self

    def members(self) -> tuple[Self, ...]:
        """The members of an ensemble, each the configuration of a run of its own; empty without an ensemble.

        Ordered by backbone, that of ``model`` first, then by seed.
        """
        if self.ensemble.size == 1:
            return ()
        alone = self.model_copy(update={"ensemble": Ensemble()})
        return tuple(
            one.model_copy(update={"seed": self.seed + number})
            for one in (alone, *map(alone._with_backbone, self.ensemble.backbones))
            for number in range(self.ensemble.members)
        )

    def _with_backbone(self, other: OtherBackbone) -> Self:
        rate = self.model.drop_path_rate if other.drop_path_rate is None else other.drop_path_rate
        own = {"backbone": other.backbone, "weights": other.weights, "drop_path_rate": rate}
        model = self.model.model_copy(update=own)
        frozen = self.train.frozen_stages if other.frozen_stages is None else other.frozen_stages
        learning_rate = self.train.learning_rate if other.learning_rate is None else other.learning_rate
        train = self.train.model_copy(update={"frozen_stages": frozen, "learning_rate": learning_rate})
        return self.model_copy(update={"model": model, "train": train})

    def served_backbones(self) -> tuple[str, ...]:
        """Names of the networks in the exported graph, each once."""
        averaged = self.members() if self.ensemble.combine == "average" else ()
        return tuple(dict.fromkeys(one.model.backbone for one in averaged or (self,)))

    def identity_sha256(self) -> str:
        """Hash that identifies the run, wherever data, weights and tracking live.

        ``train.accelerator`` and ``train.workers`` decide no result, but are in the hash of every run so far.
        Another value makes another folder, into which what is finished is taken over.
        """
        content = self.model_dump(mode="json", exclude={"tracking", "data"})
        content["data"] = self.data.identity()
        content["model"]["weights"] = _without_location(self.model.weights)
        content["export"] = self.export.recipe()
        if self.ensemble.size == 1:
            del content["ensemble"]  # so that a run from before the section existed is known again
        else:
            content["ensemble"] = self.ensemble.recipe()
        content["train"] = {
            "accelerator": self.train.accelerator,
            "workers": self.train.workers,
            **self.train.recipe(),
        }
        return sha256_of(canonical_json(content).encode())

    def to_yaml(self) -> str:
        """The resolved configuration as YAML, with every default spelt out."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        return text
