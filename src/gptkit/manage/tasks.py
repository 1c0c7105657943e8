"""`gptkit tasks`: list the tasks of finetune and the protocols of eval, and show examples as a model reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gptkit.console import Console
from gptkit.errors import UsageError, nearest
from gptkit.manage.options import TasksOptions, TasksShowOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from gptkit.tasks.encoding import Markers
    from gptkit.tasks.task import Evaluation, Task
    from gptkit.text.examples import Example

Sequence = tuple[list[int], dict[str, Any]]  # ids, and what else --json prints

SHOWN = 512  # tokens of a sequence; --json has all


def run(options: TasksOptions, console: Console) -> dict[str, Any]:
    """Print a table of the tasks with GPT-1's score in percent, their data sources, and the protocols of eval."""
    from gptkit.tasks.table import EVALUATIONS, TASKS

    tasks = [_facts(task) for task in TASKS.values()]
    rows = []
    for task in tasks:
        sizes = [f"{task['sizes'][split]:,}" if split in task["sizes"] else None for split in ("train", "dev", "test")]
        score = task["published"] and f"{task['published']['value']:.1f}"
        rows.append((task["name"], task["format"], task["metrics"][0], *sizes, score))
    console.table("", ("task", "format", "metric", "train", "dev", "test", "GPT-1"), rows)
    console.table("", ("task", "data"), [(task["name"], task["data"]) for task in tasks])
    protocols = [(name, ", ".join(protocol.name for protocol in row.protocols)) for name, row in EVALUATIONS.items()]
    console.table("", ("eval task", "protocols"), protocols)
    return {"tasks": tasks}


def _facts(task: Task) -> dict[str, Any]:
    """Return what --json prints of a task; sizes are as published, or counted where the examples are generated."""
    published, hub = task.published, task.hub
    return {
        "name": task.name,
        "format": task.format,
        "labels": list(task.labels),
        "target": task.target,
        "metrics": list(task.metrics),
        "splits": list(task.splits),
        "sizes": {split: len(task.make(split)) for split in task.splits} if task.make else dict(task.sizes),
        "published": published
        and {
            "metric": published.measure,
            "value": round(100 * published.value, 1),
            "source": published.source,
            **{name: task.ablation.get(name) for name in ("full", "no_pretraining", "no_aux")},
            "note": task.note,
        },
        "data": task.data,
        "hub": hub and hub.name,
    }


def run_show(options: TasksShowOptions, console: Console) -> dict[str, Any]:
    """Print an example and its sequences; return what --json prints."""
    from gptkit.tasks.own import is_task_file
    from gptkit.tasks.table import TASKS, find_evaluation, find_task, names_of_evaluations
    from gptkit.training.finished_runs import newest_model, readable_model

    name = options.task
    row = find_task(name) if name in TASKS or is_task_file(name) else find_evaluation(name)
    if row is None:
        near = nearest(name[:60], [*TASKS, *names_of_evaluations()])
        fix = f"did you mean {near!r}?" if near else "see gptkit tasks"
        raise UsageError(f"no task is called {name[:60]!r}", where="NAME", fix=fix)
    example, shown = _example(row, options)
    try:
        model = readable_model(options.model, console) if options.model else newest_model(console)
    except UsageError as error:
        if options.model:
            raise
        model = None
        console.warn(f"no token sequences without a model: {error}")
    sequences = _sequences(row, example, model) if model else []
    rows: list[tuple[str, Any]] = []
    for field, text in shown["fields"].items():
        rows += [(field, text)] if isinstance(text, str) else [(f"{field} {n}", each) for n, each in enumerate(text)]
    split = f" of {shown['split']}" if shown["split"] else ""
    title = f"{name}: example {options.index}{split} ({example.where})"
    console.table(title, ("field", "text"), rows if shown["label"] is None else [*rows, ("label", shown["label"])])
    for number, sequence in enumerate(sequences, start=1):
        _print_sequence(f"sequence {number} of {len(sequences)}", sequence, console)
    if sequences:
        console.say("ids in parentheses: tokens that are read, not predicted")
    return {"task": name, "data": options.data, "model": model, **shown, "sequences": sequences}


def _example(row: Task | Evaluation, options: TasksShowOptions) -> tuple[Example, dict[str, Any]]:
    """Return the example that the options choose, and what --json prints of it."""
    from gptkit.tasks.reading import load_examples
    from gptkit.tasks.table import TASKS
    from gptkit.tasks.task import FORMAT_FIELDS, Task

    split, index = options.split, options.index
    labelled = row if isinstance(row, Task) else TASKS.get(row.name)  # an evaluation of the same examples
    splits = tuple(row.splits) if isinstance(row, Task) else ()
    if split is not None and split not in splits:
        fix = f"choose one of {', '.join(splits)}" if splits else "leave it out"
        raise UsageError(f"{options.task} has no split {split!r}", where="--split", fix=fix)
    if isinstance(row, Task):
        split = split or splits[0]
        examples = load_examples(row, split, options.data).examples
    else:
        examples = row.load(options.data).examples
    if index >= len(examples):
        raise UsageError(f"there are {len(examples):,} examples", where="--index", fix=f"pass 0 to {len(examples) - 1}")
    example = examples[index]
    names = FORMAT_FIELDS[row.format] if isinstance(row, Task) else row.fields
    label: str | float | None = example.label
    if labelled is not None and labelled.target == "class" and isinstance(label, int):
        label = labelled.labels[label]
    fields = dict(zip(names, example.fields, strict=True))
    return example, {"split": split, "index": index, "fields": fields, "label": label}


