"""The matrices of an ONNX graph in 8 bits: symmetric, with a scale for each output, or for each row of embeddings.

Matrices become what onnxruntime's dynamic quantization makes of them, which would hold all weights in fp32 several
times over; here each is quantized when it is written.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir
from numpy.typing import NDArray
from onnx_ir import DataType, Graph, LazyTensor, Node, Shape, TensorType, Value
from onnx_ir.tape import Tape

LEVELS = 64  # of either sign: with more, sums saturate on processors without VNNI
SMALLEST = LEVELS * np.finfo(np.float32).tiny  # number with a scale that is not subnormal


def quantize(graph: Graph) -> None:
    """Quantize all weight matrices in place, and, at run time, what is multiplied with them."""
    for weight in [*graph.initializers.values()]:
        tensor = weight.const_value
        if isinstance(tensor, LazyTensor) and len(tensor.shape) == 2:
            _quantize_uses(graph, weight, tensor)
            del graph.initializers[str(weight.name)]
    graph.sort()


def _quantize_uses(graph: Graph, weight: Value, tensor: LazyTensor) -> None:
    """Replace the nodes that read a matrix: (in, out), or (row, n_embd) where rows are looked up."""
    nodes, tape = [use.node for use in weight.uses()], Tape(graph)
    outputs = 0 if any(node.op_type == "Gather" for node in nodes) else 1  # axis
    numbers = LazyTensor(partial(_integers, tensor, 1 - outputs), DataType.INT8, tensor.shape)
    scales = LazyTensor(partial(_scales, tensor, 1 - outputs), DataType.FLOAT, Shape([tensor.shape[outputs]]))
    integers = tape.initializer(numbers, f"{weight.name}_quantized")
    scale = tape.initializer(scales, f"{weight.name}_scale")
    for node in nodes:
        if node.op_type == "Gather":
            _look_up(graph, node, integers, scale)
        elif node.op_type == "MatMul":
            _multiply(graph, node, integers, scale)
        else:  # of a head that shares the embeddings
            node.replace_input_with(0, integers)
            [transposed] = node.outputs
            transposed.type = TensorType(DataType.INT8)
            for use in [*transposed.uses()]:
                _multiply(graph, use.node, transposed, scale)


def _look_up(graph: Graph, node: Node, rows: Value, scale: Value) -> None:
    """Replace a look-up of rows (row, n_embd) by ids (batch, length)."""
    tape, ids = Tape(graph), node.inputs[1]
    last = tape.op("Constant", [], {"value_ints": [-1]})
    scales = tape.op("Unsqueeze", [tape.op("Gather", [scale, ids]), last])  # (batch, length, 1)
    found = tape.op("Cast", [tape.op("Gather", [rows, ids])], {"to": DataType.FLOAT})
    _replace(graph, node, tape.op("Mul", [found, scales]))


def _multiply(graph: Graph, node: Node, matrix: Value, scale: Value) -> None:
    """Replace a product with a matrix (in, out)."""
    tape = Tape(graph)
    hidden, hidden_scale, zero = tape.op_multi_out("DynamicQuantizeLinear", [node.inputs[0]], num_outputs=3)
    product = tape.op("Cast", [tape.op("MatMulInteger", [hidden, matrix, zero])], {"to": DataType.FLOAT})
    _replace(graph, node, tape.op("Mul", [product, tape.op("Mul", [hidden_scale, scale])]))


def _replace(graph: Graph, node: Node, output: Value) -> None:
    [old] = node.outputs
    output.name, output.type, output.shape = old.name, old.type, old.shape
    old.replace_all_uses_with(output, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _scales(tensor: LazyTensor, axis: int) -> onnx_ir.TensorProtocol:
    return onnx_ir.tensor(scales_of(tensor.numpy(), axis))


def _integers(tensor: LazyTensor, axis: int) -> onnx_ir.TensorProtocol:
    matrix = tensor.numpy()
    scaled = matrix / np.expand_dims(scales_of(matrix, axis), axis)
    return onnx_ir.tensor(np.rint(scaled, out=scaled).astype(np.int8))


def scales_of(matrix: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return the scale of each row (axis 1) or column (axis 0) of a matrix."""
    largest = np.maximum(matrix.max(axis), -matrix.min(axis))  # np.abs would copy the matrix
    return np.where(largest < SMALLEST, np.float32(1), largest / np.float32(LEVELS))
