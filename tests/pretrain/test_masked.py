"""`gptkit pretrain --objective masked`: its batches, its validation, and which commands take such a model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gpt_toy import SIZES
from gptkit.cli.main import main
from gptkit.model.configuration_gpt import MaskedConfig, read_config
from gptkit.model.modeling_masked import MaskedGPT
from gptkit.pretrain.command import _overfitting
from gptkit.pretrain.job import language_modeling_loss
from gptkit.pretrain.masked import masked_batches, validate_masked
from gptkit.tasks.head_outputs import marker_ids
from gptkit.text.blocks import TrainingBlocks
from gptkit.text.masking import NOT_CHOSEN, VALIDATION_SEED, is_chosen, mask_row
from gptkit.training.batches import Batch, StopEvaluation

MASK, LENGTH, ROWS = 60, 6, 7
TEXT = "".join(f"{i} green bottles, hanging on wall number {i * i};\n" for i in range(400))


@pytest.fixture(scope="module")
def model() -> MaskedGPT:
    torch.manual_seed(0)
    return MaskedGPT(MaskedConfig(**SIZES, mask_token_id=MASK)).eval()


def blocks(seed: int = 3) -> TrainingBlocks:
    return TrainingBlocks(np.arange(101, dtype=np.uint16) % MASK, LENGTH, seed)


def step_of(number: int, micro_batch: int) -> tuple[list[Batch], list[int], int]:
    make = masked_batches(
        blocks(), sequence_length=LENGTH, rows_per_step=ROWS, micro_batch=micro_batch, mask_token=MASK, seed=3
    )
    parts = make(number)
    return [part.load() for part in parts], [part.count for part in parts], sum(part.tokens or 0 for part in parts)


@pytest.mark.parametrize("micro_batch", [1, 3, 7])
def test_a_steps_masks_and_count_do_not_depend_on_how_it_is_cut(micro_batch: int, model: MaskedGPT) -> None:
    for number in (1, 2, 3, 4):
        loaded, counts, tokens = step_of(number, micro_batch)
        read, labels = (torch.cat([one[name] for one in loaded]) for name in ("input_ids", "shift_labels"))
        rows = blocks().rows((number - 1) * ROWS, ROWS)[:, :-1]
        expected = [mask_row(row, MASK, seed=3, row=(number - 1) * ROWS + place) for place, row in enumerate(rows)]
        assert read.tolist() == [row.tolist() for row, _ in expected]
        assert labels.tolist() == [row.tolist() for _, row in expected]  # a row's own tokens, not shifted
        assert counts == [int((one["shift_labels"] != NOT_CHOSEN).sum()) for one in loaded]
        assert tokens == ROWS * LENGTH
        with torch.no_grad():
            loss = sum(language_modeling_loss(model, one, sum(counts)) for one in loaded)
            logits = model(input_ids=read).logits.flatten(0, 1)
        torch.testing.assert_close(loss, F.cross_entropy(logits, labels.flatten()), rtol=1e-5, atol=1e-5)


def test_a_step_without_masked_tokens_has_a_loss_and_a_gradient_of_0(model: MaskedGPT) -> None:
    make = masked_batches(
        TrainingBlocks(np.arange(99, dtype=np.uint16) % MASK, 1, 0),
        **{"sequence_length": 1, "rows_per_step": 2, "micro_batch": 1, "mask_token": MASK, "seed": 0},
    )
    empty = next(step for step in range(1, 50) if [part.count for part in make(step)] == [1, 0])
    parts = [part.load() for part in make(empty)]
    assert all((part["shift_labels"] == NOT_CHOSEN).all() for part in parts)
    loss = sum(language_modeling_loss(model, part, torch.tensor(1.0)) for part in parts)
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    assert loss == 0
    assert all(one.grad is None or not one.grad.any() for one in model.parameters())
    model.zero_grad()


@pytest.mark.parametrize("tokens", [6, 31, 64])
def test_validation_is_that_of_a_plain_loop_over_one_masking(tokens: int, model: MaskedGPT) -> None:
    ids = np.random.default_rng(tokens).integers(0, MASK, tokens).astype(np.uint16)
    losses: list[float] = []
    with torch.no_grad():
        for number, start in enumerate(range(0, tokens, LENGTH)):
            window = ids[start : start + LENGTH].astype(np.int64)
            read, labels = map(torch.from_numpy, mask_row(window, MASK, seed=VALIDATION_SEED, row=number))
            each = F.cross_entropy(model(input_ids=read[None]).logits[0], labels, reduction="none")
            losses += each[labels != NOT_CHOSEN].tolist()
        named: dict[str, Any] = {"sequence_length": LENGTH, "mask_token": MASK, "rows": 3}
        found = validate_masked(model, ids, **named, should_stop=lambda: False)
    assert found.keys() == {"masked_loss"}
    assert found["masked_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    with pytest.raises(StopEvaluation):
        validate_masked(model, ids, **named, should_stop=lambda: True)


def test_no_validation_text_is_without_masked_tokens() -> None:
    assert is_chosen(VALIDATION_SEED, 0, 1).all()


# --- the command ---


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/masked, runs/causal and the masked model fine-tuned, runs/tuned."""
    root = tmp_path_factory.mktemp("masked")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(root)
        patched.setenv("GPTKIT_CACHE", str(root / "cache"))
        Path("text.txt").write_text(TEXT)
        for objective in ("masked", "causal"):
            assert main(words(f"runs/{objective}", "--objective", objective)) == 0
        rows = "".join(f"bottle {i},{'odd' if i % 2 else 'even'}\n" for i in range(24))
        Path("own.csv").write_text(f"text,label\n{rows}")
        Path("own.yaml").write_text(
            "name: own\nformat: classification\nlabels: [odd, even]\nmetrics: [accuracy]\n"
            "splits: {train: own.csv, dev: own.csv}\n"
        )
        tune = ["finetune", "--task", "own.yaml", "--model", "runs/masked", "--epochs", "1", "--batch-size", "8"]
        assert main([*tune, "--out", "runs/tuned"]) == 0
    return root


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("GPTKIT_CACHE", str(place / "cache"))


