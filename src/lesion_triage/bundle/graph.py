"""The network as onnxruntime runs it: pixels in, logit, embedding and novelty out.

Imports numpy, onnxruntime, the schema and the exception tree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.errors import BundleError, ScoringError


@dataclass(frozen=True, slots=True, eq=False)
class GraphOutput:
    """Output of the graph for one picture."""

    logit: float
    embedding: NDArray[np.float32]
    """Shape (D,)."""
    novelty: float
    """How unlike the training photographs it is: at least 0; the mean over training is about 1."""


class Graph:
    """The network as onnxruntime runs it: pixels in, logit, embedding and novelty out. Threads may share it.

    It runs one picture at a time, on one CPU thread, so a score has the same bits whether computed alone or
    among others. Spinning is off: threads that spin while they wait would take time from other callers.
    """

    def __init__(self, data: bytes, spec: PixelSpec) -> None:
        """Load a graph.

        Args:
            data: ONNX file with input ``pixels`` uint8 [N, size_px, size_px, 3] and outputs ``logit``
                float32 [N], ``embedding`` float32 [N, D] and ``novelty`` float32 [N].
            spec: gives ``size_px``.

        Raises:
            BundleError: onnxruntime cannot load it, or its inputs or outputs differ from these.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise BundleError(f"model.onnx: onnxruntime cannot load the graph ({error}).") from None
        self._shape = (spec.size_px, spec.size_px, 3)
        self._check_contract()

    def logit(self, pixels: NDArray[np.uint8]) -> float:
        """Logit of one picture, shape (size_px, size_px, 3).

        Raises:
            ScoringError: pixels of another shape or type, or an output that is not finite.
        """
        return self.run(pixels).logit

    def run(self, pixels: NDArray[np.uint8]) -> GraphOutput:
        """All outputs for one picture, shape (size_px, size_px, 3).

        Raises:
            ScoringError: pixels of another shape or type, or a logit or a novelty that is not finite.
        """
        if pixels.shape != self._shape or pixels.dtype != np.uint8:
            raise ScoringError(
                f"Expected pixels of shape {self._shape} and type uint8, "
                f"found {pixels.shape} and {pixels.dtype}; prepare them with bundle.pixels.decode."
            )
        logits, embeddings, novelties = self._session.run(
            ["logit", "embedding", "novelty"], {"pixels": pixels[np.newaxis]}
        )
        logit, novelty = float(logits[0]), float(novelties[0])
        for name, value in (("logit", logit), ("novelty", novelty)):
            if not np.isfinite(value):
                raise ScoringError(
                    f"The graph's {name} is {value}, expected a finite number; the model is broken."
                )
        return GraphOutput(logit, embeddings[0], novelty)

    def _check_contract(self) -> None:
        found = {
            node.name: (node.type, len(node.shape))
            for node in (*self._session.get_inputs(), *self._session.get_outputs())
        }
        expected = {
            "pixels": ("tensor(uint8)", 4),
            "logit": ("tensor(float)", 1),
            "embedding": ("tensor(float)", 2),
            "novelty": ("tensor(float)", 1),
        }
        if found != expected:
            raise BundleError(
                f"model.onnx: expected type and rank of inputs and outputs {expected}, found {found}."
            )
        shape = tuple(self._session.get_inputs()[0].shape[1:])
        if shape != self._shape:
            raise BundleError(
                f"model.onnx: expected pictures of shape {self._shape} as the header says, found {shape}."
            )
