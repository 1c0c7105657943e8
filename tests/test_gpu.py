"""What only a CUDA device can show: a CPU's numbers, the same bits twice, and no waiting for the device."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from gptkit.cli.main import main
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.lm_loss import lm_loss
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.pretrain.job import language_modeling_loss
from gptkit.pretrain.options import PretrainOptions
from gptkit.training.batches import MicroBatch
from gptkit.training.job import MicroBatching, Plan, TrainingJob
from gptkit.training.loop import train
from gptkit.training.optimizers import build_optimizer
from gptkit.training.processes import make_accelerator

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

VOCABULARY = 203  # no multiple of what the device's products like


def model(**changes: object) -> GPTForCausalLM:
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=VOCABULARY, n_positions=64, n_embd=64, n_layer=2, n_head=2, **changes)
    return GPTForCausalLM(config).eval()


@pytest.mark.parametrize("pre_norm", [True, False])
def test_logits_equal_those_of_the_cpu(pre_norm: bool) -> None:
    ours, ids = model(pre_norm=pre_norm), torch.randint(0, VOCABULARY, (3, 64))
    with torch.no_grad():
        expected = ours(ids).logits
        torch.testing.assert_close(ours.cuda()(ids.cuda()).logits.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_loss_and_gradients_of_aligned_products_equal_the_plain_ones() -> None:
    hidden = torch.randn(40, 64, device="cuda", requires_grad=True)
    weight = torch.randn(VOCABULARY, 64, device="cuda", requires_grad=True)
    targets = torch.randint(0, VOCABULARY, (40,), device="cuda")
    expected = F.cross_entropy(F.linear(hidden, weight), targets, reduction="sum")
    loss = lm_loss(hidden, weight, targets)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    gradients = torch.autograd.grad(expected, (hidden, weight))
    torch.testing.assert_close(torch.autograd.grad(loss, (hidden, weight)), gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "openai-adam"])
def test_steps_between_log_steps_never_wait_for_the_device(optimizer: str) -> None:
    waits(optimizer, log_every=5)  # the first run of a process makes what later ones find
    assert waits(optimizer, log_every=40) == waits(optimizer, log_every=5)


def waits(optimizer: str, *, log_every: int) -> int:
    """Return how often a run waited between its first logged step and its second."""
    ours, options = model().train().cuda(), PretrainOptions(optimizer=optimizer)  # type: ignore[arg-type]
    ids = torch.randint(0, VOCABULARY, (4, 65))
    batch = {"input_ids": ids[:, :-1].contiguous(), "shift_labels": ids[:, 1:].contiguous()}
    optimizers = build_optimizer(ours.named_parameters(), options, precision="bf16")
    plan = Plan(steps=100, log_every=log_every, precision="bf16")
    micro_batches = [MicroBatch(0, 256, lambda: batch), MicroBatch(4, 256, lambda: batch)]
    job = TrainingJob(
        model=ours,
        loss_function=language_modeling_loss,
        micro_batching=MicroBatching(batches_of=lambda rows: lambda step: micro_batches),
        optimizer=optimizers,
        schedule=lambda step: 1.0,
        plan=plan,
    )
    events = train(job, make_accelerator("cuda"))
    next(events)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            next(events)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    events.close()
    return sum("synchroniz" in str(one.message) for one in caught)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_command_gives_the_same_bytes_and_greedy_text_is_that_of_the_cpu(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path / "cache"))
    Path("text.txt").write_text("".join(f"{i} green bottles, hanging on wall number {i * i};\n" for i in range(400)))
    flags = "--model tiny --tokenizer char --steps 12 --tokens-per-step 512 --sequence-length 32 --micro-batch 8"
    common = f"{flags} --dropout 0.1 --log-every 6 --eval-every 6 --compile off --device cuda --precision {precision}"
    for out in ("one", "two"):
        assert main(["pretrain", "text.txt", *common.split(), "--out", out, "--json"]) == 0
    assert weights_of("one") == weights_of("two")
    capsys.readouterr()
    texts = []
    for device in ("cpu", "cuda"):
        words = f"generate --model one/model --greedy --max-new-tokens 20 --precision fp32 --device {device} --json"
        assert main([*words.split(), "7 green"]) == 0
        texts.append(json.loads(capsys.readouterr().out)["samples"][0]["text"])
    assert texts[0] == texts[1]


def weights_of(run: str) -> str:
    return hashlib.sha256(Path(run, "model", "model.safetensors").read_bytes()).hexdigest()