def words(out: str, *more: str) -> list[str]:
    flags = "--model tiny --tokenizer char --steps 4 --tokens-per-step 128 --sequence-length 32 --compile off"
    return ["pretrain", "text.txt", *flags.split(), "--eval-every", "2", "--out", out, *more]


def test_a_run_has_a_masked_loss_and_no_other(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads(Path("runs/masked/result.json").read_text())
    assert [result[name] for name in ("val_loss", "val_perplexity", "bits_per_byte")] == [None] * 3
    assert 0 < result["best"]["masked_loss"] <= result["masked_loss"]
    assert result["tokens"] == 4 * 128
    rows = [json.loads(line) for line in Path("runs/masked/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "masked_loss" in row] == [2, 4]
    assert not any("val_loss" in row for row in rows)
    config = read_config(Path("runs/masked/model/config.json"))
    assert isinstance(config, MaskedConfig)
    entries = read_config(Path("runs/causal/model/config.json")).vocab_size
    assert (config.mask_token_id, config.vocab_size) == (entries, entries + 1)
    assert [*marker_ids(Path("runs/masked/model"), entries)] == [entries + 1, entries + 2, entries + 3]
    card = Path("runs/masked/model/README.md").read_text()
    assert "A masked GPT-2 (pre-norm) language model" in card
    assert "gptkit generate" not in card
    assert "text-generation" not in card
    for line in (["runs", "show", "masked"], ["runs", "ls"], ["runs", "compare", "masked", "causal"]):
        assert main(line) == 0
        out, err = capsys.readouterr()
        assert "masked loss" in out or "masked_loss" in out
        assert "losses of masked tokens and of next tokens are not comparable" in err or line[1] != "compare"


def test_another_seed_is_validated_on_the_same_masks(capsys: pytest.CaptureFixture[str]) -> None:
    start = ["--model", "runs/masked", "--learning-rate", "0"]
    line = ["pretrain", "text.txt", "--objective", "masked", "--steps", "1", "--tokens-per-step", "128", *start]
    losses = set()
    for seed in ("1", "2"):
        assert main([*line, "--sequence-length", "32", "--seed", seed, "--out", f"runs/seed-{seed}", "--json"]) == 0
        losses.add(json.loads(capsys.readouterr().out)["masked_loss"])
        shutil.rmtree(f"runs/seed-{seed}")
    assert losses == {json.loads(Path("runs/masked/result.json").read_text())["masked_loss"]}


def test_memorizing_is_told_without_a_command_that_such_a_model_lacks(tmp_path: Path) -> None:
    kept = tmp_path / "snapshots" / "step-000120"
    kept.mkdir(parents=True)
    (kept / "MANIFEST.json").write_text("{}")
    figures = {"best": {"step": 120, "masked_loss": 2.0}, "masked_loss": 3.0, "val_loss": None}
    note = str(_overfitting({**figures, "steps": 240, "run_dir": str(tmp_path)}))
    assert "rose to 3" in note
    assert f"are kept: --model {kept}" in note


MASKED_MODEL = "a masked model predicts no next token"
REFUSED = {
    "generate --model runs/masked": MASKED_MODEL,
    "generate --model runs/tuned": MASKED_MODEL,
    "score abc --model runs/masked": MASKED_MODEL,
    "eval --model runs/masked": f"{MASKED_MODEL}, so it cannot answer perplexity",
    "eval --model runs/masked --task lambada": f"{MASKED_MODEL}, so it cannot answer lambada",
    "eval --model runs/masked --task cnn-dm": f"{MASKED_MODEL}, so it cannot answer cnn-dm",
    "eval --model runs/tuned --task perplexity": f"{MASKED_MODEL}, so it cannot answer perplexity",
    "eval --model runs/masked --task blimp/sum": f"{MASKED_MODEL}, so it cannot answer blimp/sum",
    "eval --model runs/causal --task blimp/pseudo-log-likelihood": "is for masked language models",
    "eval --all-checkpoints runs/masked": MASKED_MODEL,
    "inspect abc --model runs/masked": MASKED_MODEL,
    "probe --task own.yaml --model runs/masked": MASKED_MODEL,
    "convert runs/masked elsewhere": MASKED_MODEL,
    "convert runs/masked elsewhere --to hf": MASKED_MODEL,
    "runs show masked --samples": MASKED_MODEL,
    "pretrain text.txt --model runs/masked --out x": "this model predicts masked tokens, not the next one",
    "pretrain text.txt --model runs/causal --objective masked --out x": "this model reads from left to right",
    "pretrain --resume runs/masked --objective causal": "objective was masked, now causal",
    "pretrain --resume runs/causal --objective masked": "objective was causal, now masked",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_a_masked_model_cannot_do_is_refused_in_one_line(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    errors = [each for each in capsys.readouterr().err.splitlines() if each.startswith("error: ")]
    assert len(errors) == 1
    assert REFUSED[line] in errors[0]
    assert not Path("x").exists()
    assert not Path("elsewhere").exists()


def test_a_fine_tuned_masked_model_predicts_and_is_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "bottle 3", "--model", "runs/tuned", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["results"]
    assert answer["label"] in ("odd", "even")
    assert main(["eval", "--model", "runs/tuned", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["results"]["own/fine-tuned"]["metrics"]["accuracy"]["value"]
    assert result == json.loads(Path("runs/tuned/result.json").read_text())["metrics"]["accuracy"]


def test_blimp_is_answered_by_pseudo_log_likelihood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = {"UID": "causative", "sentence_good": "12 green bottles", "sentence_bad": "12 green bottle"}
    rows = [{**pair, "pairID": str(number)} for number in range(3)]
    (tmp_path / "causative.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["eval", "--model", "runs/masked", "--task", "blimp-causative", "--data", str(tmp_path), "--json"]
    assert main(line) == 0
    assert [*json.loads(capsys.readouterr().out)["results"]] == ["blimp-causative/pseudo-log-likelihood"]
