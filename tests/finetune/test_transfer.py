"""From a pre-trained model to one with a task's head: what is kept, what is drawn, and directories that come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from gpt_toy import FAMILIES, SIZES, ids, lstm_toy, shaken, toy
from gptkit.convert.command import load_source
from gptkit.errors import InputError, UsageError
from gptkit.finetune.inputs import add_task_head, head_config
from gptkit.model.loading import load_model, save_model
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.tasks.head_outputs import marker_ids

families = pytest.mark.parametrize("pre_norm", FAMILIES)


# --- from a pre-trained model ---


def head(tokenizer_size: int, **changes: Any) -> dict[str, Any]:
    markers = (tokenizer_size, tokenizer_size + 1, tokenizer_size + 2)
    return head_config(
        **{"task": "rte", "format": "entailment", "labels": ("yes", "no"), "markers": markers, **changes}
    )


@families
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("tokenizer_size", "vocab_size"), [(50, 61), (58, 61), (59, 62), (61, 64)])
def test_markers_take_free_rows_before_the_table_grows(
    tokenizer_size: int, vocab_size: int, pre_norm: bool, tied: bool
) -> None:
    model = toy(pre_norm, tie_word_embeddings=tied)
    tuned = add_task_head(model, head(tokenizer_size), seed=1)
    assert tuned.config.vocab_size == vocab_size
    assert (tuned.lm_head.weight is tuned.transformer.wte.weight) == tied
    others = [row for row in range(SIZES["vocab_size"]) if row not in tuned_markers(tuned)]
    for new, old in ((tuned.transformer.wte, model.transformer.wte), (tuned.lm_head, model.lm_head)):
        assert new.weight.shape == (vocab_size, SIZES["n_embd"])
        assert torch.equal(new.weight[others], old.weight[others])
        assert new.weight[tuned_markers(tuned)].std().item() == pytest.approx(0.02, rel=0.25)
    assert torch.equal(tuned.transformer.h[2].mlp.c_fc.weight, model.transformer.h[2].mlp.c_fc.weight)
    sequence = torch.tensor([[3, 4, 5]])
    expected = model(sequence).logits[..., others]
    assert_close(tuned.language_model()(sequence).logits[..., others], expected)  # a wider product may sum otherwise


def tuned_markers(model: GPTDoubleHeadsModel) -> list[int]:
    config = model.config
    return [config.start_token_id, config.delimiter_token_id, config.extract_token_id]


def test_the_classifier_starts_as_published_whatever_the_model_started_with() -> None:
    labels = tuple(f"label {index}" for index in range(40))
    model = add_task_head(toy(initializer_range=0.3), head(58, labels=labels), seed=0)
    assert model.score.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not model.score.bias.any()
    assert model.transformer.wte.weight[58:].std().item() == pytest.approx(0.02, rel=0.25)
    assert not model.training


@pytest.mark.parametrize("model", [toy(True), toy(False), lstm_toy(n_layer=3)], ids=["GPT-2", "GPT-1", "LSTM"])
@pytest.mark.parametrize("kept", [0, 1, 2, 3, "2", None, "none"])
def test_transfer_keeps_the_embeddings_and_the_first_layers(kept: Any, model: GPTForCausalLM) -> None:
    tuned = add_task_head(model, head(58), seed=3, transfer_layers=kept)
    again = add_task_head(model, head(58), seed=3, transfer_layers=kept)
    fresh = add_task_head(model, head(58), seed=3, transfer_layers="none")
    layers = {None: 3, "none": -1}.get(kept, kept)
    theirs, bare = model.state_dict(), fresh.state_dict()
    for name, tensor in tuned.state_dict().items():
        parts = name.split(".")
        height = int(parts[2]) if ".h." in name else {"wte": -1, "wpe": -1, "lm_head": -1}.get(parts[-2], 2)
        is_kept = parts[0] != "score" and int(layers) > height
        source = theirs if is_kept else bare
        assert torch.equal(tensor[:58], source[name][:58]), name
        assert torch.equal(tensor, again.state_dict()[name])
    assert torch.equal(tuned.transformer.wte.weight[58:], fresh.transformer.wte.weight[58:])
    other = add_task_head(model, head(58), seed=4, transfer_layers=kept)
    assert not torch.equal(other.score.weight, tuned.score.weight)


@pytest.mark.parametrize("asked", ["4", "-1", "all", 4, "²"])
def test_layers_that_are_not_there_are_a_usage_error(asked: Any) -> None:
    with pytest.raises(UsageError, match="not a valid number of layers") as caught:
        add_task_head(toy(), head(58), seed=0, transfer_layers=asked)
    assert (caught.value.where, caught.value.fix) == ("--transfer-layers", "pass a number from 0 to 3, or none")


def test_the_generator_is_left_as_it_was() -> None:
    model = toy()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    add_task_head(model, head(58), seed=3)
    assert torch.equal(torch.rand(3), expected)


# --- directories ---


@pytest.fixture
def tuned(tmp_path: Path) -> tuple[GPTDoubleHeadsModel, Path]:
    """A fine-tuned model and its directory."""
    save_model(toy(), tmp_path / "pretrained")
    model = shaken(add_task_head(load_model(tmp_path / "pretrained"), head(60), seed=0))
    save_model(model, tmp_path / "tuned")
    return model, tmp_path / "tuned"


def test_a_fine_tuned_model_comes_back_bit_by_bit(
    tuned: tuple[GPTDoubleHeadsModel, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    model, directory = tuned
    loaded = load_model(directory, head=GPTDoubleHeadsModel)
    plain = GPTDoubleHeadsModel.from_pretrained(directory)
    for found in (loaded, plain, load_source(directory)):
        assert type(found) is GPTDoubleHeadsModel
        assert found.state_dict().keys() == model.state_dict().keys()
        assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
        assert found.lm_head.weight is found.transformer.wte.weight
        assert found.config.id2label == {0: "yes", 1: "no"}
    assert marker_ids(directory, 0) == (60, 61, 62)
    assert marker_ids(directory.parent / "pretrained", 60) == (60, 61, 62)
    example = {"input_ids": torch.tensor([[[60, 3, 61, 4, 62]]]), "extract": torch.tensor([[4]])}
    assert torch.equal(loaded(**example).logits, model(**example).logits)


def test_its_config_says_what_it_was_tuned_for(tuned: tuple[GPTDoubleHeadsModel, Path]) -> None:
    config = json.loads((tuned[1] / "config.json").read_text())
    said = {
        "model_type": "gptkit",
        "architectures": ["GPTDoubleHeadsModel"],
        "task": "rte",
        "format": "entailment",
        "id2label": {"0": "yes", "1": "no"},
        "label2id": {"yes": 0, "no": 1},
        "start_token_id": 60,
        "delimiter_token_id": 61,
        "extract_token_id": 62,
        "classifier_dropout": 0.1,
        "vocab_size": 63,
    }
    assert {key: config[key] for key in said} == said
    pretrained = json.loads((tuned[1].parent / "pretrained" / "config.json").read_text())
    assert not pretrained.keys() & (said.keys() - {"model_type", "architectures", "vocab_size"})


def test_its_language_model_loads_without_a_word(
    tuned: tuple[GPTDoubleHeadsModel, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, directory = tuned
    inside = model.language_model()
    assert inside.lm_head.weight is model.lm_head.weight
    expected = inside(ids()).logits
    capfd.readouterr()
    loaded = load_model(directory)
    assert capfd.readouterr() == ("", "")
    for found in (loaded, inside, AutoModelForCausalLM.from_pretrained(directory)):
        assert type(found) is GPTForCausalLM
        assert torch.equal(found(ids()).logits, expected)
    assert "score" not in capfd.readouterr().err
    for number, found in enumerate((loaded, inside)):
        assert found.config.format is found.config.task is None
        save_model(found, tmp_path / str(number))  # a pre-trained model again
        assert torch.equal(load_model(tmp_path / str(number))(ids()).logits, expected)


def test_a_pretrained_model_has_no_head_to_load(tuned: tuple[GPTDoubleHeadsModel, Path]) -> None:
    with pytest.raises(InputError, match="not fine-tuned") as caught:
        load_model(tuned[1].parent / "pretrained", head=GPTDoubleHeadsModel)
    assert "gptkit finetune" in str(caught.value.fix)


def test_markers_that_are_no_ids_are_refused(tuned: tuple[GPTDoubleHeadsModel, Path]) -> None:
    path = tuned[1] / "config.json"
    config = json.loads(path.read_text())
    for wrong, message in ((63, "extract_token_id must be an id below vocab_size"), (61, "must differ")):
        path.write_text(json.dumps({**config, "extract_token_id": wrong}))
        with pytest.raises(InputError, match=message):
            load_model(tuned[1])
    path.write_text(json.dumps({**config, "format": "entailement"}))
    with pytest.raises(InputError):
        load_model(tuned[1])
