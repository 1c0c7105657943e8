"""What a training run will need, before it has begun: memory by part, disk and time, by arithmetic alone.

Parameters, gradients and the optimizer's state are counted on meta tensors, which have shapes and no memory; what the
backward pass keeps is a table of the model's intermediate results, which a test compares with autograd's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from gptkit.training.optimizers import OptimizerSet
from gptkit.training.tensor_files import safetensors_chunks

Strategy = Literal["ddp", "fsdp2"]
STRATEGIES: tuple[Strategy, ...] = ("ddp", "fsdp2")
FP32, INT64 = 4, 8  # bytes


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes that decide what a forward pass keeps; dropouts are probabilities."""

    n_layer: int
    n_embd: int
    n_inner: int
    n_head: int
    vocabulary: int
    pre_norm: bool
    embedding_dropout: float
    attention_dropout: float
    residual_dropout: float


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One forward pass: `rows` sequences of `length` tokens in a precision on a kind of device.

    `dense_length` is up to which length the model attends by plain products in 16 bit on a CPU; `chunk_elements` the
    most logits that the loss holds at once, `scored_elements` the most in an evaluation.
    """

    rows: int
    length: int
    precision: str
    device: str
    dense_length: int
    chunk_elements: int
    scored_elements: int
    checkpointing: bool = False
    has_loss_head: bool = True

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    @property
    def element(self) -> int:
        """Return the bytes of an entry of a matrix product."""
        return FP32 if self.precision == "fp32" else 2


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """A forward pass of an evaluation, without gradients; `has_head` tells whether each token's logits are made."""

    tokens: int
    has_head: bool


def layer_activations(shape: Shape, one: Pass) -> dict[str, int]:
    """Return by name the bytes that autograd keeps of one block's forward pass.

    name                    entries a token       bytes an entry
    ----------------------  --------------------  ----------------------------------------------
    residual stream         2 n_embd              4 (what ln_1 and ln_2 read)
    layer-norm statistics   4                     4 (mean and deviation, twice)
    c_attn input            n_embd                element (2, in fp32 4)
    query, key, value       3 n_embd              element; 4 where dropout makes SDPA fall back in fp32
    attention weights       n_head length         element, the same; none where SDPA's flash kernel runs
    attention dropout       2 n_head length       the same: the mask and the dropped weights, if any
    log-sum-exp             n_head                4, where the flash kernel runs
    attended values         n_embd                element (c_proj's input)
    c_fc input              n_embd                element
    MLP                     2 n_inner             element (before and after the activation)
    residual dropout masks  2 n_embd              element on a CPU, 1 on a GPU, if any
    """
    tokens, width, element = one.tokens, shape.n_embd, one.element
    is_flash, attention = _attention(shape, one)
    scores = tokens * shape.n_head * one.length * attention
    mask = element if one.device == "cpu" else 1
    return {
        "residual stream": tokens * 2 * width * FP32,
        "layer-norm statistics": tokens * 4 * FP32,
        "c_attn input": tokens * width * element,
        "query, key, value": tokens * 3 * width * attention,
        "attention weights": 0 if is_flash else scores,
        "attention dropout": 2 * scores if shape.attention_dropout and not is_flash else 0,
        "log-sum-exp": tokens * shape.n_head * FP32 if is_flash else 0,
        "attended values": tokens * width * element,
        "c_fc input": tokens * width * element,
        "MLP": tokens * 2 * shape.n_inner * element,
        "residual dropout masks": tokens * 2 * width * mask if shape.residual_dropout else 0,
    }


def _attention(shape: Shape, one: Pass) -> tuple[bool, int]:
    """Return whether no attention weights are kept, and the bytes of an entry of what attention multiplies."""
    if one.device != "cpu":
        return True, one.element
    if one.precision != "fp32" and one.length <= one.dense_length:
        return False, one.element
    has_dropout = shape.attention_dropout > 0  # the CPU's flash kernel has none
    return not has_dropout, FP32 if has_dropout else one.element


