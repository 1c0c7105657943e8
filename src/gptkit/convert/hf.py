"""Plain transformers' format: gpt2, or openai-gpt for GPT-1; matrices are (in, out), names are those of the hub.

It is what llama.cpp's converter, CTranslate2's, mlx-lm and transformers from 4.57 read too. A classifier of one text
becomes GPT2ForSequenceClassification, whose tokenizer puts the markers around each text.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    OpenAIGPTLMHeadModel,
    OpenAIGPTTokenizer,
    PreTrainedTokenizerBase,
)
from transformers.configuration_utils import PreTrainedConfig

import gptkit
from gptkit.console import Console
from gptkit.convert import hf_heads, own
from gptkit.convert.formats import Exporter, Importer
from gptkit.convert.hf_heads import MARKERS, TASK, around_a_text
from gptkit.convert.proof import Peer
from gptkit.convert.torch_peer import TorchPeer
from gptkit.errors import InputError
from gptkit.model.configuration_gpt import GPTConfig, foreign_config, hf_config, quiet_transformers
from gptkit.model.loading import Head, State, read_safetensors, transposed
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTPreTrainedModel
from gptkit.model_files import EMBEDDINGS, MARKER_FIELDS
from gptkit.report.text import code_block
from gptkit.system.reading import read_json_object
from gptkit.system.run_layout import described_in
from gptkit.system.writing import json_text
from gptkit.text.tokenizers.any_tokenizer import END_OF_TEXT
from gptkit.text.tokenizers.files import CONFIG_FILE, LAYOUTS, find_tokenizer, has_tokenizer, tokenizer_files
from gptkit.text.tokenizers.gpt1 import GPT1Tokenizer
from gptkit.text.tokenizers.kinds import is_byte_level

BATCH = "batch = tokenizer(['a text', 'another'], padding=True, truncation=True, return_tensors='pt')"
PREFIX = "transformer."


def matches(path: Path) -> bool:
    return (described_in(path) / "config.json").exists()


def tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer in a directory, None if there is none."""
    return hf_heads.tokenizer(folder) if has_tokenizer(described_in(folder)) else None


def open_source(folder: Path, kind: Head, with_tokenizer: bool) -> Peer:
    """Return the model in a directory as transformers' own class, built from our reading of its tensors."""
    config, is_classifier = foreign_config(folder / "config.json"), kind is GPTDoubleHeadsModel
    theirs: type[Any] = GPT2LMHeadModel if isinstance(config, GPT2Config) else OpenAIGPTLMHeadModel
    read = own.read_weights if is_classifier else hf_heads.language_weights
    if is_classifier:
        theirs, config.id2label = GPT2ForSequenceClassification, hf_heads.labels_in(folder)
    with quiet_transformers():
        model = theirs.from_pretrained(None, config=config, state_dict=read(folder))
    found = _their_tokenizer(folder, config) if with_tokenizer else None
    return _peer(model, found, is_classifier)


def _their_tokenizer(folder: Path, config: PreTrainedConfig) -> Any:
    """Return transformers' own tokenizer of a directory, None if there is none that it can read."""
    if not has_tokenizer(described_in(folder)) or find_tokenizer(folder)[1] not in LAYOUTS[:3]:
        return None
    with tempfile.TemporaryDirectory() as alone, quiet_transformers():
        for file in tokenizer_files(folder):  # it would open others too, which may be anything
            shutil.copy(file, alone)
        try:
            return AutoTokenizer.from_pretrained(alone, config=config, trust_remote_code=False)
        except Exception:  # whatever its parsing runs into; our reading has passed its checks
            return None


def _peer(model: Any, tokenizer: Any, is_classifier: bool) -> TorchPeer:
    """Return a model of transformers as a peer; a classifier's tokenizer puts the markers around a text."""
    encode = partial(tokenizer.encode, add_special_tokens=is_classifier, verbose=False) if tokenizer else None
    forward = partial(classify, model) if is_classifier else None
    return TorchPeer(model, encode, name="transformers", version=transformers.__version__, forward=forward)


def classify(model: GPT2ForSequenceClassification, ids: Tensor) -> Tensor:
    """Return the logits (1, label) of ids (1, position) that begin and end with a marker."""
    logits: Tensor = model(input_ids=ids).logits
    return logits


# --- what fits ---


def head_obstacle(model: GPTDoubleHeadsModel) -> str | None:
    """Return why GPT2ForSequenceClassification cannot hold this classifier, None if it can."""
    if not model.config.pre_norm:
        return "transformers has no classifier that reads GPT-1's tokens"
    if model.config.format != "classification":
        return f"GPT2ForSequenceClassification reads one text, not the sequences of {model.config.format}"
    if model.config.head == "concat":
        return "GPT2ForSequenceClassification reads the last token's state, not also mean and maximum"
    if bias_as_shift(model) is None:
        return "GPT2ForSequenceClassification has no bias"
    return None


