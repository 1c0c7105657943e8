"""Heads of transformers' gpt2 and openai-gpt models, read: one that fits is kept, any other is dropped.

GPT2ForSequenceClassification answers at the last token of what its tokenizer made of a text, without a bias. Ours
answers at the extract token, which ends each text. So it fits where the tokenizer puts start and extract tokens around
a text, as in what `convert --to hf` writes; a head that was trained on bare texts would have to be trained again.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from gptkit.convert.own import read_weights
from gptkit.errors import InputError
from gptkit.model.configuration_gpt import GPTConfig, parse_config
from gptkit.model.loading import State, checked, read_directory, transposed
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model_files import MARKER_FIELDS, own_name
from gptkit.system.reading import read_json, read_json_object
from gptkit.system.run_layout import described_in
from gptkit.text.tokenizers.loading import tokenizer_in

MARKERS = ("<|start|>", "<|delimiter|>", "<|extract|>")  # the names that a classifier's markers get
CLASSIFIER = "GPT2ForSequenceClassification"
OTHERS = re.compile(r"(GPT2|OpenAIGPT)(For(Sequence|Token)Classification|ForQuestionAnswering|DoubleHeadsModel)")
HEAD = re.compile(r"(score|classifier|qa_outputs|multiple_choice_head)\.")  # their names for a head's tensors
LARGEST_ID = 1 << 31
TASK = "finetuning_task"  # transformers' name for ours in config.json


def _description(folder: Path) -> dict[str, Any]:
    return read_json_object(described_in(folder) / "config.json")


def architecture(folder: Path) -> str | None:
    """Return the class in a directory's config.json if it has a head of its own, None for a language model."""
    named = _description(folder).get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    return name if isinstance(name, str) and OTHERS.fullmatch(name) else None


def markers_in(folder: Path) -> tuple[int, ...] | None:
    """Return the ids of start, delimiter and extract if a classifier's tokenizer puts them around a text, else None."""
    path = folder / "tokenizer.json"
    description = read_json(path) if path.exists() else None
    if architecture(folder) != CLASSIFIER or not isinstance(description, dict):
        return None
    added = description.get("added_tokens")
    listed = [token for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    numbers = {token.get("content"): token.get("id") for token in listed if isinstance(token.get("content"), str)}
    ids = tuple(id for name in MARKERS if isinstance(id := numbers.get(name), int) and 0 <= id < LARGEST_ID)
    if len(ids) < len(MARKERS) or ids[1] != _description(folder).get("pad_token_id"):
        return None
    processor = description.get("post_processor")
    return ids if processor == json.loads(around_a_text(*ids).__getstate__()) else None


def around_a_text(start: int, delimiter: int, extract: int) -> TemplateProcessing:
    """Return what makes a tokenizer put a classifier's markers around each text, and between two."""
    first, between, last = MARKERS
    return TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {between} $B {last}",
        special_tokens=[(first, start), (between, delimiter), (last, extract)],
    )


def notes(folder: Path) -> list[str]:
    """Return what is dropped of a model with a head that does not fit."""
    name = architecture(folder)
    if name is None or markers_in(folder) is not None:
        return []
    labels = _description(folder).get("id2label")
    reason = "gptkit has no equivalent"
    if name == CLASSIFIER:
        reason = "it reads the last token of a bare text, gptkit's a token of its own that follows each text"
    named = f" ({', '.join(map(str, labels.values()))})" if isinstance(labels, dict) else ""
    return [f"the head of {name}{named[:200]} is dropped: {reason}; gptkit finetune trains another"]


def read(folder: Path) -> tuple[GPTConfig, State]:
    """Return the config and weights of a classifier with markers, of any other model without its head."""
    markers = markers_in(folder)
    if markers is None:
        return read_directory(folder, read=language_weights)
    raw, where = _description(folder), str(described_in(folder) / "config.json")
    labels = labels_in(folder)
    head: dict[str, Any] = {
        **dict(zip(MARKER_FIELDS, markers, strict=True)),
        "model_type": "gptkit",
        "task": raw.get(TASK),
        "format": "classification",
        "id2label": {str(index): label for index, label in labels.items()},
        "label2id": {label: index for index, label in labels.items()},
        "architectures": [GPTDoubleHeadsModel.__name__],
        "pad_token_id": None,
    }
    config = parse_config({**parse_config(raw, where).without_head().to_diff_dict(), **head}, where)
    state: State = {}
    for theirs, tensor in read_weights(folder).items():
        if own := theirs if HEAD.match(theirs) else own_name(theirs):
            state[own] = transposed(own, tensor)
    if "score.weight" in state:
        state["score.bias"] = torch.zeros(len(state["score.weight"]), dtype=state["score.weight"].dtype)
    return config, checked(config, state, str(folder), GPTDoubleHeadsModel)


def labels_in(folder: Path) -> dict[int, str]:
    """Return the labels of a classifier's outputs."""
    labels: Any = _description(folder).get("id2label")
    is_listed = isinstance(labels, dict) and all(isinstance(label, str) for label in labels.values())
    if not is_listed or {*labels} != {str(index) for index in range(len(labels))}:
        where = str(described_in(folder) / "config.json")
        raise InputError("id2label does not name the labels 0, 1, ...", where=where, fix="copy the directory again")
    return {int(index): label for index, label in labels.items()}


def language_weights(folder: Path) -> State:
    """Return a directory's tensors without those of a head that is dropped."""
    state = read_weights(folder)
    if architecture(folder) is None:
        return state
    if not any(name.endswith(("wte.weight", "tokens_embed.weight")) for name in state) and "lm_head.weight" in state:
        state["transformer.tokens_embed.weight"] = state["lm_head.weight"]  # OpenAIGPTDoubleHeadsModel ties it so
    return {name: tensor for name, tensor in state.items() if not HEAD.match(name)}


def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a directory; of a classifier's, without the markers, which are not for texts."""
    whole = tokenizer_in(folder)
    if markers_in(folder) is None:
        return whole
    description = json.loads(whole.backend_tokenizer.to_str())
    description["added_tokens"] = [token for token in description["added_tokens"] if token["content"] not in MARKERS]
    description["post_processor"] = None
    roles = {role: token for role, token in whole.special_tokens_map.items() if token not in MARKERS}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer.from_str(json.dumps(description)), **roles)
