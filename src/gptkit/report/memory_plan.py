"""Peak memory of a training run, estimated before it starts: bytes per part, under DDP and FSDP2.

Parameters, gradients and optimizer state are counted on meta tensors, which have shapes but no storage. Activations
come from a table of the model's intermediate results, which a test compares with what autograd keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gptkit.model.lm_loss import CHUNK_ELEMENTS, SCORED_ELEMENTS
from gptkit.model.modeling_gpt import DENSE_LENGTH
from gptkit.model_files import LSTM
from gptkit.training.checkpoint_files import safetensors_chunks
from gptkit.training.optimizers import OptimizerSet

STRATEGIES = ("ddp", "fsdp2")
FP32, INT64 = 4, 8  # bytes


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A process's forward pass: `rows` sequences of `length` tokens in training, `evaluation_tokens` in evaluation.

    `trains_head` and `evaluates_head` tell whether training and evaluation compute logits over the vocabulary.
    """

    rows: int = 1
    length: int
    precision: str = "bf16"
    device: str = "cuda"
    checkpointing: bool = False
    trains_head: bool = True
    evaluation_tokens: int
    evaluates_head: bool = True

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    @property
    def element(self) -> int:
        """Bytes per element of a matrix product."""
        return FP32 if self.precision == "fp32" else 2


def layer_activations(config: Any, work: Workload) -> dict[str, int]:
    """Return the bytes that autograd keeps of one block's forward pass, by name.

    name                    elements per token    bytes per element
    ----------------------  --------------------  ----------------------------------------------
    residual stream         2 n_embd              4 (inputs of ln_1 and ln_2)
    layer-norm statistics   4                     4 (mean and reciprocal deviation, twice)
    c_attn input            n_embd                element (2; 4 in fp32)
    query, key, value       3 n_embd              element; 4 where dropout makes SDPA fall back to fp32
    attention weights       n_head length         as above; none where SDPA's flash kernel runs
    attention dropout       2 n_head length       as above: the mask and the dropped weights, if any
    log-sum-exp             n_head                4, only where the flash kernel runs
    attended values         n_embd                element (c_proj's input)
    c_fc input              n_embd                element
    MLP                     2 n_inner             element (before and after the activation)
    residual dropout masks  2 n_embd              element on a CPU, 1 on a GPU, if any
    """
    tokens, width, element, is_cpu = work.tokens, config.n_embd, work.element, work.device == "cpu"
    is_dense = is_cpu and element < FP32 and work.length <= DENSE_LENGTH  # attention by our own products
    falls_back = is_cpu and not is_dense and config.attn_pdrop > 0  # the CPU's flash kernel has no dropout
    is_flash, attention = not (is_dense or falls_back), FP32 if falls_back else element
    scores = tokens * config.n_head * work.length * attention
    mask = element if is_cpu else 1
    return {
        "residual stream": tokens * 2 * width * FP32,
        "layer-norm statistics": tokens * 4 * FP32,
        "c_attn input": tokens * width * element,
        "query, key, value": tokens * 3 * width * attention,
        "attention weights": 0 if is_flash else scores,
        "attention dropout": 2 * scores if config.attn_pdrop and not is_flash else 0,
        "log-sum-exp": tokens * config.n_head * FP32 if is_flash else 0,
        "attended values": tokens * width * element,
        "c_fc input": tokens * width * element,
        "MLP": tokens * 2 * config.inner_width * element,
        "residual dropout masks": tokens * 2 * width * mask if config.resid_pdrop else 0,
    }


def activations(config: Any, work: Workload) -> int:
    """Return the bytes that autograd keeps of the body; with checkpointing, every block's input and one whole block."""
    if config.model_type == LSTM:
        return _lstm_activations(config, work)
    layer, tokens, width = sum(layer_activations(config, work).values()), work.tokens, config.n_embd
    blocks = config.n_layer * layer
    if work.checkpointing:
        blocks = config.n_layer * tokens * width * FP32 + layer
    ids = tokens * INT64 + work.length * INT64
    embedding_mask = FP32 if work.device == "cpu" else 1
    dropped = tokens * width * embedding_mask if config.embd_pdrop else 0
    last_norm = tokens * (width + 2) * FP32 if config.pre_norm else 0
    return int(ids + dropped + blocks + last_norm)


