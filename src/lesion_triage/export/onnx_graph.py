"""The network as one ONNX graph: uint8 pixels in; logit, embedding, levels out. Normalisation, views inside.

``export.novelty`` replaces the levels by the novelty; the sealed graph has no output of levels.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from lesion_triage.errors import ExportError
from lesion_triage.train.ensemble import Ensemble
from lesion_triage.train.network import TriageNetwork

LEVELS = "levels"

_REFLECTIONS = frozenset({1, 2, 4, 7})
"""Which of the eight symmetries, in the order of ``_symmetries``, are mirrored; the others are rotations."""


class Views(nn.Module):
    """The network averaged over symmetries of the square: skin has no upright.

    Number of views: 1: as it is. 2: and mirrored. 4: and both upside down. 8: and all of them transposed.
    Logits, embeddings and levels are means over the views.

    With ``center_crop`` below 1 the mirrored half of the views shows the middle of the picture, that share
    of each side, enlarged. The other half are rotations, so eight views still answer the same however the
    camera was turned.

    Raises:
        ValueError: one view, which would show the middle or the whole.
    """

    def __init__(self, network: nn.Module, views: int, center_crop: float = 1.0) -> None:
        super().__init__()
        if center_crop < 1 and views == 1:
            raise ValueError("a centre crop needs two views or more")
        self.network = network
        self.views = views
        self.center_crop = center_crop

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels [N, size, size, 3] uint8 -> (logit [N], embedding [N, width], levels [N, channels])."""
        if self.views == 1:
            logit, embedding, levels = self.network(pixels)
            return logit, embedding, levels
        stacked_views = _symmetries(pixels, self.views)
        if self.center_crop < 1:
            middle = _symmetries(_enlarged_middle(pixels, self.center_crop), self.views)
            stacked_views = [
                middle[number] if number in _REFLECTIONS else view.to(torch.float32)
                for number, view in enumerate(stacked_views)
            ]
        # One batch: the graph holds the network once, and that is faster than one view after the other.
        results = self.network(torch.cat(stacked_views))
        logit, embedding, levels = (part.unflatten(0, (self.views, -1)).mean(0) for part in results)
        return logit, embedding, levels


def _symmetries(pixels: Tensor, number: int) -> list[Tensor]:
    """Pixels [N, size, size, 3] -> the first 2, 4 or 8 symmetries of the square, each of the same shape."""
    symmetries = [pixels, pixels.flip(2)]
    if number >= 4:
        symmetries += [view.flip(1) for view in symmetries]
    if number == 8:
        symmetries += [view.transpose(1, 2) for view in symmetries]
    return symmetries


def _enlarged_middle(pixels: Tensor, share: float) -> Tensor:
    """Pixels [N, size, size, 3] uint8 -> this share of each side, bilinear, float32 of the same shape."""
    size_px = pixels.shape[1]
    margin = round(size_px * (1 - share) / 2)
    middle = pixels[:, margin : size_px - margin, margin : size_px - margin].permute(0, 3, 1, 2)
    enlarged = functional.interpolate(middle.to(torch.float32), size=(size_px, size_px), mode="bilinear")
    return enlarged.permute(0, 2, 3, 1)


def convert(
    network: TriageNetwork | Ensemble, size_px: int, views: int, opset: int, center_crop: float = 1.0
) -> bytes:
    """Write the network as ONNX.

    Input ``pixels`` uint8 [N, size_px, size_px, 3]; outputs ``logit`` float32 [N], ``embedding`` float32
    [N, width] and ``levels`` float32 [N, channels]; N is free.

    Raises:
        ExportError: the exporter cannot express this backbone, or wrote something that is not valid ONNX.
    """
    module = Views(network, views, center_crop).eval()
    try:
        try:
            model = _export_program(module, size_px, opset)
        except Exception:
            if not _fused_attention_layers(module):
                raise
            with _unfused_attention(module):
                model = _export_program(module, size_px, opset)
        onnx.checker.check_model(model)
        written = {entry.domain: entry.version for entry in model.opset_import}.get("")
        if written != opset:  # the exporter only logs a failed conversion and returns what it had
            raise ExportError(f"the exporter wrote opset {written} where {opset} was asked for.")
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(
            f"the network could not be written as ONNX opset {opset} "
            f"({type(error).__name__}: {' '.join(str(error).split())[:300]}); try another export.opset."
        ) from None
    _strip_provenance(model)
    return bytes(model.SerializeToString(deterministic=True))


def _export_program(module: nn.Module, size_px: int, opset: int) -> onnx.ModelProto:
    pixels = torch.zeros((2, size_px, size_px, 3), dtype=torch.uint8)  # a batch size of 1 would be baked in
    with _quiet():
        program = torch.onnx.export(
            module,
            (pixels,),
            input_names=["pixels"],
            output_names=["logit", "embedding", LEVELS],
            dynamic_shapes={"pixels": {0: torch.export.Dim("N", min=1)}},
            opset_version=opset,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        if program is None:
            raise ExportError("the exporter returned nothing.")
        return program.model_proto


def _fused_attention_layers(module: nn.Module) -> list[nn.Module]:
    """Layers of timm with fused attention, a torch operation that the exporter supports only in part."""
    return [layer for layer in module.modules() if getattr(layer, "fused_attn", False) is True]


@contextmanager
def _unfused_attention(module: nn.Module) -> Iterator[None]:
    """Compute attention unfused: the same numbers up to rounding."""
    layers: list[Any] = _fused_attention_layers(module)
    for layer in layers:
        layer.fused_attn = False
    try:
        yield
    finally:
        for layer in layers:
            layer.fused_attn = True


def _strip_provenance(model: onnx.ModelProto) -> None:
    """Drop the stack traces and source paths that the exporter writes into nodes: they name the machine."""
    graphs = [model.graph, *model.functions]
    for graph in graphs:
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
        del graph.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.metadata_props[:]
    model.doc_string = ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's deprecation warnings and progress, which concern only its internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
