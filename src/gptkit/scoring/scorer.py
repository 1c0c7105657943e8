"""Log-probabilities of token sequences under a model: the one place where evaluation computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gptkit.errors import GptkitError, OutOfResources
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.model_files.files import not_finite
from gptkit.scoring.body import body_of
from gptkit.scoring.packing import Batch, as_arrays, batches_of, rows_of
from gptkit.scoring.requests import Answer, Group
from gptkit.system.processor import refuse_emulated_bf16

# Of a forward pass: more leave the caches, fewer leave the cores idle. The CPU's is measured, CUDA's is not.
PADDED_TOKENS = {"cpu": 2048, "cuda": 32768}
LOGITS = 2**24  # of one product with the head, 64 MiB in fp32


@dataclass(frozen=True)
class Processes:
    """Who of how many this process is, and a function that returns what each of them gave it, in their order."""

    rank: int = 0
    count: int = 1
    gather: Callable[[Any], list[Any]] = lambda own: [own]


class Scorer:
    """A model that answers requests: what a group's requests begin with alike is computed once.

    model: in eval mode, on `device`, with fp32 weights. precision: of the matrix products' inputs, fp32 or bf16; logits
    and softmax are fp32, and so is the head on a GPU. batch_size: the most rows of a forward pass. In fp32 an answer
    depends neither on it nor on the number of processes, but for rounding (1e-5). Raises UsageError for bf16 that a CPU
    would emulate.
    """

    def __init__(
        self,
        model: GPTForCausalLM,
        *,
        device: torch.device,
        precision: str = "fp32",
        batch_size: int | None = None,
        processes: Processes | None = None,
    ) -> None:
        refuse_emulated_bf16(device.type, precision)
        self.device = device
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.body = body_of(model.transformer, device, self.dtype)
        self.head = model.lm_head.weight  # (vocab, n_embd)
        self.batch_size = batch_size
        self.processes = processes or Processes()

    def score(
        self,
        groups: Sequence[Group],
        banned: Sequence[int] = (),
        tick: Callable[[int], None] | None = None,
    ) -> list[tuple[Answer, ...]]:
        """Return an answer to each request, in the groups' shape and order, on every process.

        `tick` gets how many requests are answered so far. Raises InputError where the model's output is not finite,
        OutOfResources where a batch needs too much memory; what one process raises all raise.
        """
        rows = rows_of(groups)
        padded_tokens = PADDED_TOKENS.get(self.device.type, PADDED_TOKENS["cpu"])
        batches = batches_of(rows, padded_tokens=padded_tokens, batch_size=self.batch_size)
        answers: dict[int, Answer] = {}
        failure: GptkitError | None = None
        done = 0
        try:
            for number, batch in enumerate(batches):
                if number % self.processes.count == self.processes.rank:
                    answers |= self._answers(as_arrays(batch), banned)
                done += sum(len(row.branches) for row in batch)
                if tick is not None:
                    tick(done)
        except GptkitError as error:
            failure = error
        return _in_shape(groups, _gathered(self.processes, answers, failure))

    @torch.inference_mode()
    def _answers(self, batch: Batch, banned: Sequence[int]) -> dict[int, Answer]:
        """Return the answers to a batch by request."""
        places, of_place = np.unique(batch.places, return_inverse=True)  # (place,), (scored,)
        with _out_of_memory_told():
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
            # A part's likeliest token is never too unlikely for fp32, and softmax is the fastest pass there is.
            likeliest = logits.softmax(-1).gather(-1, best[-1].indices[:, None])[:, 0]
            normalisers.append(best[-1].values - likeliest.log())  # (place,)
            asked = ((targets >= start) & (targets < start + size)).nonzero()[:, 0]
            log_probs[asked] = logits[of_place[asked], targets[asked] - start]
            if len(banned):
                logits[:, [one - start for one in banned if start <= one < start + size]] = -torch.inf
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
    """Return the likeliest tokens (place,) from the maxima of the vocabulary's parts, `size` tokens each."""
    part = torch.stack([one.values for one in best]).argmax(0, keepdim=True)  # (1, place)
    return (part * size + torch.stack([one.indices for one in best]).gather(0, part))[0]


def _gathered(processes: Processes, answers: dict[int, Answer], failure: GptkitError | None) -> dict[int, Answer]:
    """Return the answers of all processes, or raise what one of them raised."""
    parts = processes.gather((answers, failure))
    for _, error in parts:
        if error is not None:
            raise error
    return {index: answer for part, _ in parts for index, answer in part.items()}


def _in_shape(groups: Sequence[Group], answers: dict[int, Answer]) -> list[tuple[Answer, ...]]:
    nothing = Answer(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))
    shaped, index = [], 0
    for group in groups:
        shaped.append(tuple(answers.get(index + number, nothing) for number in range(len(group))))
        index += len(group)
    return shaped


@contextmanager
def _out_of_memory_told() -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
        if not of_memory:
            raise
        raise OutOfResources("out of memory", fix="use a smaller --batch-size") from error
