"""Writes tiny.onnx: a graph with the contract of a real one, small enough to be read in a hex dump.

The embedding is the picture's mean red, green and blue; the logit is (red - blue) / 10 - 5. The novelty is
the mean square of (red - 200) / 40, (green - 150) / 40 and (blue - 130) / 40: below 1 for the drawn skin.
Run it with the training environment: ``python tests/make_tiny_graph.py``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PATH = Path(__file__).with_name("tiny.onnx")
SIZE_PX = 32


def graph_bytes() -> bytes:
    """The graph, the same bytes each time."""
    weights = np.array([0.1, 0.0, -0.1], dtype=np.float32)
    offset = np.array([-5.0], dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["levels"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["levels"], ["embedding"], axes=[1, 2], keepdims=0),
            helper.make_node("MatMul", ["embedding", "weights"], ["difference"]),
            helper.make_node("Add", ["difference", "offset"], ["logit"]),
            helper.make_node("Sub", ["embedding", "skin"], ["off_skin"]),
            helper.make_node("Mul", ["off_skin", "per_spread"], ["standard"]),
            helper.make_node("Mul", ["standard", "standard"], ["squares"]),
            helper.make_node("ReduceMean", ["squares"], ["novelty"], axes=[1], keepdims=0),
        ],
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", SIZE_PX, SIZE_PX, 3])],
        [
            helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["N"]),
        ],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(offset, "offset"),
            numpy_helper.from_array(np.array([200.0, 150.0, 130.0], dtype=np.float32), "skin"),
            numpy_helper.from_array(np.array([1 / 40], dtype=np.float32), "per_spread"),
        ],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    PATH.write_bytes(graph_bytes())
