"""The native engine for CPUs: one call of compiled C per step, with weights mapped from their file or quantized."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from gptkit.decoding.engines import NativeUnavailableError, Piece
from gptkit.decoding.native.library import (
    FORMATS,
    PRECISIONS,
    Buffers,
    Cache,
    CPiece,
    Layer,
    Matrix,
    Model,
    native_library,
)
from gptkit.decoding.text_options import Precision
from gptkit.model_files import GPTShape, not_finite
from gptkit.system.limits import usable_processors

ACTIVATIONS = {"gelu_new": 0, "gelu": 1}  # as numbered in layers.h
WeightFormat = Literal["fp32", "bf16", "int8", "int4"]
# the cache, as precise as activations
CACHED: dict[str, np.dtype[Any]] = {"fp32": np.dtype("f4"), "bf16": np.dtype("u2"), "int8": np.dtype("i1")}
MOST_TOKENS = 256  # per call; longer prompts are split
BLOCK = 128  # the inputs of products are padded to a multiple of this
INT4_GROUP = 32
TILE = 16
CACHE_LINE = 64  # bytes


class NativeEngine:
    """A GPT with weights in `weight_format`, activations and cache in `precision`.

    In int8, inputs of products are rounded to 8 bits, 32 of them with one scale, and keys and values to 8 bits with one
    scale for each head; everything between the products is fp32, as are products with weights that are not quantized.

    `weights` has the names and shapes of GPTForCausalLM.state_dict(), as float32, or as uint16 for the bits of bf16;
    float32 is not copied. A row's logits are bitwise the same in any batch, except with bf16 on processors with matrix
    tiles (AMX). `library` is compiled already. Raises NativeUnavailableError without a C compiler, InputError for
    vectors and quantized weights that are not finite; other weights are not checked.
    """

    def __init__(
        self,
        shape: GPTShape,
        weights: Mapping[str, np.ndarray],
        *,
        weight_format: WeightFormat = "fp32",
        precision: Precision = "fp32",
        threads: int | None = None,
        library: tuple[ctypes.CDLL, float] | None = None,
    ) -> None:
        self._library, self.compile_seconds = library or native_library(weight_format, precision)
        self.n_positions = shape.n_positions
        self.vocab_size = shape.vocab_size
        self._shape = shape
        self.precision = precision
        self._threads = threads or available_processors()
        self._weight_format = weight_format
        self._kept: list[np.ndarray] = []  # the arrays that C points to
        self._model = self._describe(weights)
        self._cache, self._buffers = Cache(), Buffers()  # filled by `open`
        self._opened: list[np.ndarray] = []  # the arrays that these two point to
        self._tokens = 0  # maximum per call

    def open(self, rows: int, length: int) -> None:
        """Make room for `rows` empty rows of up to `length` tokens each."""
        shape, capacity = self._shape, _padded(length, TILE)
        head_dim = shape.n_embd // shape.n_head
        dtype = CACHED[self.precision]
        positions = shape.n_layer * rows * shape.n_head * capacity
        keys, values = (aligned_zeros(positions * _padded(head_dim, TILE), dtype) for _ in range(2))
        scales = [aligned_zeros(positions if self.precision == "int8" else 0, np.float32) for _ in range(2)]
        self._cache = Cache(rows, capacity, *map(_address, (keys, values, *scales)))
        self._tokens = tokens = min(MOST_TOKENS, _padded(rows * length, TILE))
        widths = [_padded(width, BLOCK) for width in (shape.n_embd, 3 * shape.n_embd, shape.n_embd, shape.inner_width)]
        floats = [aligned_zeros(tokens * width, np.float32) for width in (shape.n_embd, *widths)]
        tiles = aligned_zeros(_padded(tokens, TILE) * max(widths), np.uint16)
        rounded = tokens if self.precision == "int8" else 0
        lanes = _padded(max(widths), 256) // 16  # at most; bytes.h
        sizes = ((max(widths), "i1"), (lanes, "f4"), (lanes, "i4"), (1, "f4"))
        in_bytes: list[np.ndarray] = [aligned_zeros(rounded * size, dtype) for size, dtype in sizes]
        scratch_size = self._library.gpt_scratch_size(self._model, capacity)
        buffers: list[np.ndarray] = [*floats, *in_bytes, tiles, aligned_zeros(self._threads * scratch_size, np.float32)]
        self._buffers = Buffers(*map(_address, buffers), scratch_size)
        self._opened = [keys, values, *scales, *buffers]

    def cache_bytes(self, length: int) -> int:
        """Return the bytes that `open` allots to a row's keys and values, with their scales."""
        shape = self._shape
        vector = _padded(shape.n_embd // shape.n_head, TILE) * CACHED[self.precision].itemsize
        scale = np.dtype(np.float32).itemsize if self.precision == "int8" else 0
        return 2 * shape.n_layer * shape.n_head * _padded(length, TILE) * (vector + scale)

    def forward(self, pieces: Sequence[Piece]) -> np.ndarray:
        """Append each piece to its row; return float32 logits (wanted, vocab_size) after the tokens that want them."""
        logits = np.empty((sum(piece.wanted for piece in pieces), self.vocab_size), np.float32)
        batch: list[tuple[CPiece, Sequence[int]]] = []
        done = count = 0
        for piece in pieces:
            for start in range(0, len(piece.token_ids), self._tokens):
                ids = piece.token_ids[start : start + self._tokens]
                if count + len(ids) > self._tokens:
                    done += self._call(batch, logits[done:])
                    batch, count = [], 0
                wanted = max(0, start + len(ids) - max(start, len(piece.token_ids) - piece.wanted))
                batch.append((CPiece(piece.row, piece.start + start, len(ids), wanted), ids))
                count += len(ids)
        self._call(batch, logits[done:])
        return logits

    def _call(self, batch: list[tuple[CPiece, Sequence[int]]], logits: np.ndarray) -> int:
        """Run one forward pass in C; return how many rows of `logits` it wrote."""
        pieces = (CPiece * len(batch))(*(piece for piece, _ in batch))
        ids = np.fromiter((id for _, ids in batch for id in ids), np.int32)
        self._library.gpt_forward(
            self._model, self._cache, self._buffers, pieces, len(batch), _address(ids), _address(logits)
        )
        return sum(piece.wanted for piece, _ in batch)

    def _describe(self, weights: Mapping[str, np.ndarray]) -> Model:
        """Return the model as the C code reads it."""
        shape = self._shape
        layers = (Layer * shape.n_layer)()
        for number in range(shape.n_layer):
            name = f"transformer.h.{number}."
            for field, part in LAYER_PARTS.items():
                bias = self._vector(weights, f"{name}{part}.bias")
                if field.startswith("norm"):
                    setattr(layers[number], field, self._vector(weights, f"{name}{part}.weight"))
                    setattr(layers[number], f"{field}_bias", bias)
                else:
                    matrix = self._matrix(weights, f"{name}{part}.weight")
                    matrix.bias = bias
                    setattr(layers[number], field, matrix)
        return Model(
            n_layer=shape.n_layer,
            n_head=shape.n_head,
            n_embd=shape.n_embd,
            n_inner=shape.inner_width,
            vocab_size=shape.vocab_size,
            pre_norm=shape.pre_norm,
            activation=activation_number(shape.activation_function),
            precision=PRECISIONS[self.precision],
            threads=self._threads,
            epsilon=shape.layer_norm_epsilon,
            tokens=self._table(weights["transformer.wte.weight"]),
            positions=self._table(weights["transformer.wpe.weight"]),
            head=self._matrix(weights, "lm_head.weight"),
            layers=layers,
            norm=self._vector(weights, "transformer.ln_f.weight") if shape.pre_norm else None,
            norm_bias=self._vector(weights, "transformer.ln_f.bias") if shape.pre_norm else None,
        )

    def _matrix(self, weights: Mapping[str, np.ndarray], name: str) -> Matrix:
        """Return a weight (outputs, inputs) in the engine's format, without its bias.

        InputError if quantizing would turn NaN or infinity into numbers; unquantized, they reach the logits.
        """
        stored, scales = self._stored(weights[name])
        if scales is not None and not _is_finite(scales):
            raise not_finite(f"tensor {name} is")
        pointers = (self._keep(stored), None if scales is None else self._keep(scales), None)
        return Matrix(FORMATS[self._weight_format], *weights[name].shape, *pointers)

    def _stored(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return a weight in the engine's format, and its scales if it is quantized."""
        if self._weight_format == "bf16" and weight.dtype == np.uint16:
            return weight, None
        outputs, inputs = weight.shape
        weight = to_float(weight)
        if self._weight_format == "fp32":
            return weight, None
        if self._weight_format == "bf16":
            halves = aligned_zeros(weight.shape, np.uint16)
            self._library.gpt_to_bf16(_address(weight), weight.size, _address(halves), self._threads)
            return halves, None
        if self._weight_format == "int8":
            codes, scales = aligned_zeros((outputs, _padded(inputs, BLOCK)), np.int8), np.empty(outputs, np.float32)
            quantize = self._library.gpt_to_int8
        else:
            width = _padded(inputs, BLOCK)
            codes = aligned_zeros((outputs, width // 2), np.uint8)
            scales = np.empty((outputs, width // INT4_GROUP), np.uint16)
            quantize = self._library.gpt_to_int4
        in_integers = self.precision == "int8"
        quantize(_address(weight), outputs, inputs, _address(codes), _address(scales), in_integers, self._threads)
        return codes, scales

    def _table(self, weight: np.ndarray) -> Matrix:
        """Return an embedding, which stays in the format of its file."""
        weight_format = "bf16" if weight.dtype == np.uint16 else "fp32"
        return Matrix(FORMATS[weight_format], *weight.shape, self._keep(weight), None, None)

    def _vector(self, weights: Mapping[str, np.ndarray], name: str) -> int:
        vector = to_float(weights[name])
        if not _is_finite(vector):
            raise not_finite(f"tensor {name} is")
        return self._keep(vector)

    def _keep(self, array: np.ndarray) -> int:
        array = np.ascontiguousarray(array)
        self._kept.append(array)
        return _address(array)


LAYER_PARTS = {  # field of the C struct -> module of a block
    "attention": "attn.c_attn",
    "attention_out": "attn.c_proj",
    "mlp": "mlp.c_fc",
    "mlp_out": "mlp.c_proj",
    "norm_1": "ln_1",
    "norm_2": "ln_2",
}


def activation_number(name: str) -> int:
    """Return what layers.h calls an activation; NativeUnavailableError if it has none."""
    if name not in ACTIVATIONS:
        raise NativeUnavailableError(f"the compiled decoder lacks the activation {name}")
    return ACTIVATIONS[name]


def available_processors() -> int:
    """Return how many threads to use: the processors that this process may use, at most OMP_NUM_THREADS."""
    usable = usable_processors()
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # one number per nesting level
    return min(usable, int(asked)) if asked.isdigit() and int(asked) > 0 else usable


def to_float(array: np.ndarray) -> np.ndarray:
    """Return an array as float32; uint16 holds the bits of bf16."""
    if array.dtype != np.uint16:
        return np.ascontiguousarray(array, np.float32)
    return (array.astype(np.uint32) << 16).view(np.float32)


def _is_finite(array: np.ndarray) -> bool:
    """Return whether all values are finite, of float32 or of the bits of bf16."""
    if array.dtype == np.uint16:
        return not bool(((array & 0x7F80) == 0x7F80).any())
    return bool(np.isfinite(array).all())


def aligned_zeros(shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return zeros that begin with a cache line: a vector that spans two takes two loads."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    zeros: np.ndarray = memory[start : start + size].view(dtype).reshape(shape)
    return zeros


def _padded(width: int, unit: int) -> int:
    return -(-width // unit) * unit


def _address(array: np.ndarray) -> int:
    return array.ctypes.data
