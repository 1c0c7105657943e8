"""Log-probabilities of token sequences under a model: the one place where evaluation computes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.model_files.files import not_finite
from gptkit.scoring.body import body_of
from gptkit.scoring.packing import Batch, as_arrays, batches_of, rows_of
from gptkit.scoring.protocols import Answer, Group
from gptkit.system.limits import translate_out_of_memory
from gptkit.system.processor import refuse_emulated_bf16

# Of a forward pass: more leave the caches, fewer leave the cores idle. The CPU's is measured, CUDA's is not.
PADDED_TOKENS = {"cpu": 2048, "cuda": 32768}
LOGITS = 2**24  # of one product with the head, 64 MiB in fp32


Everywhere = Callable[[Callable[[], Any]], list[Any]]


class Scorer:
    """A model that answers requests: what a group's requests begin with alike is computed once.

    model: in eval mode, on `device`, with fp32 weights. precision: of the matrix products' inputs, fp32 or bf16; logits
    and softmax are fp32, and so is the head on a GPU. batch_size: the most rows of a forward pass. In fp32 an answer
    depends neither on it nor on the number of processes, but for rounding (1e-5). Raises UsageError for bf16 that a CPU
    would emulate.

    Of several processes each has a `rank` of `count`, and `everywhere(work)` returns what `work()` returned on each of
    them, or raises what it raised on one.
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
        everywhere: Everywhere = lambda work: [work()],
    ) -> None:
        refuse_emulated_bf16(device.type, precision)
        self.device = device
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.body = body_of(model.transformer, device, self.dtype)
        self.head = model.lm_head.weight  # (vocab, n_embd)
        self.batch_size = batch_size
        self.rank, self.count, self.everywhere = rank, count, everywhere

    def score(
        self,
        groups: Sequence[Group],
        banned: Sequence[int] = (),
        tick: Callable[[int], object] = lambda answered: None,
    ) -> list[tuple[Answer, ...]]:
        """Return an answer to each request, in the groups' shape and order, on every process.

        `tick` gets how many requests are answered so far. Raises InputError where the model's output is not finite,
        OutOfResources where a batch needs too much memory; what one process raises all raise.
        """
        rows = rows_of(groups)
        padded_tokens = PADDED_TOKENS.get(self.device.type, PADDED_TOKENS["cpu"])
        batches = batches_of(rows, padded_tokens=padded_tokens, batch_size=self.batch_size)

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

    @torch.inference_mode()
    def _answers(self, batch: Batch, banned: Sequence[int]) -> dict[int, Answer]:
        """Return the answers to a batch by request."""
        places, of_place = np.unique(batch.places, return_inverse=True)  # (place,), (scored,)
        with translate_out_of_memory("use a smaller --batch-size"):
            hidden = self._hidden(batch, places)
            with _cpu_products_in(self.dtype):
                found = self._head(hidden, self._on_device(of_place), self._on_device(batch.targets), banned)
            log_probs, top, top_allowed = (tensor.cpu().numpy() for tensor in found)
        if not np.isfinite(log_probs).all():
            raise not_finite("the model's log-probabilities are")
        answers, start = {}, 0
        for branch in batch.branches:
            own = slice(start, start := start + len(branch.request.ids) - branch.request.start)
            answers[branch.index] = Answer(log_probs[own].astype(np.float64), top[own], top_allowed[own])
        return answers

    def _hidden(self, batch: Batch, places: NDArray[np.int64]) -> Tensor:
        """Return the last hidden states at some places (place, n_embd), in fp32."""
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

        `of_place` (scored,) says which state predicts a target. The vocabulary is cut, not the states, so that
        each of its rows is read once for all of them.
        """
        weight = self.head.float()
        size = max(1, LOGITS // len(hidden))
        log_probs = torch.empty(len(targets), device=hidden.device)
        normalisers, best, allowed = [], [], []
        for start in range(0, len(weight), size):
            logits = F.linear(hidden, weight[start : start + size])  # (place, part)
            best.append(logits.max(-1))
            # A part's most likely token is never too unlikely for fp32, and softmax is the fastest pass there is.
            most_likely = logits.softmax(-1).gather(-1, best[-1].indices[:, None])[:, 0]
            normalisers.append(best[-1].values - most_likely.log())  # (place,)
            asked = ((targets >= start) & (targets < start + size)).nonzero()[:, 0]
            log_probs[asked] = logits[of_place[asked], targets[asked] - start]
            if len(banned):
                logits[:, [token - start for token in banned if start <= token < start + size]] = -torch.inf
                allowed.append(logits.max(-1))
        log_probs -= torch.stack(normalisers).logsumexp(0)[of_place]
        return log_probs, _top(best, size)[of_place], _top(allowed or best, size)[of_place]

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)


@contextmanager
def _cpu_products_in(dtype: torch.dtype) -> Iterator[None]:
    """Let oneDNN round the inputs of fp32 products to bf16, where that is `dtype`; their results stay fp32."""
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16" if dtype == torch.bfloat16 else before
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _top(best: Sequence[Any], size: int) -> Tensor:
    """Return the most likely tokens (place,) from the maxima of the vocabulary's parts, `size` tokens each."""
    part = torch.stack([maximum.values for maximum in best]).argmax(0, keepdim=True)  # (1, place)
    return (part * size + torch.stack([maximum.indices for maximum in best]).gather(0, part))[0]