def bias_as_shift(model: GPTDoubleHeadsModel) -> Tensor | None:
    """Return the shift (n_embd,) of the final layer norm's bias that acts as the classifier's bias, None if none does.

    It solves weight @ shift = bias, as it can unless the rows of the weight (label, n_embd) depend on each other.
    """
    weight, bias = model.score.weight.detach().double(), model.score.bias.detach().double()
    shift: Tensor = torch.linalg.pinv(weight) @ bias
    fits = torch.allclose(weight @ shift, bias, rtol=1e-6, atol=1e-6)
    return shift if fits and float(shift.abs().max()) < 100 else None


def refuse(model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, dtype: str) -> None:
    """Raise InputError for a configuration or markers that transformers' classes cannot express."""
    hf_config(model.config)
    refuse_markers(model, tokenizer)


def refuse_markers(model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Raise InputError if a classifier's markers cannot become the next entries of the tokenizer."""
    if isinstance(model, GPTDoubleHeadsModel) and tokenizer is not None:
        markers = [getattr(model.config, name) for name in MARKER_FIELDS]
        free = [*range(len(tokenizer), len(tokenizer) + len(markers))]
        if markers != free or {*MARKERS} & tokenizer.get_vocab().keys():
            message = f"the markers' ids {markers} are not the {free} that come after the tokenizer's entries"
            raise InputError(message, where="--tokenizer", fix="pass the tokenizer that the model was fine-tuned with")


# --- writing ---


def write(
    model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path, dtype: str, console: Console
) -> None:
    """Write the weights, exact where they are in this dtype already, with what describes them, and a card."""
    if ignored := _ignored_elsewhere(model.config):
        console.warn(f"{' and '.join(ignored)}; transformers computes it")
    config, state = hf_config(model.config), to_hf(model.config, own.saved_state(model))
    theirs: type[Any] = GPT2LMHeadModel if model.config.pre_norm else OpenAIGPTLMHeadModel
    if isinstance(model, GPTDoubleHeadsModel):
        theirs, state = GPT2ForSequenceClassification, _classifier_state(model, state)
        config.id2label, config.label2id = model.config.id2label, model.config.label2id
        config.pad_token_id = model.config.delimiter_token_id  # which no single text has
        setattr(config, TASK, model.config.task)
    elif model.config.tie_word_embeddings:
        state = {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}  # as the hub has them
    config.n_ctx = model.config.n_positions  # llama.cpp and mlx-lm look for it
    with torch.device("meta"), quiet_transformers():
        empty = theirs(config)
    own.write_description(empty, config, folder, dtype)
    own.write_weights(state, folder, dtype)
    if tokenizer is not None:
        write_tokenizer(tokenizer, model, folder, console)
    (folder / "README.md").write_text(card(model, theirs.__name__, tokenizer), encoding="utf-8")


def _ignored_elsewhere(config: GPTConfig) -> list[str]:
    """Return the settings that some other reader of a gpt2 config.json ignores, and which."""
    if not config.pre_norm:  # openai-gpt, which only transformers reads
        return []
    unlike_gpt2 = [
        *([f"n_inner = {config.n_inner}"] if config.inner_width != 4 * config.n_embd else []),
        *(["the erf GELU"] if config.activation_function == "gelu" else []),
    ]
    epsilon = config.layer_norm_epsilon
    return [
        *([f"llama.cpp's converter and mlx-lm ignore {' and '.join(unlike_gpt2)}"] if unlike_gpt2 else []),
        *([f"CTranslate2's converter ignores layer_norm_epsilon = {epsilon}"] if epsilon != 1e-5 else []),
    ]


def to_hf(config: GPTConfig, state: State) -> State:
    """Return our state dict with the names and layout of gpt2 or openai-gpt; matrices are transposed views."""
    theirs: State = {}
    for name, tensor in state.items():
        if not config.pre_norm:
            for foreign, ours in EMBEDDINGS.items():
                name = name.replace(ours, foreign)
        theirs[name] = transposed(name, tensor)
    return theirs


def _classifier_state(model: GPTDoubleHeadsModel, state: State) -> State:
    """Return the tensors of GPT2ForSequenceClassification, its bias moved into that of the final layer norm."""
    shift = bias_as_shift(model)
    assert shift is not None, "head_obstacle lets no other pass"
    state = {name: tensor for name, tensor in state.items() if name not in ("lm_head.weight", "score.bias")}
    last = f"{PREFIX}ln_f.bias"
    return state | {last: (state[last].double() + shift).to(state[last].dtype)}


def write_tokenizer(
    tokenizer: PreTrainedTokenizerBase, model: GPTPreTrainedModel, folder: Path, console: Console
) -> None:
    """Write the tokenizer as what it is to plain transformers; a classifier's adds the markers."""
    roles = {role: token for role, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    about: dict[str, Any] = {
        "model_max_length": model.config.n_positions,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],  # transformers 4 adds token types, which GPT-2 embeds
    }
    if isinstance(tokenizer, GPT1Tokenizer):
        console.warn("plain transformers splits text for GPT-1 differently: ids differ, and there is no newline token")
        added = sorted(tokenizer.added_tokens_encoder.items(), key=lambda item: item[1])
        theirs = OpenAIGPTTokenizer(tokenizer.vocabulary, tokenizer.merges)  # type: ignore[arg-type]
        theirs.add_tokens([token for token, _ in added], special_tokens=True)
        theirs.save_pretrained(folder)
        about |= {"tokenizer_class": "OpenAIGPTTokenizer", "unk_token": str(theirs.unk_token)}
        (folder / CONFIG_FILE).write_text(json_text(about, indent=2) + "\n", encoding="utf-8")
        return
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    if isinstance(model, GPTDoubleHeadsModel):
        backend.add_special_tokens([*MARKERS])
        backend.post_processor = around_a_text(*(int(backend.token_to_id(token) or 0) for token in MARKERS))
        roles |= {"pad_token": MARKERS[1]}
    about["tokenizer_class"] = "PreTrainedTokenizerFast"
    if is_byte_level(tokenizer) and END_OF_TEXT in tokenizer.get_vocab():
        about |= {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False}
        roles = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT) | roles
        backend.model.save(str(folder))  # for those that read no tokenizer.json; vocab.json lacks the added tokens
        entries = dict(sorted(backend.get_vocab().items(), key=lambda item: item[1]))
        (folder / "vocab.json").write_text(json_text(entries) + "\n", encoding="utf-8", newline="")
    backend.save(str(folder / "tokenizer.json"))
    (folder / CONFIG_FILE).write_text(json_text(about | roles, indent=2) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json_text(roles, indent=2) + "\n", encoding="utf-8")


