"""Inputs of a fine-tuning run: the task's examples as tokens, and the pre-trained model with a new head."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gptkit.console import Console
from gptkit.errors import InputError
from gptkit.finetune.check import predicted_splits, refuse_unusable, trainable_task, transferred_layers
from gptkit.finetune.options import FinetuneOptions
from gptkit.model.configuration_gpt import read_config
from gptkit.model.loading import class_of, load_model, set_special_tokens, weights_sha256
from gptkit.model.model_types import ANY
from gptkit.model.modeling_double_heads import NEW_STD, GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.model_files import GPT, LAYER, MARKER_FIELDS, model_directory
from gptkit.system.run_layout import described_in
from gptkit.tasks.encoding import EncodedExamples, Markers, encode_examples
from gptkit.tasks.frozen_states import fingerprint_of, frozen_states, layers_of
from gptkit.tasks.head_outputs import marker_ids
from gptkit.tasks.heads import output_labels
from gptkit.tasks.reading import load_examples, shared_notes
from gptkit.tasks.task import Task
from gptkit.text.examples import Example
from gptkit.text.tokenizers.any_tokenizer import unknown_note
from gptkit.text.tokenizers.loading import fingerprint, tokenizer_in
from gptkit.training import rules

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HEAD = ("score.", "mix.")
EMBEDDINGS = ("transformer.wte.", "transformer.wpe.")


@dataclass(frozen=True)
class Split:
    """A split of a task: its examples as read from the files, as tokens, and the hash of the files."""

    examples: tuple[Example, ...]
    encoded: EncodedExamples
    sha256: str


@dataclass(frozen=True)
class Inputs:
    """What all runs of one command share, whatever their seeds; each makes its own model from it."""

    task: Task
    model_name: str  # as the user named it
    pretrained: GPTForCausalLM
    tokenizer: PreTrainedTokenizerBase
    head: Mapping[str, Any]  # see `head_config`
    splits: Mapping[str, Split]  # train, dev and those to predict
    identity: Mapping[str, str]  # hashes that a resumed run must match
    tuned: GPTForCausalLM | None = None  # on the task's texts, if `lm_epochs` asks for it
    lm: Mapping[str, Any] | None = None  # figures of the run that tuned it

    @property
    def train(self) -> EncodedExamples:
        return self.splits["train"].encoded

    @property
    def dev(self) -> EncodedExamples:
        return self.splits["dev"].encoded

    def model(self, options: FinetuneOptions) -> GPTDoubleHeadsModel:
        """Return the pre-trained model with a fresh task head, a pure function of the options."""
        pretrained = self.tuned if self.tuned is not None and options.lm_epochs else self.pretrained
        head = {**self.head, "features": options.features, "head": options.head}
        model = add_task_head(pretrained, head, seed=options.seed, transfer_layers=options.transfer_layers)
        if options.dropout is not None:
            model.set_dropout(options.dropout)
        if options.gradient_checkpointing:
            model.activation_checkpointing_enable()
        if options.features != "none":
            freeze(model)
        return model

    def with_states(self, model: GPTDoubleHeadsModel, console: Console) -> Inputs:
        """Return the inputs with what the head of a frozen model reads of train and dev, computed once and cached."""
        frozen, splits = model.language_model(), dict(self.splits)
        sites = layers_of(frozen) if model.mix is not None else layers_of(frozen)[-1:]
        fingerprint = fingerprint_of(frozen)
        for name in ("train", "dev"):
            encoded = splits[name].encoded
            with console.tally(len(encoded), noun=f"{name} examples") as tally:
                found = frozen_states(frozen, encoded, sites, fingerprint=fingerprint, reached=tally.reach)
            splits[name] = replace(splits[name], encoded=replace(encoded, states=tuple(found.values())))
        return replace(self, splits=splits)


def prepare_inputs(options: FinetuneOptions, console: Console) -> Inputs:
    """Read and check the model, then every split that the run needs; log what was read, dropped and truncated.

    Raises UsageError or InputError before anything is trained or written.
    """
    assert options.model is not None
    task = trainable_task(options)
    directory = model_directory(options.model)
    tokenizer = tokenizer_in(directory)
    head = head_config(
        task=task.name,
        format=task.format,
        labels=output_labels(task),
        markers=marker_ids(directory, len(tokenizer)),
        classifier_dropout=options.classifier_dropout,
    )
    pretrained = load_model(directory, types=ANY)
    rules.choose_compile_for(options.compile, pretrained)  # raises for an LSTM
    if options.features != "none" and pretrained.config.model_type != GPT:
        message = f"frozen features are those of an ordinary GPT, not of {pretrained.config.model_type}"
        raise InputError(message, where=str(directory), fix="leave out --features")
    set_special_tokens(pretrained, tokenizer)
    transferred_layers(options.transfer_layers, pretrained.config.n_layer)  # raises if it has fewer
    needed = list(dict.fromkeys(["train", "dev", *predicted_splits(task, options)]))
    splits = _read(task, needed, options.data, directory, tokenizer, console)
    if task.is_own:
        for note in shared_notes({name: splits[name].examples for name in ("train", "dev")}):
            console.warn(note)
    data = "".join(splits[name].sha256 for name in ("train", "dev"))
    identity = {
        "data_sha256": hashlib.sha256(data.encode()).hexdigest(),
        "tokenizer_sha256": fingerprint(tokenizer),
        "model_sha256": weights_sha256(directory),
    }
    return Inputs(task, options.model, pretrained, tokenizer, head, splits, identity)


def prepare_predicted(task: Task, directory: Path, options: FinetuneOptions, console: Console) -> Mapping[str, Split]:
    """Read and check the splits that the fine-tuned model in `directory` will predict."""
    refuse_unusable(task, options)
    return _read(task, predicted_splits(task, options), options.data, directory, tokenizer_in(directory), console)


def _read(
    task: Task,
    names: Sequence[str],
    data: str | None,
    directory: Path,
    tokenizer: PreTrainedTokenizerBase,
    console: Console,
) -> dict[str, Split]:
    """Return splits as tokens; log what was dropped or truncated, and how long the examples are."""
    markers = marker_ids(directory, len(tokenizer))
    limit = read_config(described_in(directory) / "config.json").n_positions
    loaded = {}
    for name in names:
        loaded[name] = load_examples(task, name, data)
        for note in loaded[name].notes:
            console.say(f"{name}: {note}")
    splits = {}
    for name, split in loaded.items():
        encoded = encode_examples(tokenizer, task, split.examples, markers, limit)
        each, longest = encoded.sequences_per_example, encoded.lengths.max()
        mean = encoded.tokens.mean() / each
        several = f"{each} sequences each, " if each > 1 else ""
        line = f"{name}: {len(encoded):,} examples, {several}{mean:.0f} tokens on average, {longest:,} in the longest"
        if encoded.n_truncated:
            fields = ", ".join(f"{count:,} in {field}" for field, count in encoded.truncated.items())
            line += f"; {encoded.n_truncated:,} cut to the model's {limit:,} positions ({fields})"
        console.say(line)
        if encoded.n_unknown:
            console.warn(unknown_note(name, encoded.n_unknown, len(encoded.ids)))
        splits[name] = Split(split.examples, encoded, split.sha256)
    return splits


def head_config(
    *, task: str, format: str, labels: Sequence[str], markers: Markers, classifier_dropout: float = 0.1
) -> dict[str, Any]:
    """Return what a task adds to a model's configuration.

    `labels` name the outputs in order; a score, and a choice's score, is a single output. `markers` are the ids of the
    start, delimiter and extract tokens.
    """
    return {
        "task": task,
        "format": format,
        "classifier_dropout": classifier_dropout,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        **dict(zip(MARKER_FIELDS, markers, strict=True)),
    }


def add_task_head(
    model: GPTForCausalLM, head: Mapping[str, Any], *, seed: int, transfer_layers: str | int | None = None
) -> GPTDoubleHeadsModel:
    """Return the pre-trained model with a fresh head, in eval mode: a pure function of its arguments.

    The embeddings of the markers are drawn from N(0, 0.02), even if the table already has such rows; else it grows.
    `transfer_layers` N keeps the embeddings and the first N blocks (GPT-1 paper, figure 2), and whatever follows them
    if N is all of them; "none" keeps nothing but the sizes, None everything. The rest is initialized as in
    pre-training. UsageError if the model has fewer layers.
    """
    n_layer, markers = model.config.n_layer, [head[name] for name in MARKER_FIELDS]
    kept = transferred_layers(transfer_layers, n_layer)
    entries = max(model.config.vocab_size, max(markers) + 1)
    config = type(model.config)(**{**model.config.without_head().to_diff_dict(), "vocab_size": entries, **head})
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        tuned = class_of(config, GPTDoubleHeadsModel)(config)
        tuned.train(False)
        theirs = model.state_dict()
        for name, tensor in tuned.state_dict().items():
            if name not in theirs or kept is None:
                continue
            if depth_of(name, n_layer) <= kept or kept == n_layer:
                tensor[: len(theirs[name])] = theirs[name]
        # The markers' rows of the embedding and, if it is not tied, of the LM head.
        for table in {id(table): table for table in (tuned.transformer.wte.weight, tuned.lm_head.weight)}.values():
            rows: Tensor = torch.randn(len(markers), table.shape[1]) * NEW_STD
            table[markers] = rows.to(table.dtype)
    return tuned


@torch.no_grad()
def freeze(model: GPTDoubleHeadsModel) -> None:
    """Let only the classifier and its mix be trained; the markers, which the model never saw, become separators."""
    table = model.transformer.wte.weight
    table[[getattr(model.config, name) for name in MARKER_FIELDS]] = table[model.config.bos_token_id].clone()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(HEAD))


def depth_of(name: str, n_layer: int) -> int:
    """Return a parameter's depth: 0 for the embeddings, i + 1 for block i, n_layer + 1 for what follows the blocks."""
    if block := LAYER.match(name):
        return int(block[1]) + 1
    return 0 if name.startswith(EMBEDDINGS) else n_layer + 1
