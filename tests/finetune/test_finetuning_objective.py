"""Fine-tuning's objective: the same gradients however a step is cut, and every example's logits exactly once."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gptkit.finetune.job import double_heads_loss
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.tasks.encoding import EncodedExamples
from gptkit.tasks.head_outputs import evaluate_head, logits_of
from gptkit.training.batches import Batch, StopEvaluation

VOCABULARY, LONGEST, EXAMPLES = 23, 12, 6
TARGETS: dict[str, tuple[str, int, int]] = {  # format, outputs, sequences of an example
    "classification": ("classification", 3, 1),
    "entailment": ("entailment", 2, 1),
    "regression": ("similarity", 1, 2),
    "soft classes": ("similarity", 6, 2),
    "multiple-choice": ("multiple-choice", 1, 3),
}
targets = pytest.mark.parametrize("target", TARGETS)


def model_for(target: str) -> GPTDoubleHeadsModel:
    task_format, outputs, _ = TARGETS[target]
    torch.manual_seed(0)
    markers = {"start_token_id": 20, "delimiter_token_id": 21, "extract_token_id": 22}
    sizes = {"vocab_size": VOCABULARY, "n_positions": LONGEST, "n_embd": 16, "n_layer": 2, "n_head": 2}
    rates = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop", "classifier_dropout"), 0.0)
    labels = {index: str(index) for index in range(outputs)}
    own = {"format": task_format, "id2label": labels, "initializer_range": 0.1}
    return GPTDoubleHeadsModel(GPTConfig(**sizes, **rates, **markers, **own))


def examples_of(target: str) -> list[tuple[list[Tensor], Any]]:
    """Return (sequences, label) of each example, of very different lengths."""
    _, outputs, sequences = TARGETS[target]
    random = np.random.default_rng(0)
    labels: Any = random.integers(0, sequences if target == "multiple-choice" else outputs, EXAMPLES).tolist()
    if target == "regression":
        labels = random.uniform(0, 5, EXAMPLES).tolist()
    if target == "soft classes":
        labels = random.dirichlet(np.ones(6), EXAMPLES).tolist()
    lengths = random.integers(3, LONGEST + 1, (EXAMPLES, sequences))
    return [
        ([torch.from_numpy(random.integers(0, VOCABULARY, length)) for length in row], label)
        for row, label in zip(lengths, labels, strict=True)
    ]


def batch_of(examples: list[tuple[list[Tensor], Any]]) -> Batch:
    """Return examples padded to the longest of them."""
    flat = torch.nn.utils.rnn.pad_sequence([one for sequences, _ in examples for one in sequences], batch_first=True)
    labels = torch.tensor([label for _, label in examples])
    return {
        "input_ids": flat.view(len(examples), -1, flat.shape[1]),
        "extract": torch.tensor([[len(one) - 1 for one in sequences] for sequences, _ in examples]),
        "labels": labels,
    }


def gradient(model: GPTDoubleHeadsModel, parts: list[list[tuple[list[Tensor], Any]]], lm_coef: float) -> Tensor:
    """Return the gradient of a step that is cut into `parts`, as one vector."""
    model.zero_grad()
    for part in parts:
        double_heads_loss(model, batch_of(part), torch.tensor(float(EXAMPLES)), lm_coef=lm_coef).backward()
    gradients = [one.grad if one.grad is not None else torch.zeros_like(one) for one in model.parameters()]
    return torch.cat([one.flatten() for one in gradients])


@targets
@pytest.mark.parametrize("lm_coef", [0.0, 0.5])
def test_any_cut_of_a_step_gives_the_same_gradient(target: str, lm_coef: float) -> None:
    model, examples = model_for(target), examples_of(target)
    whole = gradient(model, [examples], lm_coef)
    assert whole.norm() > 0.1

    @settings(max_examples=10, derandomize=True)
    @given(st.permutations(range(EXAMPLES)), st.sets(st.integers(1, EXAMPLES - 1)))
    def check(order: list[int], cuts: set[int]) -> None:
        edges = [0, *sorted(cuts), EXAMPLES]
        parts = [[examples[i] for i in order[start:end]] for start, end in itertools.pairwise(edges)]
        torch.testing.assert_close(gradient(model, parts, lm_coef), whole, atol=1e-6, rtol=1e-6)

    check()


# --- the logits of a split ---


PIECES = [np.array(piece) for piece in ([5, 1], [0, 3, 4], [2])]  # out of order, as sorting by length makes them


def encoded(examples: list[tuple[list[Tensor], Any]], *, labelled: bool = True) -> EncodedExamples:
    sequences = [one.numpy() for sequences, _ in examples for one in sequences]
    labels = torch.tensor([label for _, label in examples]).numpy() if labelled else None
    offsets = np.cumsum([0, *map(len, sequences)])
    return EncodedExamples(np.concatenate(sequences).astype(np.int32), offsets, len(examples[0][0]), labels, {})


@targets
def test_predictions_are_in_the_examples_order(target: str) -> None:
    model, examples = model_for(target).eval(), examples_of(target)
    found = evaluate_head(model, encoded(examples), PIECES)
    assert found.logits.dtype == np.float32
    losses = []
    for row, example in zip(found.logits, examples, strict=True):
        output = model(**batch_of([example]))
        losses.append(output.loss.item())
        np.testing.assert_allclose(row, output.logits.detach().numpy().reshape(-1), rtol=1e-5, atol=1e-6)
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-6)
    unlabelled = evaluate_head(model, encoded(examples, labelled=False), PIECES)
    assert unlabelled.loss is None
    assert np.array_equal(unlabelled.logits, found.logits)
    np.testing.assert_allclose(logits_of(model, encoded(examples)), found.logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("processes", [2, 5])
def test_processes_share_the_batches(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, examples = model_for("multiple-choice").eval(), encoded(examples_of("multiple-choice"))
    alone = evaluate_head(model, examples, PIECES)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: processes)
    sent: list[list[Tensor]] = []
    rounds = [0] * processes
    for process in range(processes):

        def count(process: int = process) -> bool:
            rounds[process] += 1
            return False

        sent.append([])
        monkeypatch.setattr(dist, "get_rank", lambda process=process: process)
        monkeypatch.setattr(dist, "all_reduce", lambda tensor: sent[-1].append(tensor.clone()))
        evaluate_head(model, examples, PIECES, should_stop=count)
    assert len(set(rounds)) == 1  # else they could not agree
    tables, losses = zip(*sent, strict=True)
    assert np.array_equal(torch.stack(tables).sum(0).numpy(), alone.logits)
    assert torch.stack(losses).sum().item() / EXAMPLES == pytest.approx(alone.loss, rel=1e-9)


def test_predicting_stops_when_asked() -> None:
    examples = encoded(examples_of("entailment"))
    with pytest.raises(StopEvaluation):
        evaluate_head(model_for("entailment").eval(), examples, PIECES, should_stop=lambda: True)