def activations(shape: Shape, one: Pass) -> int:
    """Return the bytes that autograd keeps of the whole body; with checkpointing each block's input and one block."""
    layer, tokens = sum(layer_activations(shape, one).values()), one.tokens
    blocks = shape.n_layer * layer
    if one.checkpointing:
        blocks = shape.n_layer * tokens * shape.n_embd * FP32 + layer
    ids = tokens * INT64 + one.length * INT64
    embedding_mask = FP32 if one.device == "cpu" else 1
    dropped = tokens * shape.n_embd * embedding_mask if shape.embedding_dropout else 0
    last_norm = tokens * (shape.n_embd + 2) * FP32 if shape.pre_norm else 0
    return ids + dropped + blocks + last_norm


def weight_copies(model: nn.Module, one: Pass) -> int:
    """Return the bytes of the 16-bit copies that autocast makes of the blocks' matrices."""
    if one.precision == "fp32":
        return 0
    named = dict(model.named_parameters())
    return sum(2 * tensor.numel() for name, tensor in named.items() if tensor.ndim == 2 and _in_block(name))


def _in_block(name: str) -> bool:
    return any(part.isdigit() for part in name.split("."))


def loss_buffers(shape: Shape, one: Pass) -> int:
    """Return the bytes of the chunked loss at its fullest.

    Three chunks of logits (those, their gradient, and one of the chunk before), the head's weight transposed and, in 16
    bit, cast; the weight's gradient in fp32 and a chunk's part of it; hidden states cast, and their gradient.
    """
    if not one.has_loss_head:
        return 0
    element, head, hidden = one.element, shape.vocabulary * shape.n_embd, one.tokens * shape.n_embd
    casts = (head + hidden) * element if element < FP32 else 0
    kept = hidden * (element + FP32) + head * (FP32 + 2 * element)
    return 3 * chunk_logits(shape, one.tokens, one.chunk_elements) * element + casts + kept


