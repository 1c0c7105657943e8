"""`gptkit convert --to hf` writes what programs other than gptkit read without a question."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2ForSequenceClassification,
)

from gptkit.console import Console
from gptkit.convert import command
from gptkit.convert.hf import bias_as_shift
from gptkit.convert.options import ConvertOptions
from gptkit.errors import GptkitError, InputError
from gptkit.finetune.inputs import add_task_head, head_config
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.loading import load_model, save_model
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.text.tokenizers.encoding import encode_pieces
from gptkit.text.tokenizers.kinds import train_tokenizer
from gptkit.text.tokenizers.loading import load_tokenizer

TEXT = "First Citizen: before we proceed any further, hear me speak.\n" * 30
FEW = {"n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.2}
LABELS = ("yes", "no", "maybe")


def write_model(folder: Path, spec: str | None = "bpe:280", **sizes: Any) -> Path:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(spec, [TEXT]) if spec else None
    model = GPTForCausalLM(GPTConfig(**{"vocab_size": len(tokenizer) if tokenizer else 280, **FEW, **sizes}))
    save_model(model, folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def write_classifier(folder: Path, format: str = "classification", spec: str = "bpe:280", **sizes: Any) -> Path:
    """Write a fine-tuned model whose classifier has a bias."""
    pooling = {"head": sizes.pop("head", "extract")}
    model = load_model(write_model(folder / "pretrained", spec, **sizes))
    rows = model.config.vocab_size
    head = head_config(task="mine", format=format, labels=LABELS, markers=(rows, rows + 1, rows + 2))
    tuned = add_task_head(model, head | pooling, seed=0)
    torch.nn.init.normal_(tuned.score.bias, std=0.5)
    save_model(tuned, folder / "tuned")
    load_tokenizer(str(folder / "pretrained")).save_pretrained(folder / "tuned")
    return folder / "tuned"


def converted(source: Path, destination: Path, **options: Any) -> tuple[dict[str, Any], str]:
    """Return the result and stderr of an export to hf."""
    err = io.StringIO()
    given = ConvertOptions(source=str(source), destination=destination, to="hf", **options)
    return command.run(given, Console(stdout=io.StringIO(), stderr=err, environment={})), err.getvalue()


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_the_files_are_those_of_gpt2_on_the_hub(tmp_path: Path) -> None:
    result, err = converted(write_model(tmp_path / "source"), made := tmp_path / "made")
    assert err == ""
    assert result["tokenizer_ids_equal"]
    assert result["greedy_equal"]
    config = read(made / "config.json")
    assert config["n_ctx"] == config["n_positions"] == 32
    assert config["architectures"] == ["GPT2LMHeadModel"]
    assert {name.split(".")[0] for name in load_file(made / "model.safetensors")} == {"wte", "wpe", "h", "ln_f"}
    end = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    inputs = ["input_ids", "attention_mask"]
    about = {"model_max_length": 32, "clean_up_tokenization_spaces": False, "add_prefix_space": False}
    about |= {"tokenizer_class": "GPT2Tokenizer", "model_input_names": inputs}
    assert read(made / "tokenizer_config.json") == {**about, **end}
    assert read(made / "special_tokens_map.json") == end
    tokenizer = AutoTokenizer.from_pretrained(made)
    assert read(made / "vocab.json") == tokenizer.get_vocab()
    assert (made / "merges.txt").read_text(encoding="utf-8").startswith("#version: 0.2\n")
    assert len(tokenizer) == 280


def test_an_import_has_the_ids_of_transformers_own_tokenizer(tmp_path: Path) -> None:
    converted(write_model(tmp_path / "source"), made := tmp_path / "made")
    console = Console(stdout=io.StringIO(), stderr=io.StringIO(), environment={})

    def imported(name: str, **options: Any) -> dict[str, Any]:
        return command.run(ConvertOptions(source=str(made), destination=tmp_path / name, **options), console)

    assert imported("with tokenizer.json")["tokenizer_ids_equal"]
    about = read(made / "tokenizer_config.json") | {"add_prefix_space": True}
    (made / "tokenizer_config.json").write_text(json.dumps(about))
    with pytest.raises(GptkitError, match=r"transformers 5\S+ makes other token ids .* with --tokenizer"):
        imported("spaced")
    assert not (tmp_path / "spaced").exists()
    assert imported("spaced", tokenizer=str(made))["tokenizer_ids_equal"] is None
    (made / "tokenizer_config.json").unlink()
    (made / "tokenizer.json").unlink()
    assert imported("with vocab.json")["tokenizer_ids_equal"]


def test_the_two_files_alone_make_the_same_tokenizer(tmp_path: Path) -> None:
    converted(write_model(tmp_path / "source"), made := tmp_path / "made")
    (ids,) = encode_pieces(load_tokenizer(str(made)), [TEXT])
    (made / "tokenizer.json").unlink()
    assert load_tokenizer(str(made)).encode(TEXT) == ids.tolist()


def test_a_tokenizer_of_characters_is_loaded_by_its_plain_class(tmp_path: Path) -> None:
    result, _ = converted(write_model(tmp_path / "source", "char"), made := tmp_path / "made")
    assert result["tokenizer_ids_equal"]
    about = read(made / "tokenizer_config.json")
    assert about["tokenizer_class"] == "PreTrainedTokenizerFast"
    # Else transformers 4.57 gives token types as well, for which GPT-2 adds the embedding of token 0 to each position.
    assert about["model_input_names"] == ["input_ids", "attention_mask"]
    assert not (made / "vocab.json").exists()


def test_untied_weights_keep_the_prefix_that_tells_the_head_from_the_body(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", tie_word_embeddings=False)
    result, _ = converted(source, tmp_path / "made")
    assert result["max_logit_difference"] < 1e-4
    names = load_file(tmp_path / "made" / "model.safetensors").keys()
    assert {name.split(".")[0] for name in names} == {"transformer", "lm_head"}


def test_what_others_ignore_is_said_in_one_warning(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", n_inner=40, activation_function="gelu")
    result, err = converted(source, tmp_path / "made")
    assert result["max_logit_difference"] < 1e-4
    [line] = err.splitlines()
    assert "llama.cpp's converter and mlx-lm ignore n_inner = 40 and the erf GELU;" in line


def test_ctranslate2s_converter_reads_no_layer_norm_epsilon(tmp_path: Path) -> None:
    _, err = converted(write_model(tmp_path / "source", layer_norm_epsilon=1e-3), tmp_path / "made")
    assert err == ("warning: CTranslate2's converter ignores layer_norm_epsilon = 0.001; transformers computes it\n")
    post_norm = write_model(tmp_path / "post-norm", pre_norm=False, layer_norm_epsilon=1e-3)
    assert converted(post_norm, tmp_path / "others")[1] == ""  # which that converter does not take


def test_gpt1_holds_neither_in_transformers_and_is_refused(tmp_path: Path) -> None:
    for number, changes in enumerate(({"n_inner": 40}, {"activation_function": "gelu"})):
        source = write_model(tmp_path / f"source-{number}", None, pre_norm=False, **changes)
        with pytest.raises(InputError, match="openai-gpt supports only"):
            converted(source, tmp_path / "made")
        assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_a_lesser_dtype_is_written_and_its_cost_is_measured(dtype: str, tmp_path: Path) -> None:
    result, _ = converted(write_model(tmp_path / "source"), made := tmp_path / "made", dtype=dtype)
    assert {tensor.dtype for tensor in load_file(made / "model.safetensors").values()} == {
        {"f16": torch.float16, "bf16": torch.bfloat16}[dtype]
    }
    assert result["dtype"] == dtype
    assert 0 < abs(result["nll_difference"]) < 0.02


# --- classifiers ---


def answers_of(folder: Path, texts: list[str]) -> torch.Tensor:
    """Return our own logits (text, label)."""
    model, tokenizer = load_model(folder, head=GPTDoubleHeadsModel), load_tokenizer(str(folder))
    rows = []
    for (ids,) in (encode_pieces(tokenizer, [text]) for text in texts):
        kept = ids.tolist()[: model.config.n_positions - 2]
        sequence = torch.tensor([[[model.config.start_token_id, *kept, model.config.extract_token_id]]])
        rows.append(model(sequence, torch.tensor([[sequence.shape[-1] - 1]])).logits)
    return torch.cat(rows)


@pytest.mark.parametrize("spec", ["bpe:280", "char"])
def test_a_classifier_of_one_text_is_exported_whole(spec: str, tmp_path: Path) -> None:
    source = write_classifier(tmp_path, spec=spec)
    result, err = converted(source, made := tmp_path / "made")
    assert err == ""
    assert result["max_logit_difference"] < 1e-5
    assert result["tokenizer_ids_equal"]
    assert result["greedy_equal"] is result["nll_difference"] is None
    tokenizer = AutoTokenizer.from_pretrained(made)
    model = AutoModelForSequenceClassification.from_pretrained(made)
    assert type(model) is GPT2ForSequenceClassification
    assert model.config.id2label == dict(enumerate(LABELS))
    texts = ["hear me", "before we proceed any further " * 10, "speak", ""]  # padded, truncated, empty
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    assert batch["input_ids"].shape == (4, 32)
    torch.testing.assert_close(model(**batch).logits, answers_of(source, texts), atol=1e-5, rtol=0)


def test_the_bias_that_transformers_lacks_moves_into_the_layer_norm(tmp_path: Path) -> None:
    model = load_model(write_classifier(tmp_path), head=GPTDoubleHeadsModel)
    shift = bias_as_shift(model)
    torch.testing.assert_close(model.score.weight.double() @ shift, model.score.bias.double(), atol=1e-9, rtol=0)
    with torch.no_grad():
        model.score.weight[1] = model.score.weight[0]  # two labels that only the bias tells apart
    assert bias_as_shift(model) is None


@pytest.mark.parametrize(
    ("format", "sizes", "reason"),
    [
        ("entailment", {}, "reads one text, not the sequences of entailment"),
        ("similarity", {}, "reads one text, not the sequences of similarity"),
        ("classification", {"head": "concat"}, "reads the last token's state, not also mean and maximum"),
        ("classification", {"pre_norm": False}, "transformers has no classifier that reads GPT-1's tokens"),
    ],
)
def test_any_other_head_is_dropped_and_said(format: str, sizes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    source = write_classifier(tmp_path, format, **sizes)
    result, err = converted(source, made := tmp_path / "made")
    assert re.search(f"the head for mine is dropped: .*{reason}", err)
    assert result["greedy_equal"]
    assert read(made / "config.json")["architectures"][0].endswith("LMHeadModel")


def test_markers_that_the_tokenizer_cannot_get_are_refused(tmp_path: Path) -> None:
    source = write_classifier(tmp_path)
    train_tokenizer("char", [TEXT]).save_pretrained(tmp_path / "characters")
    with pytest.raises(InputError, match="markers' ids"):
        converted(source, tmp_path / "made", tokenizer=str(tmp_path / "characters"))
    assert not (tmp_path / "made").exists()


# --- the card ---


def run_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the code on a model card as it is printed, and return its names."""
    [code] = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


@pytest.mark.parametrize(("spec", "n_positions"), [("bpe:280", 32), ("char", 32), ("char", 12), ("bpe:280", 64)])
def test_the_code_on_the_card_runs(
    spec: str, n_positions: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    converted(write_model(tmp_path / "source", spec, n_positions=n_positions), made := tmp_path / "made")
    run_card(made, monkeypatch)
    assert "nce u" in capsys.readouterr().out  # the characters' text has no O


def test_the_code_on_a_classifiers_card_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    converted(write_classifier(tmp_path), made := tmp_path / "made")
    run_card(made, monkeypatch)
    out = capsys.readouterr().out
    assert any(label in out for label in LABELS)


@pytest.mark.parametrize("write", [write_model, write_classifier])
def test_a_card_loads_no_tokenizer_where_there_is_none(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "source")
    for file in source.glob("tokenizer*"):
        file.unlink()
    converted(source, made := tmp_path / "made")
    names = run_card(made, monkeypatch)
    assert names["model"].config.n_positions == 32
    assert "tokenizer" not in names
