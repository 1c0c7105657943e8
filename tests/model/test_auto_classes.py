"""After `import gptkit.model` transformers' Auto classes open a model directory of ours, and refuse what it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    pipeline,
)

import gptkit.model  # noqa: F401 - registers the Auto classes
from gpt_toy import toy
from gptkit.model.loading import save_model, set_special_tokens
from gptkit.text.tokenizers.gpt1 import GPT1Tokenizer
from gptkit.text.tokenizers.kinds import train_tokenizer
from gptkit.text.tokenizers.loading import load_tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = ["<unk>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS), "he", "ar</w>", "hear</w>", "\n</w>"]
MERGES = [("h", "e"), ("a", "r</w>"), ("he", "ar</w>")]


def saved(tokenizer: PreTrainedTokenizerBase, directory: Path, *, pre_norm: bool) -> Path:
    """Write a model that always ends the text, and its tokenizer."""
    model = toy(pre_norm, vocab_size=len(tokenizer), n_layer=1, tie_word_embeddings=False)
    set_special_tokens(model, tokenizer)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.transformer.h[0].ln_2.weight.zero_()
        model.transformer.h[0].ln_2.bias.fill_(1.0)
        model.lm_head.weight[model.config.eos_token_id] = 1.0
    save_model(model, directory)
    tokenizer.save_pretrained(directory)
    return directory


def gpt1_directory_is_a_clients(tokenizer: GPT1Tokenizer, text: str, directory: Path) -> None:
    saved(tokenizer, directory, pre_norm=False)
    found = AutoTokenizer.from_pretrained(directory)
    assert type(found) is GPT1Tokenizer
    assert found(text)["input_ids"] == tokenizer(text)["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(directory)
    newline = tokenizer.get_vocab()["\n</w>"]
    assert (model.generation_config.bos_token_id, model.generation_config.eos_token_id) == (newline, newline)
    prompt = torch.tensor([found(text)["input_ids"]])
    ended = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=6, do_sample=False)
    assert ended[0, prompt.shape[1] :].tolist() == [newline]
    write = pipeline("text-generation", model=str(directory), device="cpu")
    assert write(text, max_new_tokens=6, do_sample=False)[0]["generated_text"] == f"{text}\n"


def test_a_small_gpt1_directory(tmp_path: Path) -> None:
    tokenizer = GPT1Tokenizer({piece: id for id, piece in enumerate(PIECES)}, MERGES)
    gpt1_directory_is_a_clients(tokenizer, "hear a hear", tmp_path)


def test_gpt1s_own_tokenizer(test_data: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(test_data / "tokenizers" / "gpt1"))
    assert isinstance(tokenizer, GPT1Tokenizer)
    gpt1_directory_is_a_clients(tokenizer, "it was very positive .", tmp_path)


@pytest.mark.parametrize("kept", [True, False], ids=["as saved", "without tokenizer_config.json"])
def test_a_byte_level_directory_is_not_taken_for_gpt1s(kept: bool, tmp_path: Path) -> None:
    tokenizer = train_tokenizer("bpe:270", ["hear me speak\n" * 5])
    saved(tokenizer, tmp_path, pre_norm=True)
    if not kept:
        (tmp_path / "tokenizer_config.json").unlink()
    found = AutoTokenizer.from_pretrained(tmp_path)
    assert found("hear me")["input_ids"] == tokenizer("hear me")["input_ids"]


def test_no_sequence_classifier_is_promised(tmp_path: Path) -> None:
    """GPTDoubleHeadsModel reads an example's sequences and extract positions, which no client of that class gives."""
    save_model(toy(), tmp_path)
    with pytest.raises(ValueError, match="Unrecognized configuration class"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)