def chunk_logits(shape: Shape, tokens: int, most: int) -> int:
    """Return how many logits of so many tokens are made at once, `most` at most."""
    rows = max(1, most // shape.vocabulary)
    return -(-tokens // -(-tokens // rows)) * shape.vocabulary


def scoring_activations(shape: Shape, one: Pass, scoring: Scoring) -> int:
    """Return the bytes of an evaluation's pass in the middle of an MLP: residual stream, norm, before and after."""
    return scoring.tokens * (2 * shape.n_embd * FP32 + 2 * shape.n_inner * one.element)


def scoring_logits(shape: Shape, one: Pass, scoring: Scoring) -> int:
    """Return the bytes of an evaluation's chunk of logits and of their log-softmax, both in fp32.

    On a CPU also of the 16-bit logits before them: freed by then, but nothing that follows fits into their place.
    """
    if not scoring.has_head:
        return 0
    before = one.element if one.device == "cpu" and one.element < FP32 else 0
    return chunk_logits(shape, scoring.tokens, one.scored_elements) * (2 * FP32 + before)


def state_on_meta(optimizer: OptimizerSet) -> dict[str, Tensor]:
    """Return the state that an optimizer over meta tensors keeps after a step, by `parameter/field`."""
    for parameter in optimizer.parameters():
        parameter.grad = torch.empty_like(parameter)
    for part in optimizer.parts:
        part.step()
    optimizer.zero_grad()
    return optimizer.state_tensors()


def bytes_of(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def file_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return the size of the safetensors file that would hold these tensors."""
    header = next(safetensors_chunks(tensors))
    return memoryview(header).nbytes + bytes_of(tensors)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one process, by part; `total` is their sum.

    gathered: what FSDP2 makes whole; evaluation: what an evaluation takes beyond training's fullest moment; reserve:
    the library, and what the allocator cannot use again.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    gathered: int
    evaluation: int
    reserve: int

    @property
    def total(self) -> int:
        return sum(vars(self).values())


def memory(
    model: nn.Module,
    state: Mapping[str, Tensor],
    shape: Shape,
    one: Pass,
    scoring: Scoring,
    *,
    strategy: Strategy,
    processes: int,
    library: int,
) -> Memory:
    """Return the memory of one process at its fullest; `library` is what it holds without a model.

    DDP holds everything on each process, all gradients in the middle of the loss. FSDP2 shares out weights, gradients
    and state by rows; `gathered_parameters` tells what is whole in a pass, and an evaluation has the whole weights in
    fp32 beside the shares. The 16-bit copies of autocast are kept for the backward pass, whole, in either.
    """
    weights = bytes_of(dict(model.named_parameters()))
    shares = processes if strategy == "fsdp2" else 1
    logits = loss_buffers(shape, one)
    found = Memory(
        weights=-(-weights // shares),
        gradients=-(-weights // shares),
        optimizer=-(-bytes_of(state) // shares),
        activations=activations(shape, one) + weight_copies(model, one),
        logits=logits,
        gathered=gathered_parameters(model, shape, loss=logits) if shares > 1 else 0,
        evaluation=0,
        reserve=library + _lost(shape, one),
    )
    whole = weights if shares > 1 else 0
    return replace(found, evaluation=_evaluation(found, model, shape, one, scoring, whole=whole, processes=processes))


def _lost(shape: Shape, one: Pass) -> int:
    """Return what a CPU's allocator, which keeps what is freed, cannot use again: about a chunk of logits; assumed."""
    if one.device != "cpu" or not one.has_loss_head:
        return 0
    return chunk_logits(shape, one.tokens, one.chunk_elements) * one.element


def _evaluation(
    training: Memory, model: nn.Module, shape: Shape, one: Pass, scoring: Scoring, *, whole: int, processes: int
) -> int:
    """Return what an evaluation takes beyond training's fullest moment; `whole` is of weights that FSDP2 gathers.

    On a CPU freed memory is kept in pieces that are the training's: the logits of an evaluation lie beside it all.
    """
    logits = scoring_logits(shape, one, scoring)
    if one.device == "cpu":
        return whole + logits
    buckets = training.gradients if processes > 1 and not whole else 0  # DDP's, of which gradients are views
    held = training.weights + training.optimizer + buckets + whole
    needed = held + weight_copies(model, one) + scoring_activations(shape, one, scoring) + logits
    return max(0, needed + training.reserve - training.total)


def gathered_parameters(model: nn.Module, shape: Shape, *, loss: int) -> int:
    """Return the bytes of what FSDP2 holds whole at the fullest moment, `loss` being what the loss takes at its own.

    What lies outside the blocks is gathered from the forward pass on. In the backward pass its gradient is whole too,
    and so are two blocks (one computes, one is fetched) and two gradients (one is made, one is exchanged), when the
    loss is over: whichever is larger counts.
    """
    sizes = {name: FP32 * tensor.numel() for name, tensor in model.named_parameters()}
    blocks = sum(size for name, size in sizes.items() if _in_block(name))
    root, two = sum(sizes.values()) - blocks, min(2, shape.n_layer) * blocks // shape.n_layer
    return root + max(0, root + 2 * two - loss)


def train_seconds(total_flops: float, *, peak: float, mfu: float, processes: int, occupied: float = 1.0) -> float:
    """Return the seconds of training: FLOPs over what `processes` devices do of their peak, `occupied` of the time."""
    return total_flops / (peak * mfu * processes * occupied)


def occupancy(micro_batches: int, processes: int) -> float:
    """Return the share of passes that do work: processes take whole micro-batches, and wait for each other."""
    passes = -(-micro_batches // processes)
    return micro_batches / (passes * processes)


def disk_bytes(checkpoint: int, model: int, *, kept: int, snapshots: int) -> int:
    """Return the most that a run takes on the disk: a checkpoint is written before the oldest one goes.

    FSDP2 writes a checkpoint as a file for each process, of the same size in all.
    """
    return (kept + 1) * checkpoint + (snapshots + 1) * model