def _lstm_activations(config: Any, work: Workload) -> int:
    """Return `activations` of an LSTM; `inputs` are the widths that its layers read, embedding or units.

    name                 elements per token           bytes per element
    -------------------  ---------------------------  ------------------------------------------------------
    layer's input        input                        4
    layer's output       n_inner                      4 (without dropout only the last: others are inputs too)
    layer's workspace    9 n_inner + 6 max(input,     4 (oneDNN's, as measured for sequences of 64 tokens and more;
                         n_inner)                     a GPU's is assumed to be no larger)
    projection's input   n_inner                      element
    dropout masks        n_embd, and n_inner a layer  4 on a CPU, 1 on a GPU, if any
    """
    tokens, units, layers = work.tokens, config.inner_width, config.n_layer
    inputs = [config.n_embd, *[units] * (layers - 1)]
    workspaces = [9 * units + 6 * max(width, units) for width in inputs]
    workspace = max(workspaces) if work.checkpointing else sum(workspaces)
    outputs = units * (layers if config.resid_pdrop else 1)
    masked = (config.n_embd if config.embd_pdrop else 0) + (layers * units if config.resid_pdrop else 0)
    mask = FP32 if work.device == "cpu" else 1
    kept = FP32 * (sum(inputs) + outputs + workspace) + units * work.element + masked * mask
    return int(tokens * (kept + INT64))


def weight_copies(model: Any, work: Workload) -> int:
    """Return the bytes of autocast's 16-bit copies of the blocks' matrices; on a CPU an LSTM's stay in fp32."""
    if work.precision == "fp32" or (model.config.model_type == LSTM and work.device == "cpu"):
        return 0
    return sum(2 * tensor.numel() for tensor in model.transformer.h.parameters() if tensor.ndim == 2)


def loss_buffers(config: Any, work: Workload) -> int:
    """Return the bytes of the chunked loss at its peak.

    Three chunks of logits (the current one, its gradient and the previous one); the head's weight, transposed and, in
    16 bit, cast; the weight's gradient in fp32 and the current chunk's part of it; hidden states, cast, and their
    gradient.
    """
    if not work.trains_head:
        return 0
    element, head, hidden = work.element, config.vocab_size * config.n_embd, work.tokens * config.n_embd
    casts = (head + hidden) * element if element < FP32 else 0
    kept = hidden * (element + FP32) + head * (FP32 + 2 * element)
    chunk = chunk_logits(config.vocab_size, work.tokens, work.device, CHUNK_ELEMENTS)
    return int(3 * chunk * element + casts + kept)


