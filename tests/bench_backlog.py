"""``make bench``: what ``score-batch`` costs above a bare loop of decoder and graph, in turns.

python tests/bench_backlog.py [VIEWS]    # of the graph; 1, and 4 in the recipes
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import tiny_bundle as tiny
from lesion_triage.backlog import engine, shards, state
from lesion_triage.backlog.photographs import detect_source
from lesion_triage.bundle.graph import Graph
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.policy import decide
from lesion_triage.bundle.quality import assess_quality
from lesion_triage.bundle.schema import PixelSpec, SelfTest, SelfTestCase
from lesion_triage.bundle.scorer import Scorer, score_image
from lesion_triage.bundle.store import Bundle, seal
from lesion_triage.calibrate.novelty import fit_novelty_model
from lesion_triage.data.synthetic import draw_picture
from lesion_triage.export import novelty
from lesion_triage.export.onnx_graph import convert
from lesion_triage.train.network import TriageNetwork
from lesion_triage.train.weights import create_backbone

SIZE_PX, PICTURES, THREADS, ROUNDS = 160, 200, 2, 7

Variant = Callable[[], object]


def make_bundle(folder: Path, views: int) -> Bundle:
    """A sealed bundle: tf_efficientnet_lite0 of random weights, exported as a run exports it."""
    torch.manual_seed(0)
    spec, policy = PixelSpec(size_px=SIZE_PX), tiny.policy()
    network = TriageNetwork(create_backbone("tf_efficientnet_lite0", "none", SIZE_PX), diagnoses=2).eval()
    noise = np.random.default_rng(0).integers(0, 256, (20, SIZE_PX, SIZE_PX, 3)).astype(np.uint8)
    plain = convert(network, SIZE_PX, views, 20)
    graph = novelty.attach(plain, fit_novelty_model(novelty.levels_of(plain, noise)))
    parts, session, cases = tiny.seal_arguments(), Graph(graph, spec), []
    for file, data in parts["selftest_pictures"].items():
        found = score_image(session, spec, policy.quality, data)
        disposition = decide(policy, [found.logit]).disposition
        cases.append(
            SelfTestCase(file=file, logit=found.logit, novelty=found.novelty, disposition=disposition)
        )
    parts |= {"graph": graph, "pixels": spec, "policy": policy, "selftest": SelfTest(cases=tuple(cases))}
    return seal(folder, **parts | {"certificate": tiny.certificate_for(policy, graph)})


def write_pictures(root: Path) -> list[Path]:
    """JPEG files of 600 x 450 pixels with grain, as HAM10000 has them."""
    random, paths = np.random.default_rng(0), []
    for number in range(PICTURES):
        image = draw_picture("irregular", number % 100).resize((600, 450), Image.Resampling.BICUBIC)
        grain = random.normal(0, 4, (450, 600, 3)) + np.asarray(image)
        paths.append(root / f"{number:04d}.jpg")
        Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def in_threads(action: Callable[[Path], object], paths: Sequence[Path]) -> None:
    """A bare loop: each thread walks its share of the files, no queue between."""

    def walk(share: Sequence[Path]) -> None:
        for path in share:
            action(path)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(walk, [paths[start::THREADS] for start in range(THREADS)]))


def make_score_batch(folder: Path, bundle: Bundle, pictures: Path) -> Callable[[], None]:
    """Everything between the list of cases and the files of rows, ``score-batch`` without its start."""
    folder.mkdir()
    source = detect_source(pictures, None, "picture")
    opened, _ = shards.prepare(folder, source, bundle, state.Options(part_cases=100))
    row_builder = engine.make_row_builder(opened, bundle)

    def run() -> None:
        shutil.rmtree(folder / shards.CASES)
        (folder / shards.CASES).mkdir()
        engine.score_parts(opened, row_builder, opened.missing_parts(), THREADS, lambda _: None)

    return run


def main(views: int = 1) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(None):
        root = Path(name)
        (root / "pictures").mkdir()
        bundle, paths = make_bundle(root / "bundle", views), write_pictures(root / "pictures")
        scorer, spec, limits = Scorer(bundle), bundle.header.pixels, bundle.policy.quality
        graph = Graph(bundle.graph, spec)
        session = graph._session

        def bare(path: Path) -> None:
            session.run(["logit"], {"pixels": decode(path.read_bytes(), spec).pixels[np.newaxis]})

        def with_novelty(path: Path) -> None:
            names = ["logit", "embedding", "novelty"]
            session.run(names, {"pixels": decode(path.read_bytes(), spec).pixels[np.newaxis]})

        def gated(path: Path) -> None:
            picture = decode(path.read_bytes(), spec)
            assess_quality(picture, limits)
            graph.run(picture.pixels)

        variants: dict[str, Variant] = {
            "bare loop: decode + session.run": functools.partial(in_threads, bare, paths),
            "the same, and the novelty": functools.partial(in_threads, with_novelty, paths),
            "the same, and the quality gate": functools.partial(in_threads, gated, paths),
            "Scorer.decide_case in a bare loop": functools.partial(
                in_threads, lambda path: scorer.decide_case([path.read_bytes()]), paths
            ),
            "Scorer.score (with all texts) in a bare loop": functools.partial(
                in_threads, lambda path: scorer.score([path.read_bytes()]), paths
            ),
            "score-batch": make_score_batch(root / "out", bundle, root / "pictures"),
        }
        timings = measure_variants(variants)
    ours = timings["score-batch"]
    print(
        f"{PICTURES} JPEG of 600 x 450 to {SIZE_PX} px, tf_efficientnet_lite0, {views} view(s), "
        f"{THREADS} threads, {ROUNDS} rounds in turns, {os.cpu_count()} processors\n"
    )
    print("| way | CPU ms a picture | score-batch's pictures/s as a share: by CPU time | by wall time |")
    print("|---|---|---|---|")
    for variant, rounds in timings.items():
        cpu = statistics.median(one for one, _ in rounds) / PICTURES * 1e3
        shares = [
            spread([theirs[clock] / mine[clock] for theirs, mine in zip(rounds, ours, strict=True)])
            for clock in (0, 1)
        ]
        print(f"| {variant} | {cpu:.2f} | {shares[0]} | {shares[1]} |")


def measure_variants(variants: dict[str, Variant]) -> dict[str, list[tuple[float, float]]]:
    """CPU and wall seconds of each way in each round."""
    timings: dict[str, list[tuple[float, float]]] = {variant: [] for variant in variants}
    for number in range(ROUNDS + 1):
        for variant, action in variants.items():
            began, wall = time.process_time(), time.perf_counter()
            action()
            if number:  # the first warms up
                timings[variant].append((time.process_time() - began, time.perf_counter() - wall))
    return timings


def spread(ratios: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
