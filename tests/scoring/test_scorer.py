"""Scores equal those of a plain loop over transformers' models and closed forms, in any batches."""

from __future__ import annotations

import math
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel, OpenAIGPTLMHeadModel

from gpt_toy import FAMILIES, SIZES, lstm_toy, needs_bf16, toy
from gptkit.console import Console
from gptkit.convert import hf
from gptkit.errors import InputError, OutOfResources
from gptkit.model.configuration_gpt import quiet_transformers
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.model_files import Activation
from gptkit.scoring import scorer
from gptkit.scoring.packing import Batch, batches_of, rows_of
from gptkit.scoring.protocols import Answer, Group, Request
from gptkit.scoring.scorer import Scorer

CPU = torch.device("cpu")
VOCABULARY, POSITIONS = SIZES["vocab_size"], SIZES["n_positions"]
families = pytest.mark.parametrize("pre_norm", FAMILIES)


def random_groups(count: int, seed: int = 0) -> list[Group]:
    """Return groups whose requests share prefixes up to a whole text, of 1 to n_positions + 1 tokens."""
    draw = np.random.default_rng(seed)
    groups = []
    for _ in range(count):
        base = draw.integers(0, VOCABULARY, draw.integers(1, POSITIONS + 1))
        group = []
        for _ in range(draw.integers(1, 6)):
            tail = draw.integers(0, VOCABULARY, draw.integers(1, 10))
            ids = np.concatenate([base[: draw.integers(0, len(base) + 1)], tail])[: POSITIONS + 1]
            group.append(Request(ids, int(draw.integers(1, len(ids) + 1))))
        groups.append(tuple(group))
    return groups


def scores(model: GPTForCausalLM, groups: Sequence[Group], banned: Sequence[int] = (), **settings: Any) -> list[Answer]:
    answers = Scorer(model, device=CPU, **settings).score(groups, banned)
    assert [len(one) for one in answers] == [len(one) for one in groups]
    return [answer for group in answers for answer in group]


