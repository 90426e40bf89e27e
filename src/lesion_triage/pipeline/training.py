"""From pictures to a graph and its logits: the stages train and predict, in one process or in several."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lesion_triage import runs
from lesion_triage.config import Config
from lesion_triage.console import echo, progress_bar
from lesion_triage.errors import ConfigError, RunError
from lesion_triage.pipeline.pictures import data_root, records, table_sha256
from lesion_triage.runs import Run
from lesion_triage.tracking import Tracker

if TYPE_CHECKING:
    from lesion_triage.predictions import Predictions

CURVE = "learning_curve.json"
PARTIAL_STATE_COPY = ".train_state.half"
"""Temporary name of a training state that is being copied here from another run."""
PREDICT_OUTPUTS = (
    "model.onnx",
    *(f"predictions/{name}.{kind}" for name in ("validation", "calibration") for kind in ("csv", "json")),
)


def require_weights(config: Config) -> None:
    """Raise unless every file of initial weights is there: the data take long to read, so this comes before.

    Raises:
        RunError: one does not exist, or is a folder.
    """
    for one in config.members() or (config,):
        if one.model.weights not in ("hub", "none"):
            _require_weights_file(Path(one.model.weights))


def _require_weights_file(path: Path) -> None:
    if path.is_dir():
        raise RunError(f"{path}: is a folder; expected one safetensors file (model.weights).")
    if not path.is_file():
        raise RunError(f"{path}: no such weights file (model.weights).")


def train_inputs(run: Run) -> object:
    """Everything that decides the weights: seed, pixels, network, recipe; not where or on what it is trained.

    For an ensemble: everything that decides its members, and how they are combined.

    Raises:
        RunError: as ``require_weights``.
    """
    config = run.config
    if members := config.members():
        return config.ensemble.recipe(), [train_inputs(replace(run, config=member)) for member in members]
    weights = config.model.weights
    if weights not in ("hub", "none"):
        path = Path(weights)
        _require_weights_file(path)
        weights = runs.file_sha256(path)
    network = config.model.model_dump(mode="json", exclude={"weights"})
    return config.seed, config.pixels.model_dump(), network, weights, config.train.recipe()


def training_key(run: Run) -> str:
    """Hash of everything that decides a training run; a state with another key is never resumed."""
    return runs.inputs_sha256(
        decides=train_inputs(run), manifest=table_sha256(run, "manifest"), split=table_sha256(run, "split")
    )


def train(
    run: Run,
    tracker: Tracker,
    watch: Callable[[Mapping[str, float]], None] = lambda line: None,
    members: Sequence[Path] = (),
) -> None:
    """Stage 'train'. For an ensemble, whose members have been trained before: combine them into one network.

    Args:
        run: the run.
        tracker: receives each epoch, once.
        watch: receives each line of the curve, including those from before a resumption. An exception from
            it ends the training, and the state of the epoch before is kept.
        members: folders in which an ensemble's members were trained; one may have a newer run by now.
    """
    from lesion_triage.bundle.document import canonical_json
    from lesion_triage.bundle.files import write_atomically
    from lesion_triage.train import checkpoint

    require_positives(run)  # known now; after the training it would cost an hour to find out
    config = run.config
    assert len(members) == len(config.members())
    lines: list[dict[str, float]] = []
    if members and config.ensemble.combine == "average":
        echo(f"  one network of {len(members)}, whose logits are averaged")
        checkpoint.save_averaged_ensemble(run.folder, members, config)
    else:
        lines = _train_network(run, tracker, watch, members)
    write_atomically(run.folder / CURVE, canonical_json(lines).encode())


def _train_network(
    run: Run, tracker: Tracker, watch: Callable[[Mapping[str, float]], None], teachers: Sequence[Path]
) -> list[dict[str, float]]:
    """Train one network, and return its learning curve."""
    from lesion_triage.data import pixel_cache
    from lesion_triage.train import loop

    preflight_check(run.config)  # before all pictures are decoded
    if teachers:
        echo(f"  a student of {len(teachers)} networks")
    root = data_root(run)
    pictures = {}
    for name in ("train", "validation"):
        found = records(run, name)
        with progress_bar(f"decoding {name}") as tick:
            pixels = pixel_cache.load_pixels(found, root, run.config.pixels, pixel_cache_of(run), tick)
        pictures[name] = loop.Pictures(found, pixels)
    epochs = run.config.train.epochs
    log_epoch = _epoch_logger(tracker)

    def on_epoch(line: loop.EpochMetrics) -> None:
        echo(
            f"  epoch {line.epoch}/{epochs}: loss {line.loss:.4f}, "
            f"validation AUROC {line.validation_auroc:.4f}, {line.seconds:.0f} s"
        )
        log_epoch(asdict(line))
        watch(asdict(line))

    with progress_bar("training") as tick, progress_bar("embedding") as embedding:
        listener = loop.Listener(
            on_batch=lambda epoch, done, batches: tick(epoch * batches + done, epochs * batches),
            on_epoch=on_epoch,
            on_embedding=embedding,
            on_note=lambda sentence: echo(f"  {sentence}"),
        )
        curve = loop.train(
            run.config,
            pictures["train"],
            pictures["validation"],
            run.folder,
            training_key(run),
            listener,
            teachers,
        )
    return [asdict(line) for line in curve]


def preflight_check(config: Config) -> None:
    """Check, before hours of training, that a network can be built, takes its pictures and can be exported.

    With random initial weights the export is not tried: such runs are trials, shorter than an export.

    Raises:
        TrainingError: it cannot be built, or does not take pictures of one of the sides.
        ExportError: it cannot be written as ONNX.
    """
    from lesion_triage.train import preflight

    preflight.check_network(config)
    if config.model.weights != "none":
        _check_exportable(config.model.backbone, config.pixels.size_px, config.export.opset)


@cache
def _check_exportable(backbone: str, size_px: int, opset: int) -> None:
    import torch

    from lesion_triage.export import onnx_graph
    from lesion_triage.train import network, weights

    echo(f"  checking that {backbone} can be exported")
    with torch.random.fork_rng(devices=[]):
        body = weights.create_backbone(backbone, "none", size_px)
        onnx_graph.convert(network.TriageNetwork(body, diagnoses=2).eval(), size_px, 1, opset)


def prepare_resume(run: Run, required: bool) -> None:
    """Copy an interrupted run's state with the same inputs from another folder, if any; whole or not at all.

    Raises:
        RunError: there must be one, but no run has it; or the disk refuses the copy.
    """
    from lesion_triage.train import state_files

    key = training_key(run)
    if state_files.exists(run.folder, key):
        return
    if other := next(
        (other for other in runs.other_runs(run) if state_files.exists(other.folder, key)), None
    ):
        run.clear((state_files.FOLDER, PARTIAL_STATE_COPY))
        try:
            shutil.copytree(other.folder / state_files.FOLDER, run.folder / PARTIAL_STATE_COPY)
        except OSError as error:
            run.clear((PARTIAL_STATE_COPY,))
            raise RunError(
                f"{run.folder}: the training state of {other.folder.name} cannot be copied here "
                f"({_error_message(error)}); it is kept there. Make room and run the same command again."
            ) from None
        (run.folder / PARTIAL_STATE_COPY).rename(run.folder / state_files.FOLDER)
        echo(f"  training state reused from {other.folder.name}")
    elif required:
        raise RunError(
            f"{run.folder}: no interrupted training run of this configuration, these pictures and these "
            "weights to resume; omit --resume to start one."
        )


def _error_message(error: OSError) -> str:
    """The disk's error message; of several, that of the first file."""
    return str(error.args[0][0][2]) if isinstance(error, shutil.Error) else str(error)


