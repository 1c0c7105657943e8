"""Heads of transformers' models: a classifier with markers comes back whole, any other is dropped, and said to be."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, GPT2Config, OpenAIGPTConfig

from gptkit.console import Console
from gptkit.convert import command, hf_heads
from gptkit.convert.options import ConvertOptions
from gptkit.errors import InputError
from gptkit.finetune.inputs import add_task_head, head_config
from gptkit.model.configuration_gpt import GPTConfig, quiet_transformers
from gptkit.model.loading import load_model, save_model
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.tasks.encoding import Markers
from gptkit.text.tokenizers.encoding import encode_pieces
from gptkit.text.tokenizers.kinds import train_tokenizer
from gptkit.text.tokenizers.loading import load_tokenizer

TEXT = "First Citizen: before we proceed any further, hear me speak.\n" * 30
SIZES: dict[str, Any] = {"n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.2}
LABELS = ("bad", "good", "fine")


def converted(source: Path, destination: Path, **options: Any) -> tuple[str, dict[str, Any]]:
    """Return what was logged, and the result."""
    given = ConvertOptions(source=str(source), destination=destination, **options)
    result = command.run(given, Console(stdout=io.StringIO(), stderr=(log := io.StringIO()), environment={}))
    return log.getvalue(), result


def fine_tuned(folder: Path) -> GPTDoubleHeadsModel:
    """Write a classifier of ours, whose bias is not zero, with its tokenizer."""
    tokenizer = train_tokenizer("bpe:280", [TEXT])
    size = len(tokenizer)
    torch.manual_seed(0)
    pretrained = GPTForCausalLM(GPTConfig(vocab_size=size, **SIZES)).eval()
    head = head_config(
        task="demo-classification",
        format="classification",
        labels=LABELS,
        markers=Markers(size, size + 1, size + 2),
    )
    model = add_task_head(pretrained, head, seed=0)
    torch.nn.init.normal_(model.score.weight)
    torch.nn.init.normal_(model.score.bias)
    save_model(model, folder)
    tokenizer.save_pretrained(folder)
    return model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[GPTDoubleHeadsModel, Path]:
    folder = tmp_path_factory.mktemp("exported")
    model = fine_tuned(folder / "ours")
    converted(folder / "ours", folder / "theirs", to="hf")
    return model, folder


def test_a_classifier_that_we_exported_comes_back_whole(
    exported: tuple[GPTDoubleHeadsModel, Path], tmp_path: Path
) -> None:
    model, folder = exported
    log, result = converted(folder / "theirs", tmp_path / "back")
    assert "dropped" not in log
    assert result["peer"].startswith("transformers ")
    assert result["max_logit_difference"] < 1e-5
    back = load_model(tmp_path / "back", head=GPTDoubleHeadsModel)
    for name in ("task", "format", "id2label", "start_token_id", "delimiter_token_id", "extract_token_id"):
        assert getattr(back.config, name) == getattr(model.config, name)
    assert not back.score.bias.any()  # it is in the final layer norm's
    tokenizer, before = load_tokenizer(str(tmp_path / "back")), load_tokenizer(str(folder / "ours"))
    assert tokenizer.get_vocab() == before.get_vocab()
    assert (tokenizer.eos_token_id, tokenizer.pad_token) == (before.eos_token_id, None)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder / "theirs")
    (text,) = encode_pieces(before, ["hear me  speak\n"])
    ids = [model.config.start_token_id, *text.tolist(), model.config.extract_token_id]
    assert AutoTokenizer.from_pretrained(folder / "theirs")("hear me  speak\n").input_ids == ids
    inputs, extract = torch.tensor([[ids]]), torch.tensor([[len(ids) - 1]])
    expected = theirs(input_ids=inputs[0]).logits
    torch.testing.assert_close(back(inputs, extract).logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(inputs, extract).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "GPT2ForSequenceClassification",
        "GPT2ForTokenClassification",
        "GPT2ForQuestionAnswering",
        "GPT2DoubleHeadsModel",
        "OpenAIGPTForSequenceClassification",
        "OpenAIGPTDoubleHeadsModel",
    ],
)
def test_any_other_head_is_dropped_and_named(name: str, tmp_path: Path) -> None:
    sizes = {"vocab_size": 50, "n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2, "num_labels": 2}
    kind = OpenAIGPTConfig if name.startswith("Open") else GPT2Config
    config = kind(**sizes, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    torch.manual_seed(0)
    theirs = getattr(transformers, name)(config).eval()
    theirs.config.id2label = {0: "bad", 1: "good"}
    with quiet_transformers():
        theirs.save_pretrained(tmp_path / "theirs")
    log, _ = converted(tmp_path / "theirs", tmp_path / "ours")
    assert f"the head of {name} (bad, good) is dropped" in log
    ids = torch.randint(50, (2, 16), generator=torch.Generator().manual_seed(0))
    hidden = theirs.transformer(input_ids=ids).last_hidden_state
    torch.testing.assert_close(load_model(tmp_path / "ours").transformer(input_ids=ids).last_hidden_state, hidden)


def edited(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return make


@pytest.mark.parametrize(
    "change",
    [
        edited("tokenizer.json", lambda content: content.update(post_processor=None)),
        edited("tokenizer.json", lambda content: content.update(added_tokens=[3])),
        edited("tokenizer.json", lambda content: content["added_tokens"].pop()),
        edited("tokenizer.json", lambda content: content["added_tokens"][-1].update(id=-1)),
        edited("config.json", lambda content: content.update(pad_token_id=0)),
        edited("config.json", lambda content: content.update(architectures=["GPT2ForTokenClassification"])),
        lambda folder: (folder / "tokenizer.json").unlink(),
    ],
)
def test_a_classifier_without_its_markers_does_not_fit(
    change: Callable[[Path], object], exported: tuple[GPTDoubleHeadsModel, Path], tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for path in (exported[1] / "theirs").iterdir():
        (theirs / path.name).write_bytes(path.read_bytes())
    change(theirs)
    assert hf_heads.markers_in(theirs) is None
    assert "dropped" in hf_heads.notes(theirs)[0]
    _, state = hf_heads.read(theirs)
    assert "score.weight" not in state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(id2label=[1]), "id2label does not name the labels"),
        (lambda content: content.update(id2label={"x": "good"}), "id2label does not name the labels"),
        (lambda content: content.update(id2label={"0": "bad", "2": "good"}), "id2label does not name the labels"),
        (lambda content: content.update(id2label={"0": ["bad"], "1": 3, "2": "fine"}), "id2label"),
        (lambda content: content.update(id2label={"0": "bad", "1": "good"}), r"score\.weight has shape \(3, 16\), not"),
        (lambda content: content.update(finetuning_task=3), "task cannot be 3"),
    ],
)
def test_a_classifier_with_a_damaged_description_is_refused(
    change: Callable[[dict[str, Any]], object],
    message: str,
    exported: tuple[GPTDoubleHeadsModel, Path],
    tmp_path: Path,
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for path in (exported[1] / "theirs").iterdir():
        (theirs / path.name).write_bytes(path.read_bytes())
    edited("config.json", change)(theirs)
    with pytest.raises(InputError, match=message):
        hf_heads.read(theirs)