def chunk_logits(vocabulary: int, tokens: int, device: str, limits: Mapping[str, int]) -> int:
    """Return how many logits the loss over this many tokens computes at once."""
    rows = max(1, limits.get(device, limits["cpu"]) // vocabulary)
    return -(-tokens // -(-tokens // rows)) * vocabulary


def evaluation_logits(config: Any, work: Workload) -> int:
    """Return the bytes of an evaluation's chunk of logits and of its log-softmax, both in fp32.

    A CPU also holds the 16-bit logits that were cast: they are freed, but nothing later fits into the gap.
    """
    if not work.evaluates_head:
        return 0
    before = work.element if work.device == "cpu" and work.element < FP32 else 0
    return chunk_logits(config.vocab_size, work.evaluation_tokens, work.device, SCORED_ELEMENTS) * (2 * FP32 + before)


def memory(model: Any, state: int, work: Workload, *, processes: int, baseline: int) -> dict[str, dict[str, int]]:
    """Return the peak bytes of one process by part, with their total, under each strategy.

    `state` is the size of the whole optimizer state, `baseline` what a process holds without a model. DDP holds
    everything on each process, and all gradients while the loss is computed. FSDP2 shards weights, gradients and
    optimizer state by rows; `gathered_weights` is what it holds unsharded during a pass, and an evaluation holds the
    whole weights in fp32 beside the shards. Either keeps autocast's 16-bit copies, unsharded, for the backward pass.

    gathered: what FSDP2 unshards; evaluation: what an evaluation takes beyond training's peak; reserve: the baseline,
    and what the allocator cannot reuse.
    """
    config, weights = model.config, bytes_of(model.parameters())
    copies, logits = weight_copies(model, work), loss_buffers(config, work)
    lost = 0  # to a CPU's allocator, which keeps what is freed: about a chunk of logits; assumed
    if work.device == "cpu" and work.trains_head:
        lost = chunk_logits(config.vocab_size, work.tokens, work.device, CHUNK_ELEMENTS) * work.element
    found = {}
    for strategy in STRATEGIES:
        shards = processes if strategy == "fsdp2" else 1
        parts = {
            "weights": -(-weights // shards),
            "gradients": -(-weights // shards),
            "optimizer": -(-state // shards),
            "activations": activations(config, work) + copies,
            "logits": logits,
            "gathered": gathered_weights(model, loss=logits) if shards > 1 else 0,
            "evaluation": 0,
            "reserve": baseline + lost,
        }
        evaluated = evaluation_logits(config, work) + (weights if shards > 1 else 0)
        if work.device != "cpu":
            # DDP keeps its buckets, of which gradients are views. Everything else that training freed can be reused.
            held = parts["weights"] + parts["optimizer"] + parts["reserve"]
            held += parts["gradients"] if processes > 1 and shards == 1 else 0
            evaluated += held + copies
            # a pass in the middle of an MLP: residual stream, norm, before and after the activation
            evaluated += work.evaluation_tokens * (2 * config.n_embd * FP32 + 2 * config.inner_width * work.element)
            evaluated = max(0, evaluated - sum(parts.values()))
        parts["evaluation"] = evaluated  # on a CPU on top of everything: its freed memory is in pieces of other sizes
        found[strategy] = {**parts, "total": sum(parts.values())}
    return found


def gathered_weights(model: Any, *, loss: int) -> int:
    """Return the bytes that FSDP2 holds unsharded at its peak; `loss` is what the chunked loss takes at its own peak.

    Parameters outside the blocks are gathered throughout. The backward pass adds their gradient, two blocks (one
    computing, one prefetched) and two blocks' gradients (one being computed, one being reduced). By then the loss's
    buffers are freed, so the larger of the two counts.
    """
    blocks, layers = bytes_of(model.transformer.h.parameters()), model.config.n_layer
    root, two_blocks = bytes_of(model.parameters()) - blocks, min(2, layers) * blocks // layers
    return int(root + max(0, root + 2 * two_blocks - loss))


def state_on_meta(optimizer: OptimizerSet) -> dict[str, Tensor]:
    """Return the state of an optimizer over meta tensors after one step, keyed by `parameter/field`."""
    for parameter in optimizer.parameters():
        parameter.grad = torch.empty_like(parameter)
    for part in optimizer.parts:
        part.step()
    optimizer.zero_grad()
    return optimizer.state_tensors()


def bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def file_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return the size of a safetensors file of these tensors."""
    header = next(safetensors_chunks(tensors))
    return memoryview(header).nbytes + bytes_of(tensors.values())


def train_seconds(flops: float, *, flops_per_second: float, micro_batches: int, processes: int) -> float:
    """Return the seconds of training; processes take whole micro-batches of a step and wait for each other."""
    occupied = micro_batches / (-(-micro_batches // processes) * processes)
    return flops / (flops_per_second * processes * occupied)