def _sequences(row: Task | Evaluation, example: Example, model: str) -> list[dict[str, Any]]:
    """Return the sequences of an example as the model reads them: each `ids, pieces, supervised, cut`."""
    from gptkit.model.configuration_gpt import mask_token_of, read_config
    from gptkit.model_files import source_directory
    from gptkit.system.run_layout import described_in
    from gptkit.tasks.head_outputs import marker_ids
    from gptkit.tasks.task import Task
    from gptkit.text.tokenizers.loading import tokenizer_in
    from gptkit.text.tokenizers.shown import pieces_of

    directory = source_directory(model)
    tokenizer = tokenizer_in(directory)
    config = read_config(described_in(directory) / "config.json")
    limit, mask = config.n_positions, mask_token_of(config)
    names: dict[int, str] = {}  # of the tokens that the tokenizer does not have
    if isinstance(row, Task):
        markers = marker_ids(directory, len(tokenizer))
        names = {id: f"<{name}>" for name, id in markers._asdict().items()}
        found = _trained_on(row, example, tokenizer, markers, limit)
        if mask is not None:  # any token of a text may be masked, no marker
            found = [(ids, {**more, "supervised": [id < mask for id in ids], "masked": True}) for ids, more in found]
    else:
        found = _scored(row, example, tokenizer, limit)
    return [
        {"ids": ids, "pieces": [names.get(id) or pieces_of(tokenizer, [id])[0] for id in ids], **more}
        for ids, more in found
    ]


def _trained_on(
    task: Task, example: Example, tokenizer: PreTrainedTokenizerBase, markers: Markers, limit: int
) -> list[Sequence]:
    """Return the sequences that fine-tuning makes of an example, and what its auxiliary LM loss predicts of them."""
    import numpy as np
    import torch

    from gptkit.model.modeling_double_heads import predicting_positions
    from gptkit.tasks.encoding import encode_examples

    encoded = encode_examples(tokenizer, task, [example], markers, limit)
    batch = encoded.select(np.array([0]))
    rows, extract = batch["input_ids"][0], batch["extract"]
    positions = predicting_positions(torch.from_numpy(extract), rows.shape[1]).numpy()
    predicted = np.zeros(rows.size, bool)
    predicted[positions[positions >= 0] + 1] = True
    found = []
    for ids, flags, last in zip(rows, predicted.reshape(rows.shape), extract[0], strict=True):
        more = {"supervised": flags[: last + 1].tolist(), "cut": list(encoded.truncated)}
        found.append((ids[: last + 1].tolist(), more))
    return found


def _scored(evaluation: Evaluation, example: Example, tokenizer: PreTrainedTokenizerBase, limit: int) -> list[Sequence]:
    """Return the sequences that the protocols of eval make of an example, and which tokens they score."""
    from gptkit.decoding.text_options import TextModelOptions, prompt_room
    from gptkit.scoring.encoder import Encoder
    from gptkit.scoring.protocols import GeneratedProtocol, Request, ScoredProtocol

    encoder = Encoder(tokenizer, limit)
    found: dict[tuple[bytes, int], Sequence] = {}
    for protocol in evaluation.protocols:
        requests: tuple[Request, ...] = ()
        if isinstance(protocol, ScoredProtocol):
            (requests,) = protocol.requests([example], encoder)
        elif isinstance(protocol, GeneratedProtocol):  # the model writes what follows
            (ids,) = encoder.encode([protocol.prompt(example)])
            room = prompt_room(limit, TextModelOptions(**protocol.options).max_new_tokens)
            requests = (Request(ids[-room:], min(len(ids), room), cut=len(ids) > room),)
        for request in requests:
            scored = [place >= request.start for place in range(len(request.ids))]
            more = {"supervised": scored, "cut": ["beginning"] if request.cut else [], "protocols": []}
            key = request.ids.tobytes(), request.start
            found.setdefault(key, (request.ids.tolist(), more))[1]["protocols"].append(protocol.name)
    return [*found.values()]


def _print_sequence(title: str, sequence: dict[str, Any], console: Console) -> None:
    from gptkit.text.tokenizers.shown import visible

    ids, own = sequence["ids"], sequence["supervised"]
    scored, cut = sequence.get("protocols"), sequence["cut"]
    role = "may be masked for the auxiliary loss" if "masked" in sequence else "predicted by the auxiliary LM loss"
    what = f"{sum(own):,} of them {role}"
    if scored:
        protocols = f"eval's {', '.join(scored)}"
        what = f"{sum(own):,} of them scored by {protocols}" if any(own) else f"the prompt of {protocols}"
    note = f"; cut to fit the model: {', '.join(cut)}" if cut else ""
    console.result(f"{title}: {len(ids):,} tokens, {what}{note}")
    notes = [str(id) if is_own else f"({id})" for id, is_own in zip(ids, own, strict=True)]
    console.tokens([visible(piece) for piece in sequence["pieces"][:SHOWN]], notes[:SHOWN])
    if len(ids) > SHOWN:
        console.result(f"... and {len(ids) - SHOWN:,} more, which --json prints")
