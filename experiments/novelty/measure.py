"""Which distance tells unfamiliar photographs best? Prints the table of docs/unfamiliar-pictures.md.

Detectors are fitted on the split train, their limits are set on validation, and nothing here reads
calibration or test. Needs the training environment: ``python experiments/novelty/measure.py --help``.
"""

from __future__ import annotations

import argparse
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from scipy.stats import rankdata

from lesion_triage import config_file, runs
from lesion_triage.bundle.document import canonical_json, sha256_of
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.quality import assess_quality
from lesion_triage.calibrate.novelty import SHRINKAGE, fit_novelty_model
from lesion_triage.config import Config
from lesion_triage.console import echo, progress_bar
from lesion_triage.data import manifest, split
from lesion_triage.data.manifest import read_picture
from lesion_triage.data.records import Record
from lesion_triage.export.onnx_graph import convert
from lesion_triage.train import checkpoint

Floats = NDArray[np.float64]
Outputs = dict[str, Floats]
Detector = Callable[[Outputs], Floats]
DRAWS = 2000
CHOSEN = "Mahalanobis, middle levels, length 1"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run that has been trained")
    parser.add_argument("--data-root", type=Path, required=True, help="folder of its dataset")
    parser.add_argument(
        "--outside", action="append", default=[], metavar="NAME=DIR", help="other photographs"
    )
    parser.add_argument("--note", default="", help="stands in results.json")
    parser.add_argument("--changed", type=int, default=200, help="validation photographs to change")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    arguments = parser.parse_args()

    settings = config_file.load(arguments.run / "config.yaml", (), arguments.data_root, frozen=True)
    dataset_manifest, digest = manifest.read(arguments.run)
    splits, _ = split.read(arguments.run, digest)
    by_id = {record.image_id: record for record in dataset_manifest.records}
    train, validation = ([by_id[i] for i in splits.image_ids(name)] for name in ("train", "validation"))
    session = _session(
        convert(
            checkpoint.load_checkpoint(arguments.run),
            settings.pixels.size_px,
            settings.export.views,
            settings.export.opset,
            settings.export.center_crop,
        )
    )

    def run(files: Sequence[bytes], name: str) -> tuple[Outputs, NDArray[np.bool_]]:
        return _run(session, settings, files, name)

    root = arguments.data_root
    train_outputs, train_gradable = run([read_picture(root, record) for record in train], "train")
    validation_outputs, validation_gradable = run(
        [read_picture(root, record) for record in validation], "validation"
    )
    units = np.array([record.unit_id for record in validation])[validation_gradable]
    outside = {}
    for name, folder in (text.split("=", 1) for text in arguments.outside):
        paths = sorted(path for path in Path(folder).rglob("*") if path.suffix in (".jpg", ".png"))
        outside[name] = (
            *run([path.read_bytes() for path in paths], name),
            np.array([_unit_of_file(p) for p in paths]),
        )
    detectors = _detectors(
        _select_rows(train_outputs, train_gradable),
        np.array([record.diagnosis for record in train])[train_gradable],
    )
    rows = []
    for name, detector in detectors.items():
        inside = detector(_select_rows(validation_outputs, validation_gradable))
        limit = _limit(inside, settings.calibrate.novelty_share)
        row: dict[str, object] = {"detector": name}
        for group, (outputs, gradable, group_units) in outside.items():
            found = detector(_select_rows(outputs, gradable))
            row[group] = {
                "photographs": gradable.size,
                "refused_by_quality": int(np.count_nonzero(~gradable)),
                "sent_up": float(np.mean(np.concatenate([found >= limit, np.ones((~gradable).sum())]))),
                "auroc": _auroc(inside, found),
                "interval": _interval(inside, units, found, group_units[gradable]),
            }
        rows.append(row)
    _print(rows, list(outside))
    chosen = detectors[CHOSEN]
    values = chosen(_select_rows(validation_outputs, validation_gradable))
    limit = _limit(values, settings.calibrate.novelty_share)
    kept = [record for record, ok in zip(validation, validation_gradable, strict=True) if ok]
    slices = dict(_slices(kept, values >= limit))
    for name, found_slice in slices.items():
        echo(f"  validation, {name}: {found_slice['sent_up']} of {found_slice['photographs']}")
    changed: dict[str, dict[str, Any]] = {}
    for name, change in _CHANGES.items():
        sample = validation[:: max(1, len(validation) // arguments.changed)]
        outputs, gradable = run([change(read_picture(root, record)) for record in sample], name)
        changed[name] = {
            "photographs": len(sample),
            "refused_by_quality": int(np.count_nonzero(~gradable)),
            "sent_up": {
                key: float(
                    np.mean(
                        detectors[key](_select_rows(outputs, gradable))
                        >= _limit(
                            detectors[key](_select_rows(validation_outputs, validation_gradable)),
                            settings.calibrate.novelty_share,
                        )
                    )
                )
                for key in (
                    CHOSEN,
                    "Mahalanobis, middle levels",
                    "kNN (10), middle levels",
                    "Mahalanobis, embedding",
                )
            },
        }
        shares = ", ".join(f"{key} {share:.3f}" for key, share in changed[name]["sent_up"].items())
        echo(f"  validation, {name}: {shares}")
    result = {
        "note": arguments.note,
        "checkpoint_sha256": runs.file_sha256(arguments.run / "checkpoint.safetensors"),
        "manifest_sha256": digest,
        "split_fitted_on": "train",
        "split_of_limits": "validation",
        "photographs": {"train": int(train_gradable.sum()), "validation": int(validation_gradable.sum())},
        "novelty_share": settings.calibrate.novelty_share,
        "draws": DRAWS,
        "chosen": CHOSEN,
        "limit": limit,
        "detectors": rows,
        "validation_sent_up": slices,
        "changed_validation_photographs": changed,
    }
    arguments.out.write_text(canonical_json(result), encoding="utf-8")
    echo(f"  {arguments.out} ({sha256_of(arguments.out.read_bytes())[:16]})")


def _session(graph: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _run(
    session: ort.InferenceSession, settings: Config, files: Sequence[bytes], name: str
) -> tuple[Outputs, NDArray[np.bool_]]:
    """Outputs of all photographs, and which of them the quality gate lets through."""

    def one(data: bytes) -> tuple[dict[str, NDArray[np.float32]], bool]:
        picture = decode(data, settings.pixels)
        names = ["logit", "embedding", "levels"]
        found = session.run(names, {"pixels": picture.pixels[np.newaxis]})
        fine = not assess_quality(picture, settings.calibrate.quality).refusals
        return {key: np.atleast_1d(value[0]) for key, value in zip(names, found, strict=True)}, fine

    results = []
    with ThreadPoolExecutor(2) as pool, progress_bar(name) as tick:
        for result in pool.map(one, files):
            results.append(result)
            tick(len(results), len(files))
    outputs = {
        key: np.stack([result[0][key] for result in results]).astype(np.float64) for key in results[0][0]
    }
    return outputs, np.array([result[1] for result in results])


def _select_rows(outputs: Outputs, kept: NDArray[np.bool_]) -> Outputs:
    return {name: values[kept] for name, values in outputs.items()}


# Detectors: higher is less familiar


def _detectors(train: Outputs, classes: NDArray[np.str_]) -> dict[str, Detector]:
    found: dict[str, Detector] = {}
    for key, name in (("levels", "middle levels"), ("embedding", "embedding")):
        values = train[key]
        found[f"Mahalanobis, {name}"] = _detector_on(key, _mahalanobis(values))
        found[f"Mahalanobis by class, {name}"] = _detector_on(
            key, _class_mahalanobis(values, classes, relative=False)
        )
        found[f"relative Mahalanobis, {name}"] = _detector_on(
            key, _class_mahalanobis(values, classes, relative=True)
        )
        found[f"Mahalanobis, {name}, length 1"] = _detector_on(key, _unit_length_mahalanobis(values))
        for k in (1, 10, 50):
            found[f"kNN ({k}), {name}"] = _detector_on(key, _knn_distance(values, k))
        found[f"residual, {name}"] = _detector_on(key, _pca_residual(values))
    found["energy of the logit"] = lambda outputs: -np.logaddexp(0.0, outputs["logit"][:, 0])
    found["uncertainty of the logit"] = lambda outputs: -np.abs(outputs["logit"][:, 0])
    return found


def _detector_on(key: str, distance: Callable[[Floats], Floats]) -> Detector:
    return lambda outputs: distance(outputs[key])


def _normalise_rows(values: Floats) -> Floats:
    lengths: Floats = values / np.linalg.norm(values, axis=1, keepdims=True)
    return lengths


def _unit_length_mahalanobis(values: Floats) -> Callable[[Floats], Floats]:
    """What is built in."""
    novelty_model = fit_novelty_model(values.astype(np.float32))
    return lambda x: novelty_model.novelty(x.astype(np.float32))


def _knn_distance(values: Floats, k: int) -> Callable[[Floats], Floats]:
    """Distance to the k-th neighbour among vectors of length 1 (Sun et al. 2022, arXiv:2204.06507)."""
    bank = _normalise_rows(values)
    return lambda x: 1 - np.partition(_normalise_rows(x) @ bank.T, -k, axis=1)[:, -k]


def _mahalanobis(values: Floats) -> Callable[[Floats], Floats]:
    """Squared distance as in ``calibrate.novelty``, of vectors as they are."""
    mean, spread = values.mean(axis=0), values.std(axis=0) + 1e-9
    shrunk = (1 - SHRINKAGE) * np.cov(((values - mean) / spread).T) + SHRINKAGE * np.eye(spread.size)
    whitening = np.linalg.cholesky(np.linalg.inv(shrunk)) / spread[:, np.newaxis]
    return lambda x: np.square((x - mean) @ whitening).mean(axis=1)


def _class_mahalanobis(
    values: Floats, classes: NDArray[np.str_], *, relative: bool
) -> Callable[[Floats], Floats]:
    """To the nearest class mean, one covariance (Lee et al. 2018); less that to all (Ren et al. 2021)."""
    means = {name: values[classes == name].mean(axis=0) for name in sorted(set(classes))}
    within = _mahalanobis(values - np.stack([means[name] for name in classes]))
    everyone = _mahalanobis(values)

    def distance(x: Floats) -> Floats:
        nearest = np.min([within(x - mean) for mean in means.values()], axis=0)
        found: Floats = nearest - everyone(x) if relative else nearest
        return found

    return distance


def _pca_residual(values: Floats, kept: float = 0.99) -> Callable[[Floats], Floats]:
    """What components of 99 % of the variance leave over (the residual of ViM, Wang et al. 2022)."""
    mean, spread = values.mean(axis=0), values.std(axis=0) + 1e-6
    variances, axes = np.linalg.eigh(np.cov(((values - mean) / spread).T))
    explained = np.cumsum(variances[::-1]) / variances.sum()
    rest = axes[:, ::-1][:, int(np.searchsorted(explained, kept)) + 1 :]
    return lambda x: np.square(((x - mean) / spread) @ rest).sum(axis=1)


# Measures


def _limit(inside: Floats, share: float) -> float:
    """As ``calibrate.novelty.novelty_limit`` where no two values are equal."""
    return float(np.sort(inside)[::-1][max(1, int(share * inside.size)) - 1])


def _auroc(inside: Floats, outside: Floats) -> float:
    ranks = rankdata(np.concatenate([inside, outside]))[inside.size :]
    return float((ranks.sum() - outside.size * (outside.size + 1) / 2) / inside.size / outside.size)


def _interval(
    inside: Floats, units: NDArray[np.str_], outside: Floats, outside_units: NDArray[np.str_]
) -> tuple[float, float] | None:
    """95 % percentile bootstrap that draws whole units; None where all photographs are one unit."""
    if len(set(outside_units)) < 2:
        return None
    rng = np.random.default_rng(0)
    parts = [
        [values[of == unit] for unit in sorted(set(of))]
        for values, of in ((inside, units), (outside, outside_units))
    ]
    bootstrap_aurocs = [
        _auroc(*(np.concatenate([part[i] for i in rng.integers(0, len(part), len(part))]) for part in parts))
        for _ in range(DRAWS)
    ]
    low, high = np.quantile(bootstrap_aurocs, (0.025, 0.975))
    return float(low), float(high)


def _unit_of_file(path: Path) -> str:
    """The patient, as PAD-UFES-20 names its files; the recording of a frame; else the photograph itself."""
    patient = re.match(r"(PAT_\d+|km_.+_\d{6})_", path.name)
    return patient.group(1) if patient else path.name


def _slices(records: Sequence[Record], sent_up: NDArray[np.bool_]) -> Iterator[tuple[str, dict[str, int]]]:
    """Who is sent up among the photographs that should not be."""
    keys = {
        "all": ["all"] * len(records),
        "needs_in_person": [f"needs_in_person {bool(record.needs_in_person)}" for record in records],
        "source": [f"source {record.source}" for record in records],
    }
    for names in keys.values():
        for name in sorted(set(names)):
            members = np.array([each == name for each in names])
            yield name, {"photographs": int(members.sum()), "sent_up": int((sent_up & members).sum())}


# Changes that leave a photograph one of the same kind


def _encode_jpeg(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _jpeg_change(change: Callable[[Image.Image], Image.Image], quality: int = 92) -> Callable[[bytes], bytes]:
    return lambda data: _encode_jpeg(change(Image.open(io.BytesIO(data)).convert("RGB")), quality)


def _resize(image: Image.Image, share: float) -> Image.Image:
    return image.resize((round(image.width * share), round(image.height * share)), Image.Resampling.LANCZOS)


def _warm_light(image: Image.Image) -> Image.Image:
    red, green, blue = image.split()
    return Image.merge(
        "RGB", (red.point(lambda v: min(255, v * 1.08)), green, blue.point(lambda v: v * 0.92))
    )


_CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "unchanged": lambda data: data,
    "JPEG quality 75": _jpeg_change(lambda image: image, 75),
    "JPEG quality 50": _jpeg_change(lambda image: image, 50),
    "0.75 times the size": _jpeg_change(lambda image: _resize(image, 0.75)),
    "turned by 90 degrees": _jpeg_change(lambda image: image.transpose(Image.Transpose.ROTATE_90)),
    "15 % darker": _jpeg_change(lambda image: ImageEnhance.Brightness(image).enhance(0.85)),
    "15 % brighter": _jpeg_change(lambda image: ImageEnhance.Brightness(image).enhance(1.15)),
    "warmer light": _jpeg_change(_warm_light),
    "slightly blurred": _jpeg_change(lambda image: image.filter(ImageFilter.GaussianBlur(1))),
}


def _print(rows: Sequence[dict[str, object]], groups: Sequence[str]) -> None:
    print("| detector | " + " | ".join(f"{group}: AUROC | sent up" for group in groups) + " |")
    print("|---|" + "---|---|" * len(groups))
    for row in rows:
        cells = []
        for group in groups:
            found = json.loads(json.dumps(row[group]))
            interval = found["interval"]
            spread = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
            cells += [f"{found['auroc']:.4f}{spread}", f"{found['sent_up']:.3f}"]
        print(f"| {row['detector']} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