def pixel_cache_of(run: Run) -> Path | None:
    """Folder of prepared pictures; None: they are decoded each time."""
    return run.cache if run.config.train.pixel_cache else None


def require_positives(run: Run) -> None:
    """Raise CalibrationError if the calibration split cannot certify the target."""
    from lesion_triage.calibrate.certificate import require_enough_positives
    from lesion_triage.data.records import unit_of_analysis

    certifying = records(run, "calibration")
    positives = {record.unit_id for record in certifying if record.needs_in_person}
    wanted = run.config.calibrate
    unit = unit_of_analysis(certifying)
    require_enough_positives(len(positives), wanted.target_sensitivity, wanted.confidence, unit=unit)


def log_learning_curve(run: Run, tracker: Tracker) -> None:
    """The tracker keeps the learning curve."""
    log_epoch = _epoch_logger(tracker)
    for line in json.loads((run.folder / CURVE).read_text(encoding="utf-8")):
        log_epoch(line)


def _epoch_logger(tracker: Tracker) -> Callable[[dict[str, float]], None]:
    """Sends an epoch to the tracker, unless its last value for that epoch is the same.

    A resumed run, and one that is taken over, sends its past epochs again. A run that started over has the
    same epochs with other numbers, and these must be kept.
    """
    logged = tracker.metric_history("train.loss")

    def log_epoch(line: dict[str, float]) -> None:
        epoch = int(line["epoch"])
        if logged.get(epoch) != line["loss"]:
            values = {f"train.{key}": value for key, value in line.items() if key != "epoch"}
            tracker.metrics(values, step=epoch)

    return log_epoch


