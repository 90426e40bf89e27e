"""Training beside timm's own train.py: pictures a second, processor time, and AUROC after the same epochs.

    python tests/bench_beside_timm.py --timm-train TRAIN_PY [--pictures FOLDER --weights FILE] [...]

train.py is not in timm's package. It is in https://github.com/huggingface/pytorch-image-models at the tag of
the version that is installed. FOLDER has train/0, train/1, val/0 and val/1 with pictures; without it, JPEGs
of 600 x 450 pixels are drawn.

Both sides take the same files, backbone, batch, side, optimiser (AdamW), clipping, label smoothing, averaged
weights and one loader process. timm decodes each file in every epoch, crops, mirrors and recolours it, and
has one loss. Ours reads the cache of decoded pictures (made before, not counted), augments them at level
'standard' and has a second head. Runs take turns. Counted are the steps from the fourth of an epoch to the
third before its end; processor time is that of the training and its loader together, and tells more than the
clock on a shared machine.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from sklearn.metrics import roc_auc_score

from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.config import Config
from lesion_triage.data import pixel_cache
from lesion_triage.data.records import Record
from lesion_triage.data.synthetic import draw_picture
from lesion_triage.train import loop
from lesion_triage.train.loop import Listener, Pictures

STEP = re.compile(r"(?:Train: |step )(\d+) \[? *(\d+)/(\d+)")
TICKS = os.sysconf("SC_CLK_TCK")
UNCOUNTED = 3


def drawn(folder: Path, train: int, val: int) -> None:
    """JPEGs of the official size of HAM10000."""
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            place = folder / split / str(number % 2)
            place.mkdir(parents=True, exist_ok=True)
            kind = "irregular" if number % 2 else "regular"
            draw_picture(kind, number).resize((600, 450)).save(place / f"{number}.jpg", quality=90)


def records(folder: Path, split: str) -> list[Record]:
    return [
        Record(
            image_id=path.stem,
            path=str(path.relative_to(folder)),
            lesion_id=path.stem,
            patient_id=None,
            diagnosis=path.parent.name,
            diagnosis_confirm_type="",
            needs_in_person=path.parent.name == "1",
            source="synthetic",
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            width_px=600,
            height_px=450,
        )
        for path in sorted((folder / split).rglob("*.jpg"))
    ]


def ours(a: argparse.Namespace, precision: str) -> list[str]:
    return [sys.executable, __file__, *sys.argv[1:], "--pictures", str(a.pictures), "--as", precision]


def train_ours(a: argparse.Namespace) -> None:
    """In a process of its own: the training that a user starts, telling each step."""
    config = Config.model_validate(
        {
            "name": "bench",
            "seed": a.seed,
            "data": {"source": "synthetic"},
            "pixels": {"size_px": a.size},
            "model": {"backbone": a.backbone, "weights": str(a.weights) if a.weights else "none"},
            "train": {"epochs": a.epochs, "batch_size": a.batch, "precision": a.role, "workers": 1},
        }
    )
    given = [records(a.pictures, split) for split in ("train", "val")]
    spec = PixelSpec(size_px=a.size)
    pixels = [pixel_cache.load_pixels(some, a.pictures, spec, a.pictures / "cache") for some in given]
    listener = Listener(on_batch=lambda epoch, done, of: print(f"step {epoch} {done}/{of}", flush=True))
    with tempfile.TemporaryDirectory() as folder:
        curve = loop.train(config, *map(Pictures, given, pixels), Path(folder), "bench", listener)
    print("auroc", curve[-1].validation_auroc, flush=True)


def theirs(a: argparse.Namespace, output: Path, *more: str) -> list[str]:
    start = ["--pretrained", "--pretrained-path", str(a.weights)] if a.weights else []
    device = "cuda" if torch.cuda.is_available() else "cpu"
    keys = f"""
        --data-dir {a.pictures} --train-split train --val-split val --num-classes 2 --seed {a.seed}
        --model {a.backbone} --img-size {a.size} --batch-size {a.batch} --epochs {a.epochs} --workers 1
        --opt adamw --lr 1e-3 --weight-decay 0.05 --clip-grad 5 --smoothing 0.05 --drop 0.2 --drop-path 0.1
        --sched cosine --sched-on-updates --warmup-epochs 1 --warmup-lr 0 --device {device}
        --scale 0.6 1.0 --vflip 0.5 --color-jitter 0.2 --log-interval 1 --output {output} --experiment run
        --model-ema --model-ema-decay 0.995 --model-ema-warmup"""
    return [sys.executable, str(a.timm_train), *keys.split(), *start, *more]


def their_auroc(a: argparse.Namespace, output: Path) -> float:
    """Of the averaged weights that train.py left, on the validation files as its own loader gives them."""
    from timm import create_model
    from timm.data import create_dataset, create_loader, resolve_data_config

    model = create_model(a.backbone, num_classes=2).eval()
    left = torch.load(output / "run" / "last.pth.tar", map_location="cpu", weights_only=False)
    model.load_state_dict(left["state_dict_ema"])
    facts = resolve_data_config({"img_size": a.size}, model=model)
    files = create_dataset("", root=str(a.pictures), split="val")
    batches = create_loader(
        files,
        facts["input_size"],
        64,
        mean=facts["mean"],
        std=facts["std"],
        use_prefetcher=False,
        num_workers=0,
    )
    scores, labels = [], []
    with torch.inference_mode():
        for pixels, label in batches:
            scores += model(pixels).diff(dim=1)[:, 0].tolist()
            labels += label.tolist()
    return float(roc_auc_score(labels, scores))


def cpu_seconds(process: int) -> float:
    """Processor time of a process, of those below it, and of those below it that have ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        below = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS + sum(cpu_seconds(int(child)) for child in below)


