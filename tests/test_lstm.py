"""Every command on an LSTM: what takes one gives the model's own figures, what cannot says so in one line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from gptkit.cli.main import main
from gptkit.model.loading import load_model
from gptkit.model.model_types import CAUSAL
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_lstm import LSTMDoubleHeadsModel
from gptkit.text.tokenizers.loading import tokenizer_in

TEXT = "".join(f"{i} green bottles, hanging on wall number {i * i};\n" for i in range(400))
SHAPE = {"model_type": "gptkit-lstm", "n_positions": 96, "n_embd": 16, "n_layer": 1, "n_inner": 24}
CPU = "--device cpu --precision fp32"
STEPS = "--steps 8 --micro-batch 3 --tokens-per-step 192 --sequence-length 32 --learning-rate 0.01"
PRETRAIN = f"pretrain text.txt --model lstm.json --tokenizer char {STEPS} {CPU}"
TUNED = f"--task rte --data rte --model pretrained --epochs 1 --batch-size 8 --learning-rate 0.003 {CPU}"


def call(line: str) -> int:
    return main(shlex.split(line))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pre-trained LSTM and one fine-tuned from it."""
    root = tmp_path_factory.mktemp("lstm")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(root)
        patched.setenv("GPTKIT_CACHE", str(root / "cache"))
        Path("text.txt").write_text(TEXT)
        Path("lstm.json").write_text(json.dumps(SHAPE))
        Path("rte").mkdir()
        for split, count in {"train": 26, "dev": 10}.items():
            labels = ("not_entailment", "entailment")
            rows = [f"{i}\t{i % 7} green\thanging on {i}\t{labels[i % 2]}\n" for i in range(count)]
            Path("rte", f"{split}.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + "".join(rows))
        assert call(f"{PRETRAIN} --out pretrained") == 0
        assert call(f"finetune {TUNED} --layer-decay 0.5 --predict dev --out tuned") == 0
    return root


@pytest.fixture(autouse=True)
def _in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GPTKIT_CACHE", str(folder / "cache"))


def asked(line: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    code = call(f"{line} --json")
    captured = capsys.readouterr()
    assert code == 0, captured.err
    found: dict[str, Any] = json.loads(captured.out)
    return found


def test_cards_and_lists_call_it_an_lstm(capsys: pytest.CaptureFixture[str]) -> None:
    card = Path("pretrained/model/README.md").read_text(encoding="utf-8")
    assert "An LSTM language model, pre-trained from scratch" in card
    assert "1 layers, 16 wide, 24 units, 96 positions" in card
    tuned = Path("tuned/model/README.md").read_text(encoding="utf-8")
    assert "An LSTM fine-tuned on rte (entailment)" in tuned
    for text in (card, tuned):
        assert "GPT-" not in text.partition("## Measured")[0]
    assert call("recipes ls") == 0
    listed = [line for line in capsys.readouterr().out.splitlines() if "laptop-lstm" in line]
    assert listed[0].endswith("1 layers, 320 units, 128 wide, 128 positions")


def test_generate_score_and_eval_give_the_models_own_figures(capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = load_model("pretrained/model", types=CAUSAL), tokenizer_in(Path("pretrained/model"))
    ids = tokenizer("3 green", add_special_tokens=False)["input_ids"]
    line = 'generate "3 green" --model pretrained --greedy --max-new-tokens 12 --device cpu'
    [sample] = asked(line, capsys)["samples"]
    written = list(ids)
    with torch.inference_mode():
        for _ in range(12):
            written.append(int(model(torch.tensor([written])).logits[0, -1].argmax()))
        start = torch.tensor([[model.config.bos_token_id, *ids]])
        nll = -model(start[:, :-1]).logits[0].log_softmax(-1).gather(1, start[0, 1:, None]).sum()
    assert sample["token_ids"] == written[len(ids) :]
    [scored] = asked('score "3 green" --model pretrained --device cpu', capsys)["results"]
    assert scored["nll"] == pytest.approx(float(nll), rel=1e-5)
    trained = json.loads(Path("pretrained/result.json").read_text())["bits_per_byte"]
    evaluated = asked(f"eval --model pretrained {CPU}", capsys)["results"]["perplexity/validation"]
    assert evaluated["metrics"]["bits_per_byte"]["value"] == pytest.approx(trained, rel=1e-5)


def test_a_fine_tuned_one_predicts_as_its_run_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(load_model("tuned/model", head=GPTDoubleHeadsModel, types=CAUSAL), LSTMDoubleHeadsModel)
    rows = [json.loads(line) for line in Path("tuned/predictions-dev.jsonl").read_text().splitlines()]
    [answer] = asked('predict "0 green" "hanging on 0" --model tuned --device cpu', capsys)["results"]
    assert [*answer["probabilities"].values()] == pytest.approx(rows[0]["probabilities"], abs=1e-6)
    result = json.loads(Path("tuned/result.json").read_text())
    evaluated = asked(f"eval --model tuned --data rte {CPU}", capsys)["results"]["rte/fine-tuned"]
    assert evaluated["metrics"]["accuracy"]["value"] == result["metrics"]["accuracy"]
    card = Path("tuned/model/README.md").read_text(encoding="utf-8").replace('Path(".")', 'Path("tuned/model")')
    exec(card.partition("```python\n")[2].partition("```")[0], {})
    assert capsys.readouterr().out.strip() in ("entailment", "not_entailment")


def test_every_checkpoint_is_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(f"eval --all-checkpoints pretrained {CPU}", capsys)
    assert [one["step"] for one in found["checkpoints"]] == [*range(1, 9)]


@pytest.mark.slow
def test_two_processes_that_shard_it_train_the_whole_one() -> None:
    assert call(f"{PRETRAIN} --num-processes 2 --accelerate-config fsdp2 --out sharded") == 0
    texts = [Path(run, "metrics.jsonl").read_text() for run in ("sharded", "pretrained")]
    rows, whole = ([json.loads(line) for line in text.splitlines()] for text in texts)
    for row, one in zip(rows, whole, strict=True):
        for name in ("loss", "grad_norm", "val_loss"):
            assert row.get(name, 0) == pytest.approx(one.get(name, 0), rel=1e-5)


@pytest.mark.parametrize("options", ["--study ablation", "--transfer-layers 0", "--dry-run"])
def test_finetune_takes_it_as_it_takes_a_gpt(options: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = asked(f"finetune {TUNED} {options} --out {options.split()[0][2:]}", capsys)
    assert result["memory"]["ddp"]["total"] > 0 if "dry" in options else result["metrics"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("generate x --model pretrained --beams 2", "the model is an LSTM, which runs in torch as it is (--beams)"),
        ("generate x --model pretrained --compile on", "(--compile on)"),
        ("generate x --model pretrained --quantize int8", "(--quantize)"),
        ("generate x --model pretrained --quantize int4 --precision int8", "(--quantize)"),
        ("generate x --model pretrained --steer 0.1=2", "(--steer)"),
        ("score x --model pretrained --quantize int8", "(--quantize)"),
        ("pretrain text.txt --model lstm.json --tokenizer char --tokens-per-step 96 --compile on --out no", "compile"),
        (f"finetune {TUNED} --compile on --out no", "an LSTM has no blocks to compile (--compile on)"),
        ("inspect x --model pretrained --out no.html", "an LSTM has no attention"),
        ("inspect x y --model tuned --out no.html", "an LSTM has no attention"),
        ("probe --task demo-classification --model pretrained --out no", "an LSTM has no attention"),
        *((f"convert pretrained/model no --to {to}", "an LSTM has no attention") for to in ("hf", "gguf", "onnx")),
        *((f"convert pretrained/model no --to {to}", "an LSTM has no attention") for to in ("ctranslate2", "llm.c")),
        ("convert pretrained/model no", "an LSTM has no attention"),
    ],
)
def test_what_cannot_take_it_says_so_in_one_line(
    line: str, says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(line) == 2
    [error] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert says in error
    assert " - " in error
    assert not list(folder.glob("no*"))