def card(model: GPTPreTrainedModel, theirs: str, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """Return a model card that says how to load the directory."""
    config = model.config
    kind = "text-classification" if isinstance(model, GPTDoubleHeadsModel) else "text-generation"
    auto = "AutoModelForSequenceClassification" if isinstance(model, GPTDoubleHeadsModel) else "AutoModelForCausalLM"
    code = [f"from transformers import {auto}, AutoTokenizer", "", "tokenizer = AutoTokenizer.from_pretrained('.')"]
    code += [f"model = {auto}.from_pretrained('.')"]
    note = f"It reads at most {config.n_positions:,} tokens."
    if tokenizer is None:
        code = [f"from transformers import {auto}", "", code[-1]]
        note += " There is no tokenizer here."
    elif isinstance(model, GPTDoubleHeadsModel):
        code += [BATCH, "print([model.config.id2label[int(row.argmax())] for row in model(**batch).logits])"]
        note = (
            "The tokenizer puts the start and extract tokens around each text; the model answers at the last of them."
        )
    else:
        prompt = "Once upon a time"[: max(1, config.n_positions // 2)]  # a token has at least a character
        count = max(1, min(40, config.n_positions - len(prompt)))
        code += [f"ids = tokenizer('{prompt}', return_tensors='pt')"]
        code += [f"print(tokenizer.decode(model.generate(**ids, max_new_tokens={count})[0]))"]
    shape = f"{config.n_layer} layers, {config.n_embd} wide, {config.n_head} heads, {config.n_positions} positions"
    return "\n".join(
        [
            f"---\nlibrary_name: transformers\npipeline_tag: {kind}\ntags: [gptkit]\n---\n",
            f"# {theirs}\n",
            f"{model.num_parameters():,} parameters: {shape}, {config.vocab_size:,} tokens.",
            f"Written by gptkit {gptkit.__version__}.\n",
            f"## Use\n\n{code_block(chr(10).join(code), 'python')}\n\n{note}\n",
        ]
    )


# --- the proof ---


def open_peer(folder: Path) -> Peer:
    """Load a directory that was just written, the way a user of transformers would."""
    is_classifier = "GPT2ForSequenceClassification" in read_json_object(folder / "config.json")["architectures"]
    auto: Any = AutoModelForSequenceClassification if is_classifier else AutoModelForCausalLM
    with quiet_transformers():
        model = auto.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        is_there = (folder / CONFIG_FILE).exists()
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True) if is_there else None
    return _peer(model, tokenizer, is_classifier)


IMPORTER = Importer(matches, hf_heads.read, hf_heads.notes, tokenizer, open_source)
EXPORTER = Exporter(write, open_peer, refuse, head_obstacle=head_obstacle, tensors=read_safetensors)