class Run:
    """One training: what a picture costs in processor milliseconds and on the clock."""

    def __init__(self, command: list[str], batch: int) -> None:
        marks: list[tuple[int, int, int, float, float]] = []
        self.said: list[str] = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                self.said.append(line)
                if found := STEP.search(line):
                    epoch, done, of = map(int, found.groups())
                    marks.append((epoch, done, of, time.perf_counter(), cpu_seconds(child.pid)))
        if child.returncode:
            raise SystemExit("".join(self.said[-30:]))
        steps, self.cpu, self.clock = 0, 0.0, 0.0
        for epoch in {mark[0] for mark in marks}:
            window = [
                mark for mark in marks if mark[0] == epoch and UNCOUNTED < mark[1] <= mark[2] - UNCOUNTED
            ]
            steps += len(window) - 1
            self.clock += window[-1][3] - window[0][3]
            self.cpu += window[-1][4] - window[0][4]
        pictures = steps * batch
        self.cpu, self.clock = 1e3 * self.cpu / pictures, 1e3 * self.clock / pictures


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--timm-train", type=Path, help="train.py of timm's repository")
    parser.add_argument(
        "--pictures", type=Path, help="folder with train/0, train/1, val/0, val/1; else drawn"
    )
    parser.add_argument("--weights", type=Path, help="ImageNet weights (safetensors) for both; else random")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--count", type=int, default=640, help="drawn pictures to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--turns", type=int, default=2, help="runs of each")
    parser.add_argument("--only", nargs="+", help="some of the lines: their names")
    parser.add_argument("--as", dest="role", help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(a: argparse.Namespace, scratch: Path) -> None:
    bf16 = ("--amp", "--amp-dtype", "bfloat16")
    sides = {
        "timm": ("--no-prefetcher",),
        "timm channels-last": ("--no-prefetcher", "--channels-last"),
        "timm channels-last bf16": ("--no-prefetcher", "--channels-last", *bf16),
        "ours 32-true": "32-true",
        "ours bf16-mixed": "bf16-mixed",
    }
    wanted = {name: how for name, how in sides.items() if not a.only or name in a.only}
    runs: dict[str, list[Run]] = {name: [] for name in wanted}
    aurocs: dict[str, list[float]] = {name: [] for name in wanted}
    for turn in range(a.turns):
        for name, how in wanted.items():
            output = scratch / f"{name}-{turn}".replace(" ", "-")
            command = ours(a, how) if isinstance(how, str) else theirs(a, output, *how)
            runs[name].append(run := Run(command, a.batch))
            said = [float(line.split()[1]) for line in run.said if line.startswith("auroc")]
            aurocs[name] += said or [their_auroc(a, output)]
            print(f"  {name}: {run.cpu:.2f} CPU ms a picture, {1e3 / run.clock:.1f} pictures/s", flush=True)
    first = next(iter(wanted))
    for name in wanted:
        pairs = list(zip(runs[first], runs[name], strict=True))
        cpu = statistics.median(one.cpu / other.cpu for one, other in pairs)
        clock = statistics.median(one.clock / other.clock for one, other in pairs)
        print(
            f"{name}: {statistics.median(run.cpu for run in runs[name]):.2f} CPU ms a picture; speed beside "
            f"{first} {cpu:.2f} by processor time, {clock:.2f} by the clock; validation AUROC "
            + ", ".join(f"{value:.3f}" for value in aurocs[name]),
            flush=True,
        )


def main() -> None:
    a = arguments()
    if a.role:
        train_ours(a)
        return
    if a.timm_train is None or not a.timm_train.is_file():
        raise SystemExit("--timm-train TRAIN_PY is needed; --help says where it is.")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if a.pictures is None:
            a.pictures = scratch / "drawn"
            drawn(a.pictures, a.count, 64)
        compare(a, scratch)


if __name__ == "__main__":
    main()
