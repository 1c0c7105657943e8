from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from gptkit.errors import UsageError
from gptkit.training.processes import make_accelerator
from gptkit.training.rules import (
    Choices,
    Hardware,
    choose_compile,
    choose_micro_batch,
    choose_precision,
    draws_note,
    flops_per_token,
    hardware_of,
    known_peak,
    measured_peak,
    micro_batch_rows,
    reuse,
)

LAPTOP = Hardware("cpu", "a CPU", bf16=True, compiler="/usr/bin/g++", threads=2)
OLD_LAPTOP = dataclasses.replace(LAPTOP, bf16=False, compiler=None)
H100 = Hardware("cuda", "NVIDIA H100 80GB HBM3", bf16=True, compiler="/usr/bin/g++", threads=8, memory=80 << 30)


def test_auto_precision_is_bf16_where_the_processor_has_it() -> None:
    assert choose_precision("auto", LAPTOP) == "bf16"
    assert choose_precision("auto", OLD_LAPTOP) == "fp32"
    assert choose_precision("bf16", LAPTOP) == "bf16"
    assert choose_precision("fp16", H100) == "fp16"
    with pytest.raises(UsageError, match="no bf16") as caught:
        choose_precision("bf16", OLD_LAPTOP)
    assert "--precision auto" in str(caught.value.fix)
    with pytest.raises(UsageError, match="fp16 training needs a CUDA device"):
        choose_precision("fp16", LAPTOP)


def test_auto_compiles_where_it_pays_and_says_so_without_a_compiler() -> None:
    long, short = 1e15, 1e12
    assert choose_compile("auto", LAPTOP, "bf16", total_flops=long) == (True, None)
    assert choose_compile("auto", LAPTOP, "bf16", total_flops=short) == (False, None)
    chosen, line = choose_compile("auto", OLD_LAPTOP, "fp32", total_flops=long)
    assert not chosen
    assert line is not None
    assert "C++ compiler" in line
    assert choose_compile("auto", OLD_LAPTOP, "fp32", total_flops=short) == (False, None)
    assert choose_compile("on", LAPTOP, "bf16", total_flops=short) == (True, None)
    with pytest.raises(UsageError, match="--compile on"):
        choose_compile("on", OLD_LAPTOP, "bf16", total_flops=short)


def sizes(parameters: int, model_type: str = "gptkit", **config: int) -> SimpleNamespace:
    """A model as far as the rules ask."""
    config_of_type = SimpleNamespace(model_type=model_type, **config)
    return SimpleNamespace(num_parameters=lambda: parameters, config=config_of_type)


def test_micro_batches_fill_a_cpus_cache_or_a_gpus_memory() -> None:
    small = sizes(10**7, n_layer=6, n_embd=384)
    assert choose_micro_batch(LAPTOP, small, rows=64, sequence_length=256) == 16
    assert choose_micro_batch(LAPTOP, small, rows=8, sequence_length=256) == 8
    assert choose_micro_batch(LAPTOP, small, rows=8, sequence_length=100_000) == 1
    xl = sizes(1_557_611_200, n_layer=48, n_embd=1600)
    assert 1 <= choose_micro_batch(H100, xl, rows=512, sequence_length=1024) < 16
    assert choose_micro_batch(H100, small, rows=512, sequence_length=1024) == 64


def test_flops_per_token_are_the_published_count() -> None:
    """performance.md: 485 GFLOP/s at 2,647 tokens/s for 6 layers, 384 wide, 256 positions, vocabulary 50,304."""
    blocks = 6 * (12 * 384 * 384 + 13 * 384) + 2 * 384
    model = sizes(50_304 * 384 + 256 * 384 + blocks, n_layer=6, n_embd=384, n_positions=256)
    flops = flops_per_token(model, 256)
    assert flops * 2647 == pytest.approx(485e9, rel=0.01)
    masked = sizes(model.num_parameters(), "gptkit-masked", n_layer=6, n_embd=384, n_positions=256)
    assert flops_per_token(masked, 256) - flops == 6 * 6 * 384 * 256  # attention's other half
    assert flops_per_token(sizes(1000, "gptkit-lstm"), 256) == 6000


def test_a_resumed_run_computes_as_before_or_says_that_bits_may_differ() -> None:
    now = Choices(precision="fp32", compile=False, threads=2, device="a CPU")
    assert reuse(now.facts(), now, LAPTOP) == now
    stored = now.facts() | {"precision": "bf16", "compile": True}
    kept = reuse(stored, now, LAPTOP)
    assert (kept.precision, kept.compile, kept.notes) == ("bf16", True, ())
    kept = reuse(stored | {"threads": 8}, now, dataclasses.replace(LAPTOP, compiler=None))
    assert not kept.compile
    changes = "compile was True, now False; threads was 8, now 2"
    assert kept.notes == (f"bits may differ from an uninterrupted run: {changes}",)


def test_a_run_begun_in_bf16_resumes_on_a_cpu_without_it_and_says_so() -> None:
    now = Choices(precision="fp32", compile=False, threads=2, device="a CPU")
    kept = reuse(now.facts() | {"precision": "bf16"}, now, OLD_LAPTOP)
    assert kept.precision == "fp32"
    assert kept.notes == ("bits may differ from an uninterrupted run: precision was bf16, now fp32",)


def test_facts_of_this_machine() -> None:
    here = hardware_of(torch.device("cpu"))
    assert here.kind == "cpu"
    assert here.name
    assert here.threads == torch.get_num_threads()
    assert known_peak(here, "bf16") is None
    assert known_peak(H100, "bf16") == 989e12
    assert known_peak(dataclasses.replace(H100, name="NVIDIA Unheard-of"), "bf16") is None
    assert measured_peak("fp32", size=128, seconds=0.01) > 1e8


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="no CUDA device"):
        make_accelerator("cuda")


def test_every_process_has_work_and_a_line_says_what_dropout_then_hangs_on() -> None:
    """64 rows, which one GPU takes at once, on 8; where memory cuts finer still, their number decides nothing."""
    assert micro_batch_rows(64, 8) == 8
    note = draws_note(8, 64, 8)
    assert note is not None
    assert "--micro-batch 8 gives the same dropout masks" in note
    assert draws_note(4, 64, 8) is None
    assert draws_note(64, 64, 1) is None
