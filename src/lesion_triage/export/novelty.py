"""The novelty gate's distance, measured on the training photographs and written into the graph.

Imports onnx, onnxruntime, numpy, ``calibrate.novelty`` and the prepared pictures of data.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.utils
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lesion_triage.bundle.parallel import thread_map
from lesion_triage.calibrate.novelty import NUMERICAL_ZERO, NoveltyModel
from lesion_triage.console import ProgressCallback
from lesion_triage.data.pixel_cache import Pixels
from lesion_triage.export.onnx_graph import LEVELS

NOVELTY = "novelty"


def levels_of(
    graph: bytes, pictures: Pixels, progress: ProgressCallback | None = None
) -> NDArray[np.float32]:
    """Channel means of the network's middle levels, shape (pictures, channels).

    One picture and one thread per call, so that the result does not depend on the number of processors. Only
    the part of the graph that the levels need is run: not the deepest stage, and one member of an ensemble.

    Args:
        graph: from ``onnx_graph.convert``, with the output ``levels``.
        pictures: shape (pictures, size_px, size_px, 3).
        progress: called with (done, total).
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    part = onnx.utils.Extractor(onnx.load_from_string(graph)).extract_model(["pixels"], [LEVELS])
    session = ort.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def one(number: int) -> NDArray[np.float32]:
        pixels = np.asarray(pictures[number])[np.newaxis]
        levels: NDArray[np.float32] = session.run([LEVELS], {"pixels": pixels})[0][0]
        return levels

    return np.stack(thread_map(one, range(len(pictures)), progress))


def attach(graph: bytes, novelty_model: NoveltyModel) -> bytes:
    """Replace the output ``levels`` by ``novelty`` float32 [N]; the same arguments give the same bytes."""
    model = onnx.load_from_string(graph)
    inside = model.graph
    output = next(output for output in inside.output if output.name == LEVELS)
    batch = output.type.tensor_type.shape.dim[0]
    novelty = helper.make_tensor_value_info(NOVELTY, TensorProto.FLOAT, [batch.dim_param or "N"])
    inside.output.remove(output)
    inside.output.append(novelty)
    for name, values in (
        ("novelty_mean", novelty_model.mean.astype(np.float32)),
        ("novelty_whitening", novelty_model.whitening.astype(np.float32)),
        ("novelty_axes", np.array([1], dtype=np.int64)),
        ("novelty_tiny", np.array(NUMERICAL_ZERO, dtype=np.float32)),
    ):
        inside.initializer.append(numpy_helper.from_array(values, name))
    inside.node.extend(
        [
            helper.make_node("ReduceL2", [LEVELS, "novelty_axes"], ["novelty_length"], keepdims=1),
            helper.make_node("Max", ["novelty_length", "novelty_tiny"], ["novelty_divisor"]),
            helper.make_node("Div", [LEVELS, "novelty_divisor"], ["novelty_direction"]),
            helper.make_node("Sub", ["novelty_direction", "novelty_mean"], ["novelty_centred"]),
            helper.make_node("MatMul", ["novelty_centred", "novelty_whitening"], ["novelty_white"]),
            helper.make_node("Mul", ["novelty_white", "novelty_white"], ["novelty_squares"]),
            helper.make_node("ReduceMean", ["novelty_squares", "novelty_axes"], [NOVELTY], keepdims=0),
        ]
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))
