"""What a graph in 8-bit integers gains and costs: speed, AUROC on validation, the same answer everywhere.

Reads neither calibration nor test. ``python experiments/int8/measure.py --help``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from lesion_triage import config_file, pipeline
from lesion_triage.bundle.files import write_atomically
from lesion_triage.bundle.policy import aggregate_logits
from lesion_triage.calibrate.bootstrap import draw_counts, percentile_interval
from lesion_triage.calibrate.cells import Cells, Sample
from lesion_triage.calibrate.metrics import auroc
from lesion_triage.console import echo
from lesion_triage.data import pixel_cache
from lesion_triage.export.onnx_graph import convert
from lesion_triage.runs import Run
from lesion_triage.train import checkpoint

Floats = NDArray[np.float64]
DRAWS, ROUNDS = 2000, 100
SENSITIVITY = 0.95
"""Of the threshold at which decisions are compared, on the validation split itself."""


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Training pictures, one at a time, as the quantiser asks for them."""

    def __init__(self, pictures: NDArray[np.uint8]) -> None:
        self._pictures: Iterator[NDArray[np.uint8]] = iter(pictures)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next picture, or None."""
        picture = next(self._pictures, None)
        return None if picture is None else {"pixels": picture[np.newaxis]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder with a finished training")
    parser.add_argument("--data-root", type=Path, help="folder of its dataset")
    parser.add_argument("--views", type=int, choices=(1, 2, 4, 8), help="instead of the run's own")
    parser.add_argument(
        "--pictures", type=int, default=256, help="of training, to calibrate on (%(default)s)"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()

    run = Run(
        config_file.load(arguments.run / "config.yaml", (), arguments.data_root, frozen=True), arguments.run
    )
    size_px, views = run.config.pixels.size_px, arguments.views or run.config.export.views
    root, records = pipeline.data_root(run), pipeline.records(run, "validation")
    validation = pixel_cache.load_pixels(records, root, run.config.pixels, run.cache)
    training = pixel_cache.load_pixels(pipeline.records(run, "train"), root, run.config.pixels, run.cache)
    chosen = np.random.default_rng(0).choice(len(training), min(arguments.pictures, len(training)), False)
    center_crop = run.config.export.center_crop if views > 1 else 1.0
    float32_graph = convert(
        checkpoint.load_checkpoint(run.folder), size_px, views, run.config.export.opset, center_crop
    )
    int8_graph = quantise(float32_graph, np.stack([training[int(index)] for index in np.sort(chosen)]))

    all_on, all_off = ort.GraphOptimizationLevel.ORT_ENABLE_ALL, ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    sessions = {
        "float32": make_session(float32_graph, all_on),
        "float32, no optimisation": make_session(float32_graph, all_off),
        "int8": make_session(int8_graph, all_on),
        "int8, no optimisation": make_session(int8_graph, all_off),
    }
    logits = {name: logits_of(one, validation) for name, one in sessions.items()}
    cases: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        cases.setdefault(record.case_id, []).append(index)
    positive = np.array([any(records[i].needs_in_person for i in indices) for indices in cases.values()])
    units = np.unique([records[indices[0]].unit_id for indices in cases.values()], return_inverse=True)[1]
    rule = run.config.calibrate.aggregation
    case_logits = {
        name: np.array([aggregate_logits(found[indices].tolist(), rule) for indices in cases.values()])
        for name, found in logits.items()
    }
    aurocs = {name: bootstrap_aurocs(case_logits[name], positive, units) for name in ("float32", "int8")}
    loss = aurocs["float32"] - aurocs["int8"]
    interval = percentile_interval(float(loss[0]), loss[1:])
    assert interval is not None
    ratio = speed({name: sessions[name] for name in ("float32", "int8")}, validation)
    found = {
        "views": views,
        "cases": len(positive),
        "positives": int(positive.sum()),
        "auroc_float32": float(aurocs["float32"][0]),
        "auroc_int8": float(aurocs["int8"][0]),
        "auroc_loss": interval.value,
        "auroc_loss_low": interval.low,
        "auroc_loss_high": interval.high,
        "times_as_fast": ratio,
        "bytes_float32": len(float32_graph),
        "bytes_int8": len(int8_graph),
        "logit_moved_by_optimisation_float32": largest_logit_change(logits, "float32"),
        "logit_moved_by_optimisation_int8": largest_logit_change(logits, "int8"),
        "cases_moved_by_optimisation_int8": count_crossings(case_logits, "int8", positive),
        "cases_moved_by_optimisation_float32": count_crossings(case_logits, "float32", positive),
    }
    for name, value in found.items():
        echo(f"{name:40s} {value:.6g}")
    if arguments.json:
        write_atomically(arguments.json, (json.dumps(found, indent=2) + "\n").encode())


def quantise(graph: bytes, pictures: NDArray[np.uint8]) -> bytes:
    """Static quantisation in QDQ form, weights by channel, activations by the range of ``pictures``."""
    with tempfile.TemporaryDirectory() as folder:
        whole, prepared, small = (
            str(Path(folder) / f"{name}.onnx") for name in ("whole", "prepared", "small")
        )
        Path(whole).write_bytes(graph)
        quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            small,
            Calibration(pictures),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return Path(small).read_bytes()


def make_session(graph: bytes, level: ort.GraphOptimizationLevel) -> ort.InferenceSession:
    """As the scorer runs it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.graph_optimization_level = level
    options.log_severity_level = 3
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def logits_of(graph: ort.InferenceSession, pictures: pixel_cache.Pixels) -> Floats:
    """One picture at a time, as the scorer does."""
    return np.array(
        [
            float(graph.run(["logit"], {"pixels": np.asarray(pictures[index])[np.newaxis]})[0][0])
            for index in range(len(pictures))
        ]
    )


def bootstrap_aurocs(logits: Floats, positive: NDArray[np.bool_], units: NDArray[np.intp]) -> Floats:
    """AUROC over cases: of all of them, and in each draw of units."""
    ranks = np.unique(logits, return_inverse=True)[1] / len(logits)
    cells = Cells.exact(Sample.of(ranks, positive))
    draws = draw_counts(len(logits), DRAWS, 0, units)
    return np.concatenate(
        [auroc(cells, cells.sample_counts()), *(auroc(cells, cells.tally(counts)) for counts in draws)]
    )


def speed(sessions: Mapping[str, ort.InferenceSession], pictures: pixel_cache.Pixels) -> float:
    """Median processor time of the first over that of the second, in turns."""
    taken: dict[str, list[int]] = {name: [] for name in sessions}
    for turn in range(ROUNDS):
        pixels = np.asarray(pictures[turn % len(pictures)])[np.newaxis]
        for name, one in sessions.items():
            start = time.thread_time_ns()
            one.run(["logit"], {"pixels": pixels})
            taken[name].append(time.thread_time_ns() - start)
    first, second = (statistics.median(times) for times in taken.values())
    return first / second


def largest_logit_change(logits: Mapping[str, Floats], name: str) -> float:
    """Largest difference of a logit between two ways to run one file."""
    return float(np.abs(logits[name] - logits[f"{name}, no optimisation"]).max())


def count_crossings(logits: Mapping[str, Floats], name: str, positive: NDArray[np.bool_]) -> int:
    """Cases that one way to run the file refers and the other does not."""
    threshold = np.quantile(logits[name][positive], 1 - SENSITIVITY, method="lower")
    one, other = logits[name], logits[f"{name}, no optimisation"]
    return int(np.count_nonzero((one >= threshold) != (other >= threshold)))


if __name__ == "__main__":
    main()