def predict_inputs(run: Run) -> object:
    """Everything that decides the graph and its logits, besides the weights."""
    from lesion_triage import predictions

    export, quality = run.config.export, run.config.calibrate.quality.model_dump()
    cropped = (export.center_crop,) if export.center_crop < 1 else ()  # so that older results are known again
    return predictions.FORMAT, export.opset, export.views, quality, *cropped


def predict(run: Run, tracker: Tracker) -> None:
    """Stage 'predict': the graph, and its logits on the validation and calibration splits."""
    from lesion_triage.bundle.files import write_atomically
    from lesion_triage.calibrate.novelty import fit_novelty_model
    from lesion_triage.data import pixel_cache
    from lesion_triage.export import novelty, onnx_graph
    from lesion_triage.train import checkpoint

    config, export = run.config, run.config.export
    echo("  writing the network as ONNX")
    network = checkpoint.load_checkpoint(run.folder)
    plain = onnx_graph.convert(network, config.pixels.size_px, export.views, export.opset, export.center_crop)
    train = records(run, "train")
    pictures = pixel_cache.load_pixels(train, data_root(run), config.pixels, pixel_cache_of(run))
    with progress_bar("fitting the novelty gate") as tick:
        graph = novelty.attach(plain, fit_novelty_model(novelty.levels_of(plain, pictures, tick)))
    write_atomically(run.folder / "model.onnx", graph)
    for name in ("validation", "calibration"):
        predict_split(run, name, graph).write(run.folder / "predictions")


def predict_split(run: Run, name: str, graph: bytes) -> Predictions:
    """Logits of one split, computed as the server computes them."""
    from lesion_triage.data.predict import predict

    with progress_bar(f"scoring {name} in onnxruntime") as tick:
        return predict(
            graph,
            run.config.pixels,
            run.config.calibrate.quality,
            records(run, name),
            data_root(run),
            split=name,
            manifest_sha256=table_sha256(run, "manifest"),
            splits_sha256=table_sha256(run, "split"),
            progress=tick,
        )


def is_nonzero_rank() -> bool:
    """Whether this process is not rank 0: it only takes part in training that rank 0 starts.

    RANK counts under torchrun alone: a cluster may set it for each machine, and an ordinary command with a
    rank above 0 would do nothing and report success.

    Raises:
        ConfigError: the rank is no number.
    """
    variable = "RANK" if _is_torchrun() else "LOCAL_RANK"  # Fabric sets the latter for processes it starts
    rank = os.environ.get(variable, "0")
    if not rank.isdecimal():
        raise ConfigError(f"{variable} is '{rank}' in the environment; expected a whole number, or unset it.")
    return int(rank) > 0


def _is_torchrun() -> bool:
    """As ``train.distributed.is_torchrun``, without torch."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_single_process(config: Config) -> bool:
    """Whether this process trains alone. Verbs outside the pipeline require it: others would have no work."""
    return config.train.devices == 1 and os.environ.get("WORLD_SIZE", "1") == "1"


def release_other_ranks(config: Config) -> None:
    """Tell the processes beside this one that there is nothing more to train."""
    if _is_torchrun():  # there are others that wait
        from lesion_triage.train import loop

        loop.release_other_ranks(config)
