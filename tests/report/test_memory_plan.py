"""A plan's arithmetic against hand-worked numbers, and its table of activations against what autograd keeps."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.model.configuration_gpt import GPTConfig, LSTMConfig
from gptkit.model.loading import class_of, config_from
from gptkit.model.modeling_gpt import DENSE_LENGTH, GPTForCausalLM
from gptkit.model.modeling_lstm import LSTMForCausalLM
from gptkit.pretrain.options import PretrainOptions
from gptkit.report import memory_plan
from gptkit.report.dry_run import Probe, add_probe, line_through
from gptkit.report.memory_plan import Workload
from gptkit.training.checkpoint_files import safetensors_chunks
from gptkit.training.optimizers import build_optimizer
from gptkit.training.step import autocast

SIZES: dict[str, Any] = {"vocab_size": 101, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 4}


def toy(dropout: float = 0.0, **changes: Any) -> GPTForCausalLM:
    model = GPTForCausalLM(GPTConfig(**{**SIZES, **changes}))
    model.set_dropout(dropout)
    return model.train()


def on_meta(**changes: Any) -> GPTForCausalLM:
    with torch.device("meta"):
        return toy(**changes)


def workload(precision: str = "bf16", **changes: Any) -> Workload:
    values = {"rows": 3, "length": 16, "device": "cpu", "evaluation_tokens": 40}
    return Workload(**{**values, "precision": precision, **changes})


def lstm_toy(dropout: float = 0.0, **changes: Any) -> LSTMForCausalLM:
    sizes = {"vocab_size": 101, "n_positions": 64, "n_embd": 32, "n_inner": 128}
    model = LSTMForCausalLM(LSTMConfig(**{**sizes, **changes}))
    model.set_dropout(dropout)
    return model.train()


def kept_by_autograd(model: GPTForCausalLM, rows: int, length: int, precision: str) -> int:
    """Return the bytes of all storages that a forward pass saves, but for the parameters'."""
    storages: dict[int, int] = {}
    saved: list[Tensor] = []
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)  # alive, so that no address comes twice
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(SIZES["vocab_size"], (rows, length))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast("cpu", precision):
        loss = model(input_ids=ids, shift_labels=ids, num_items_in_batch=1, loss_only=True).loss
    assert loss.requires_grad
    return sum(storages.values())


