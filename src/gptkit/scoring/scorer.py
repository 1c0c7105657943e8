"""Log-probabilities of token sequences under a model: all forward passes of likelihood evaluations.

On a CPU, GPTModel's modules are called one by one, with weights in oneDNN's layout, GELU fused into its product (by
itself it costs a sixth of a layer's products), none of autocast's copies, and only the needed states of the last layer:
about 1.6 times as fast as GPTModel under autocast, and 1.3 times in fp32.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from gptkit.model.modeling_gpt import GPTBlock, GPTForCausalLM, GPTModel, GPTPreTrainedModel
from gptkit.model_files import not_finite
from gptkit.scoring.packing import Batch, as_arrays, batches_of, rows_of
from gptkit.scoring.protocols import Answer, Group
from gptkit.system.limits import translate_out_of_memory
from gptkit.system.processor import refuse_emulated_bf16

# Per forward pass: more do not fit into the caches, fewer leave cores idle. Measured on a CPU, not on CUDA.
PADDED_TOKENS = {"cpu": 2048, "cuda": 32768}
LOGITS = 2**24  # per product with the head: 64 MiB in fp32
FUSED = {"gelu_new": ("gelu", "tanh"), "gelu": ("gelu", "none")}  # activation -> oneDNN's name for the fused one
# ids (row, slot), positions (row, slot), additive mask (row, 1, query, key), places (place,): row * slots + slot
# -> hidden states (place, n_embd). Positions default to 0, 1, ..., the mask to a causal one.
Body = Callable[[Tensor, Tensor | None, Tensor | None, Tensor], Tensor]


class Scorer:
    """A model that answers requests, computing the common prefixes of a group once.

    model: in eval mode, on `device`, with fp32 weights. precision: fp32 or bf16, for the inputs of matrix products;
    logits and softmax are fp32, and on a GPU the head is too. batch_size: maximum rows per forward pass. In fp32 an
    answer depends neither on it nor on the number of processes, except for rounding (1e-5). Raises UsageError for bf16
    that a CPU would emulate.

    With several processes each has its `rank` of `count`, and `everywhere(work)` returns the results of `work()` on all
    of them, or raises what it raised on one.
    """

    def __init__(
        self,
        model: GPTForCausalLM,
        *,
        device: torch.device,
        precision: str = "fp32",
        batch_size: int | None = None,
        rank: int = 0,
        count: int = 1,
        everywhere: Callable[[Callable[[], Any]], list[Any]] = lambda work: [work()],
    ) -> None:
        refuse_emulated_bf16(device.type, precision)
        self.device = device
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.shares = isinstance(model.transformer, GPTModel)  # an LSTM's states have no mask that would part branches
        self.body = body_of(model.transformer, device, self.dtype)
        self.head = model.lm_head.weight  # (vocab, n_embd)
        # torch gives fp32 products to MKL, which runs AVX2 code on any AMD processor, and few rows slowly: 300 rows
        # of 768 take oneDNN half the time there with AVX-512, five sixths with AVX2.
        self.product = _onednn_product if _has_onednn(device) else F.linear
        self.batch_size = batch_size
        self.padded_tokens = PADDED_TOKENS.get(device.type, PADDED_TOKENS["cpu"])
        self.rank, self.count, self.everywhere = rank, count, everywhere

    def score(
        self,
        groups: Sequence[Group],
        banned: Sequence[int] = (),
        tick: Callable[[int], object] = lambda answered: None,
    ) -> list[tuple[Answer, ...]]:
        """Return the answer to each request, grouped and ordered like the requests, on every process.

        `tick` is called with the number of requests answered so far. Raises InputError if the model's output is not
        finite, OutOfResources if a batch needs too much memory, on all processes if one does.
        """
        rows = rows_of(groups, share=self.shares)
        batches = batches_of(rows, padded_tokens=self.padded_tokens, batch_size=self.batch_size)

        def own_answers() -> dict[int, Answer]:
            answers: dict[int, Answer] = {}
            done = 0
            for number, batch in enumerate(batches):
                if number % self.count == self.rank:
                    answers |= self._answers(as_arrays(batch), banned)
                done += sum(len(row.branches) for row in batch)
                tick(done)
            return answers

        parts = self.everywhere(own_answers)
        answers = {index: answer for part in parts for index, answer in part.items()}
        nothing = Answer(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))
        index = itertools.count()
        return [tuple(answers.get(next(index), nothing) for _ in group) for group in groups]

    def _answers(self, batch: Batch, banned: Sequence[int]) -> dict[int, Answer]:
        """Return the answers to a batch, by index of the request."""
        log_probs, top, top_allowed = self.found(batch, banned)
        answers, start = {}, 0
        for branch in batch.branches:
            own = slice(start, start := start + len(branch.request.ids) - branch.request.start)
            answers[branch.index] = Answer(log_probs[own].astype(np.float64), top[own], top_allowed[own])
        return answers

    @torch.inference_mode()
    def found(self, batch: Batch, banned: Sequence[int]) -> list[NDArray[Any]]:
        """Return log_probs, top and top_allowed of a batch's targets, (scored,) each."""
        places, of_place = np.unique(batch.places, return_inverse=True)  # (place,), (scored,)
        with translate_out_of_memory("use a smaller --batch-size"):
            hidden = self._hidden(batch, places)
            with _cpu_products_in(self.dtype):
                tensors = self._head(hidden, self._on_device(of_place), self._on_device(batch.targets), banned)
            found = [tensor.cpu().numpy() for tensor in tensors]
        if not np.isfinite(found[0]).all():
            raise not_finite("the model's log-probabilities are")
        return found

    def _hidden(self, batch: Batch, places: NDArray[np.int64]) -> Tensor:
        """Return the last hidden states at the given places, (place, n_embd), in fp32."""
        positions = mask = None
        if batch.positions is not None and batch.visible is not None:
            positions = self._on_device(batch.positions)
            visible = self._on_device(batch.visible)[:, None]  # (row, 1, query, key)
            mask = torch.zeros_like(visible, dtype=self.dtype).masked_fill_(~visible, -torch.inf)
        return self.body(self._on_device(batch.ids), positions, mask, self._on_device(places)).float()

    def _head(
        self, hidden: Tensor, of_place: Tensor, targets: Tensor, banned: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probabilities, top and top_allowed (scored,) from the states that predict them (place, n_embd).

        `of_place` (scored,) is the index of the state that predicts each target. The product is split by vocabulary,
        not by states, so that each row of the head is read only once.
        """
        weight = self.head.float()
        size = max(1, LOGITS // len(hidden))
        log_probs = torch.empty(len(targets), device=hidden.device)
        normalizers, best, allowed = [], [], []
        for start in range(0, len(weight), size):
            logits = self.product(hidden, weight[start : start + size])  # (place, part)
            best.append(logits.max(-1))
            # log-sum-exp by the most likely token, whose probability never underflows: softmax is the fastest pass.
            most_likely = logits.softmax(-1).gather(-1, best[-1].indices[:, None])[:, 0]
            normalizers.append(best[-1].values - most_likely.log())  # (place,)
            asked = ((targets >= start) & (targets < start + size)).nonzero()[:, 0]
            log_probs[asked] = logits[of_place[asked], targets[asked] - start]
            if len(banned):
                logits[:, [token - start for token in banned if start <= token < start + size]] = -torch.inf
                allowed.append(logits.max(-1))
        log_probs -= torch.stack(normalizers).logsumexp(0)[of_place]
        return log_probs, _top(best, size)[of_place], _top(allowed or best, size)[of_place]

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)


@contextmanager
def _cpu_products_in(dtype: torch.dtype) -> Iterator[None]:
    """If `dtype` is bf16, let oneDNN round the inputs of fp32 products to bf16; their results stay fp32."""
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16" if dtype == torch.bfloat16 else before
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _top(best: Sequence[Any], size: int) -> Tensor:
    """Return the most likely tokens (place,) from the maxima over the parts of the vocabulary, `size` tokens each."""
    part = torch.stack([maximum.values for maximum in best]).argmax(0, keepdim=True)  # (1, place)
    return (part * size + torch.stack([maximum.indices for maximum in best]).gather(0, part))[0]


def body_of(model: GPTPreTrainedModel, device: torch.device, dtype: torch.dtype) -> Body:
    """Return the fastest body for the device, build of torch and activation; `dtype` is that of products and masks.

    An LSTM, a masked model, and an activation that is not in FUSED, take the model's own forward pass.
    """
    if type(model) is GPTModel and _has_onednn(device) and model.config.activation_function in FUSED:
        return PackedBody(model, dtype)

    def plain_body(ids: Tensor, positions: Tensor | None, mask: Tensor | None, places: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            outputs = model(ids, attention_mask=mask, position_ids=positions, use_cache=False)
        hidden: Tensor = outputs.last_hidden_state  # (row, slot, n_embd)
        return hidden.flatten(0, 1)[places]

    return plain_body


def _has_onednn(device: torch.device) -> bool:
    """Return whether the device and the build of torch have oneDNN's linear layer."""
    has_linear = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return device.type == "cpu" and has_linear


def _onednn_product(rows: Tensor, weight: Tensor) -> Tensor:
    """Return what F.linear does, by oneDNN."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")
    return product


class PackedBody:
    """Matrix products and attention in `dtype`; embeddings, layer norms and the residual stream in fp32."""

    def __init__(self, model: GPTModel, dtype: torch.dtype) -> None:
        self.model = model
        self.dtype = dtype
        activation = FUSED[model.config.activation_function]
        self.layers = [_Layer(block, dtype, activation) for block in cast(Iterable[GPTBlock], model.h)]

    def __call__(self, ids: Tensor, positions: Tensor | None, mask: Tensor | None, places: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1]) if positions is None else positions
        hidden = self.model.wte(ids) + self.model.wpe(positions)  # (row, slot, n_embd)
        for layer in self.layers[:-1]:
            hidden = layer(hidden, mask)
        last: Tensor = self.layers[-1](hidden, mask, places)
        return self.model.ln_f(last)  # type: ignore[no-any-return]


class _Layer:
    def __init__(self, block: GPTBlock, dtype: torch.dtype, activation: tuple[str, str]) -> None:
        self.block = block
        self.dtype = dtype
        self.c_attn = _Product(block.attn.c_attn, dtype)
        self.c_proj = _Product(block.attn.c_proj, dtype)
        self.mlp_fc = _Product(block.mlp.c_fc, dtype, *activation)
        self.mlp_proj = _Product(block.mlp.c_proj, dtype)

    def __call__(self, hidden: Tensor, mask: Tensor | None, places: Tensor | None = None) -> Tensor:
        """Return the states after the block (row, slot, n_embd), or only those at the given places (place, n_embd)."""
        block = self.block
        attended = self._attended(block.ln_1(hidden) if block.pre_norm else hidden, mask)
        if places is not None:
            hidden, attended = hidden.flatten(0, 1)[places], attended.flatten(0, 1)[places]
        hidden = hidden + self.c_proj(attended)
        if block.pre_norm:
            return hidden + self._mlp(block.ln_2(hidden))
        hidden = block.ln_1(hidden)
        normed: Tensor = block.ln_2(hidden + self._mlp(hidden))
        return normed

    def _attended(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        qkv = self.c_attn(hidden.to(self.dtype)).unflatten(-1, (3, -1, self.block.attn.head_dim))
        query, key, value = qkv.transpose(1, 3).unbind(2)  # each (row, head, slot, head_dim)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None)
        return attended.transpose(1, 2).flatten(2)  # (row, slot, n_embd)

    def _mlp(self, hidden: Tensor) -> Tensor:
        return self.mlp_proj(self.mlp_fc(hidden.to(self.dtype)))


class _Product:
    """A linear layer with its weight in oneDNN's layout, optionally fused with an activation."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, function: str = "none", algorithm: str = "") -> None:
        self.weight: Any = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().to(dtype), None)
        self.bias = linear.bias.detach().to(dtype)
        self.function, self.algorithm = function, algorithm

    def __call__(self, rows: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self.weight, self.bias, self.function, [], self.algorithm
        )
        return product