def assert_same(ours: Sequence[Answer], others: Sequence[Answer]) -> None:
    for one, other in zip(ours, others, strict=True):
        np.testing.assert_allclose(one.log_probs, other.log_probs, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(one.top, other.top)
        np.testing.assert_array_equal(one.top_allowed, other.top_allowed)


@families
def test_scores_are_those_of_a_plain_loop_over_transformers(pre_norm: bool, tmp_path: Path) -> None:
    model, groups, banned = toy(pre_norm), random_groups(40), [5, 9, 33]
    hf.write(model, None, tmp_path, "f32", Console())
    with quiet_transformers():
        theirs = (GPT2LMHeadModel if pre_norm else OpenAIGPTLMHeadModel).from_pretrained(tmp_path).eval()
    rows = rows_of(groups)
    assert any(len(row.branches) > 2 for row in rows)
    assert any(row.is_plain for row in rows)
    nll = expected_nll = 0.0
    requests = [request for group in groups for request in group]
    for request, answer in zip(requests, scores(model, groups, banned), strict=True):
        if len(request.ids) == 1:
            assert len(answer.log_probs) == 0
            continue
        with torch.no_grad():
            logits = theirs(torch.from_numpy(request.ids[None, :-1])).logits[0, request.start - 1 :]  # (scored, vocab)
        targets = torch.from_numpy(request.ids[request.start :])
        expected = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
        np.testing.assert_allclose(answer.log_probs, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(answer.top, logits.argmax(-1))
        logits[:, banned] = -math.inf
        np.testing.assert_array_equal(answer.top_allowed, logits.argmax(-1))
        nll, expected_nll = nll - answer.log_probs.sum(), expected_nll - expected.double().sum().item()
    assert nll == pytest.approx(expected_nll, rel=1e-6)


@torch.no_grad()
def assert_as_its_own_forward(model: GPTForCausalLM) -> None:
    groups = random_groups(12)
    requests = [request for group in groups for request in group]
    for request, answer in zip(requests, scores(model, groups), strict=True):
        if request.start == len(request.ids):
            continue  # scores nothing
        logits = model(torch.from_numpy(request.ids[None, :-1])).logits[0, request.start - 1 :]  # (scored, vocab)
        targets = torch.from_numpy(request.ids[request.start :])
        expected = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
        np.testing.assert_allclose(answer.log_probs, expected, rtol=1e-5, atol=1e-5)


@families
@pytest.mark.parametrize("activation", get_args(Activation))
def test_scores_are_those_of_the_model_s_own_forward_for_every_activation(activation: str, pre_norm: bool) -> None:
    assert_as_its_own_forward(toy(pre_norm, activation_function=activation))


def test_an_lstm_scores_a_request_a_row() -> None:
    model, groups = lstm_toy(n_positions=POSITIONS), random_groups(40)
    assert_as_its_own_forward(model)
    asked = [request for group in groups for request in group if request.start < len(request.ids)]
    rows = rows_of(groups, share=False)
    assert [row.length for row in rows] == [len(request.ids) - 1 for request in asked]
    assert all(row.is_plain for row in rows)
    for found in score_in_two(model, groups, [5]):
        assert_same([answer for group in found for answer in group], scores(model, groups, [5]))


@families
def test_an_activation_that_the_body_does_not_know_is_left_to_the_model(
    pre_norm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = toy(pre_norm)
    vars(model.config)["activation_function"] = "relu"  # as if it were one of Activation
    for block in model.transformer.h:
        monkeypatch.setattr(block.mlp, "act", torch.nn.ReLU())
    assert_as_its_own_forward(model)


def test_prefixes_are_computed_once() -> None:
    """By hand: two share 1 2 3 and three share 1 2; 9 9 starts another row; last tokens are no inputs."""
    asked = [[1, 2, 3, 4, 5], [1, 2, 3, 6], [1, 2, 8, 8], [9, 9]]
    (tree, alone) = rows_of([tuple(Request(np.array(ids), 1) for ids in asked)])
    assert (tree.length, alone.length) == (5, 1)
    assert [branch.index for branch in (*tree.branches, *alone.branches)] == [1, 0, 2, 3]
    assert [list(branch.path) for branch in tree.branches] == [[0, 1, 2], [0, 1, 2, 3], [0, 1, 4]]
    assert (tree.is_plain, alone.is_plain) == (False, True)
    choices = tuple(Request(np.array([1, 2, 3, choice]), 3) for choice in range(9))
    (row,) = rows_of([choices])
    assert row.is_plain
    assert row.length == 3


def test_batches_keep_to_their_bounds_longest_first() -> None:
    rows = rows_of(random_groups(60))
    batches = batches_of(rows, padded_tokens=64, batch_size=5)
    assert sorted(map(id, rows)) == sorted(id(row) for batch in batches for row in batch)
    assert all(len(batch) == 1 or len(batch) * batch[0].length <= 64 for batch in batches)
    assert max(map(len, batches)) == 5
    lengths = [batch[0].length for batch in batches]
    assert lengths == sorted(lengths, reverse=True)
    assert all(len({row.is_plain for row in batch}) == 1 for batch in batches)


@families
def test_neither_batches_nor_order_change_anything(pre_norm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, groups = toy(pre_norm), random_groups(40)
    expected = scores(model, groups)
    for batch_size in (1, 3):
        assert_same(scores(model, groups, batch_size=batch_size), expected)
    monkeypatch.setattr(scorer, "LOGITS", 7 * VOCABULARY)
    order = np.random.default_rng(1).permutation(len(groups))
    by_group = Scorer(model, device=CPU).score([groups[one] for one in order])
    assert_same([answer for one in np.argsort(order) for answer in by_group[one]], expected)


@needs_bf16
@families
def test_bf16_is_near_fp32(pre_norm: bool) -> None:
    model, groups = toy(pre_norm), random_groups(40)
    exact = scores(model, groups)
    for batch_size in (1, None):
        rounded = scores(model, groups, precision="bf16", batch_size=batch_size)
        errors = np.concatenate([one.log_probs - other.log_probs for one, other in zip(rounded, exact, strict=True)])
        assert 0 < np.abs(errors).mean() < 0.02


@families
def test_devices_without_packed_products_compute_the_same(pre_norm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, groups = toy(pre_norm), random_groups(20)
    packed = scores(model, groups)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert_same(scores(model, groups), packed)


@torch.no_grad()
def test_a_bigram_model_gives_its_own_probabilities() -> None:
    """No layer adds anything, so a token's state is its embedding: logits are a table of bigrams."""
    model = toy(n_embd=64, n_head=1, tie_word_embeddings=False)
    for parameter in model.transformer.parameters():
        parameter.zero_()
    model.transformer.ln_f.weight.fill_(1.0)
    model.transformer.wte.weight.copy_(torch.eye(VOCABULARY, 64))
    table = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(0)).double()  # (before, after)
    states = torch.nn.functional.layer_norm(torch.eye(VOCABULARY, 64).double(), (64,), eps=1e-5)  # (before, n_embd)
    model.lm_head.weight.copy_((torch.linalg.pinv(states) @ table).T)
    log_probs = table.log_softmax(-1).numpy()
    groups = random_groups(10)
    requests = [request for group in groups for request in group]
    for request, answer in zip(requests, scores(model, groups), strict=True):
        before, after = request.ids[request.start - 1 : -1], request.ids[request.start :]
        np.testing.assert_allclose(answer.log_probs, log_probs[before, after], atol=2e-5)
        np.testing.assert_array_equal(answer.top, log_probs[before].argmax(-1))


@torch.no_grad()
def test_a_model_of_zeros_is_uniform_and_bans_are_kept() -> None:
    model = toy()
    for parameter in model.parameters():
        parameter.zero_()
    (answer,) = scores(model, [(Request(np.arange(POSITIONS + 1), 1),)], banned=[0, 1, 3])
    np.testing.assert_allclose(answer.log_probs, -math.log(VOCABULARY), rtol=1e-6)
    assert set(answer.top) == {0}
    assert set(answer.top_allowed) == {2}


@torch.no_grad()
def test_what_is_not_finite_is_an_error() -> None:
    model = toy()
    model.transformer.ln_f.weight[3] = math.nan
    with pytest.raises(InputError, match=r"^the model's log-probabilities are not finite \(--model\) - "):
        scores(model, random_groups(3))


def test_memory_that_runs_out_names_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    evaluating = Scorer(toy(), device=CPU)
    monkeypatch.setattr(evaluating, "body", no_memory)
    with pytest.raises(OutOfResources, match=r"^out of memory - use a smaller --batch-size$"):
        evaluating.score(random_groups(3))


def test_ticks_count_requests_to_the_last() -> None:
    groups, seen = random_groups(20), []
    Scorer(toy(), device=CPU, batch_size=2).score(groups, tick=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == sum(request.start < len(request.ids) for group in groups for request in group)


# --- two processes ---


def score_in_two(model: GPTForCausalLM, groups: Sequence[Group], banned: Sequence[int]) -> list[Any]:
    """Return what each of two ranks gets, with threads in place of processes."""
    sent: list[bytes] = [b"", b""]
    meeting = threading.Barrier(2, timeout=60)

    def on_rank(rank: int) -> Any:
        def everywhere(work: Callable[[], Any]) -> list[Any]:
            try:
                own: Any = work()
            except InputError as error:
                own = error
            sent[rank] = pickle.dumps(own)
            meeting.wait()
            parts = [pickle.loads(part) for part in sent]
            for part in parts:
                if isinstance(part, InputError):
                    raise part
            return parts

        scorer = Scorer(model, device=CPU, batch_size=4, rank=rank, count=2, everywhere=everywhere)
        try:
            return scorer.score(groups, banned)
        except InputError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(on_rank, range(2)))


def test_two_processes_share_the_work_and_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model, groups = toy(), random_groups(30)
    expected = scores(model, groups, [5])
    for found in score_in_two(model, groups, [5]):
        assert_same([answer for group in found for answer in group], expected)
    longest = max(row.length for row in rows_of(groups))
    whole = Scorer._answers

    def broken(self: Scorer, batch: Batch, banned: Sequence[int]) -> Any:
        if batch.ids.shape[1] == longest:  # the first batch is the first rank's
            raise InputError("not finite")
        return whole(self, batch, banned)

    monkeypatch.setattr(Scorer, "_answers", broken)
    assert [str(error) for error in score_in_two(model, groups, [5])] == ["not finite", "not finite"]


SCRIPT = """
import sys
import torch.distributed as dist
from test_scorer import CPU, Scorer, assert_same, random_groups, scores, toy

def everywhere(work):
    parts = [None, None]
    dist.all_gather_object(parts, work())
    return parts

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
scorer = Scorer(toy(), device=CPU, batch_size=4, rank=rank, count=2, everywhere=everywhere)
both = scorer.score(random_groups(30), [5])
assert_same([answer for group in both for answer in group], scores(toy(), random_groups(30), [5]))
dist.destroy_process_group()
"""


@pytest.mark.slow  # two processes import torch and transformers
def test_two_processes_of_gloo_have_all_answers() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    here = Path(__file__).parent
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}
    commands = [[sys.executable, "-c", SCRIPT, str(rank), address] for rank in (0, 1)]
    processes = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in processes:
        errors = process.communicate(timeout=100)[1]
        assert process.returncode == 0, errors