@pytest.mark.parametrize("pre_norm", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(("precision", "length"), [("fp32", 16), ("bf16", 16), ("bf16", DENSE_LENGTH + 8)])
def test_the_table_of_activations_is_what_autograd_keeps(
    precision: str, length: int, dropout: float, pre_norm: bool
) -> None:
    model = toy(dropout, pre_norm=pre_norm, n_positions=length)
    work = workload(precision, length=length)
    by_loss = work.tokens * 32 * 4 + 101 * 32 * 4  # gradients of the hidden states and of the head
    expected = memory_plan.activations(model.config, work) + memory_plan.weight_copies(model, work) + by_loss
    kept = kept_by_autograd(model, 3, length, precision)
    # GPT-1's last layer norm is cast to nothing, and a storage is aligned: a few hundred bytes
    assert kept == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_activations_of_an_lstm_are_about_what_autograd_keeps(precision: str, dropout: float, layers: int) -> None:
    model, work = lstm_toy(dropout, n_layer=layers), workload(precision, length=64)
    by_loss = work.tokens * 32 * 4 + 101 * 32 * 4
    expected = memory_plan.activations(model.config, work) + memory_plan.weight_copies(model, work) + by_loss
    # the workspace is another release's own affair
    assert kept_by_autograd(model, 3, 64, precision) == pytest.approx(expected, rel=0.15)


def test_every_part_of_a_toy_by_hand() -> None:
    """2 layers of 32, 101 entries, 3 sequences of 16 tokens in bf16 without dropout, AdamW."""
    model = on_meta()
    block = 4 * 32 + (96 * 32 + 96) + (32 * 32 + 32) + (128 * 32 + 128) + (32 * 128 + 32)
    parameters = 101 * 32 + 16 * 32 + 2 * block + 2 * 32
    state = memory_plan.state_on_meta(build_optimizer(model.named_parameters(), PretrainOptions()))
    tensors = 2 + 2 * 12 + 2
    memory = memory_of(model, state, strategy="ddp", processes=2)
    layer = 48 * (2 * 32 * 4 + 4 * 4 + 32 * 2 + 3 * 32 * 2 + 4 * 16 * 2 + 32 * 2 + 32 * 2 + 2 * 128 * 2)
    matrices = 2 * (96 * 32 + 32 * 32 + 2 * 128 * 32)
    assert memory.weights == memory.gradients == 4 * parameters
    assert memory.optimizer == 8 * parameters + 4 * tensors  # two moments, and a count of steps for each tensor
    assert memory.activations == (48 + 16) * 8 + 2 * layer + 48 * (32 + 2) * 4 + 2 * matrices
    # three chunks of logits, the head cast, transposed, a part of its gradient and that in fp32; hidden states
    assert memory.logits == 3 * 48 * 101 * 2 + 101 * 32 * (2 + 2 + 2 + 4) + 48 * 32 * (2 + 2 + 4)
    # beside it: 40 tokens scored, their logits in bf16 and twice in fp32; the allocator loses a chunk of training's
    assert memory.evaluation == 40 * 101 * (2 + 4 + 4)
    assert memory.reserve == 1000 + 48 * 101 * 2
    assert memory.gathered == 0
    parts = (*[4 * parameters] * 2, memory.optimizer, memory.activations, memory.logits)
    assert memory.total == sum((*parts, memory.evaluation, memory.reserve))


def memory_of(
    model: GPTForCausalLM, state: dict[str, Tensor], *, strategy: str, processes: int, **changes: Any
) -> Namespace:
    work = workload(**changes)
    state_bytes = memory_plan.bytes_of(state.values())
    found = memory_plan.memory(model, state_bytes, work, baseline=1000, processes=processes)
    return Namespace(**found[strategy])


def test_fsdp_shares_out_what_ddp_repeats() -> None:
    """On a GPU: the loss of a toy is small, so the backward pass is the fullest moment of training."""
    model = on_meta(n_layer=6)
    state = memory_plan.state_on_meta(build_optimizer(model.named_parameters(), PretrainOptions()))
    ddp, fsdp = (
        memory_of(model, state, strategy=strategy, processes=4, device="cuda") for strategy in memory_plan.STRATEGIES
    )
    assert fsdp.weights == fsdp.gradients == -(-ddp.weights // 4)
    assert fsdp.optimizer == -(-ddp.optimizer // 4)
    assert fsdp.activations == ddp.activations  # with all 16-bit copies, which autograd keeps
    block = 4 * sum(parameter.numel() for parameter in model.transformer.h[0].parameters())
    root = 4 * model.num_parameters() - 6 * block
    assert fsdp.gathered == root + (root + 4 * block - fsdp.logits)  # weights; gradients where the loss was


@pytest.mark.parametrize(("tokens", "is_larger"), [(40, False), (4000, True)])
def test_an_evaluation_counts_where_it_is_the_fullest_moment(tokens: int, is_larger: bool) -> None:
    """With FSDP2 it has the whole weights in fp32 beside the shares of weights and state, and no gradients."""
    model = on_meta()
    state = memory_plan.state_on_meta(build_optimizer(model.named_parameters(), PretrainOptions()))
    found = memory_of(model, state, strategy="fsdp2", processes=4, device="cuda", evaluation_tokens=tokens)
    copies = memory_plan.weight_copies(model, workload(device="cuda"))
    scored = tokens * (2 * 32 * 4 + 2 * 128 * 2 + 101 * (4 + 4)) + copies
    needed = found.weights + found.optimizer + 4 * model.num_parameters() + scored + 1000
    assert (found.evaluation > 0) == is_larger
    assert found.total == max(needed, found.total - found.evaluation)


@pytest.mark.parametrize(
    ("preset", "vocabulary", "parameters"),
    [
        ("gpt1", 40478, 116_534_784),
        ("gpt2-small", 50257, 124_439_808),
        ("gpt2-medium", 50257, 354_823_168),
        ("gpt2-large", 50257, 774_030_080),
        ("gpt2-xl", 50257, 1_557_611_200),
        # 40,478 x 768 + 4 x 2,048 x (768 + 2,048 + 2) + 2,048 x 768 + 768
        ("lstm", 40478, 55_745_792),
    ],
)
def test_presets_have_the_papers_parameters(preset: str, vocabulary: int, parameters: int) -> None:
    assert parameters_of(preset, vocabulary) == parameters


@pytest.mark.parametrize(("lstm", "gpt", "vocabulary"), [("lstm-117m", "gpt1", 40478), ("laptop-lstm", "laptop", 4096)])
def test_an_lstm_has_as_many_parameters_as_the_gpt_beside_it(lstm: str, gpt: str, vocabulary: int) -> None:
    assert parameters_of(lstm, vocabulary) == pytest.approx(parameters_of(gpt, vocabulary), rel=0.02)


def parameters_of(preset: str, vocabulary: int) -> int:
    config = config_from(preset, vocab_size=vocabulary)
    with torch.device("meta"):
        return int(class_of(config, GPTForCausalLM)(config).num_parameters())


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "openai-adam"])
def test_the_state_on_meta_is_the_state_of_a_real_step(optimizer: Any) -> None:
    options, model = PretrainOptions(optimizer=optimizer), toy()
    real = build_optimizer(model.named_parameters(), options)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    real.step(torch.ones(()), torch.zeros(()))
    state = memory_plan.state_on_meta(build_optimizer(on_meta().named_parameters(), options))
    there = {name: (tensor.shape, tensor.dtype) for name, tensor in real.state_tensors().items()}
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()} == there
    written = sum(memoryview(chunk).nbytes for chunk in safetensors_chunks(real.state_tensors()))
    assert memory_plan.file_bytes(state) == written


@pytest.mark.parametrize(("micro_batches", "occupied"), [(8, 1), (9, 9 / 16), (1, 1 / 8)])
def test_processes_that_wait_are_counted(micro_batches: int, occupied: float) -> None:
    """1e18 FLOPs on 8 devices that do 4e14 of them a second."""
    seconds = memory_plan.train_seconds(1e18, flops_per_second=4e14, micro_batches=micro_batches, processes=8)
    assert seconds * occupied == pytest.approx(312.5)


def test_a_long_step_is_a_line_through_short_ones() -> None:
    step, token = line_through([(100, 1.5), (200, 2.5), (100, 1.5)])
    assert (step, token) == pytest.approx((0.5, 0.01))
    assert line_through([(100, 1.5), (100, 2.5)]) == pytest.approx((0, 0.02))
    plan = {"device": "cuda", "processes": 1, "steps": 10, "tokens": 4000, "evaluations": 2}
    add_probe(plan, Probe(4, step, token, 2.0, None), 3.0)
    assert plan["here"]["train_seconds"] == pytest.approx(45)
    assert plan["here"]["evaluation_seconds"] == 12
