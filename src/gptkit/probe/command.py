"""`gptkit probe`: what the units of a frozen model know of a task's labels, the sentiment neuron's experiment."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import gptkit
from gptkit.console import Console
from gptkit.decoding.engines import open_tokenizer
from gptkit.errors import InputError
from gptkit.model_files import model_directory
from gptkit.probe.fit import FITS, Data, Examples, Probe, probe_site
from gptkit.probe.inputs import Inputs, Labels, probed_task, read_inputs
from gptkit.probe.options import ProbeOptions
from gptkit.probe.results import accuracy_of, best_site, best_unit_site, row_of
from gptkit.probe.summary import print_summary
from gptkit.system import files
from gptkit.system.run_layout import RESULT
from gptkit.system.writing import json_text
from gptkit.training.finished_runs import newest_model, readable_model

if TYPE_CHECKING:  # they import torch
    from gptkit.model.modeling_gpt import GPTForCausalLM
    from gptkit.tasks.frozen_states import Floats, Site

PAGE = "probe.html"
States = dict[str, dict["Site", "Floats"]]  # by split, then (example, unit) by site


def run(options: ProbeOptions, console: Console) -> dict[str, Any]:
    """Fit every site, write the page and result.json, print a summary, and return what --json prints."""
    task = probed_task(options)
    _refuse_taken(options.out)
    name = readable_model(options.model, console) if options.model else newest_model(console)
    directory = model_directory(name)
    console.say("an analogue of the sentiment neuron: a GPT's units and few examples, not an LSTM's and 82 million")

    from gptkit.model.loading import load_model  # imports torch, as do those below
    from gptkit.probe.page import page_of
    from gptkit.probe.reading import direction_reader, held_values, read_texts, unit_reader
    from gptkit.probe.samples import steered_sample
    from gptkit.system.processor import choose_device

    model = load_model(directory).to(choose_device(options.device))  # type: ignore[arg-type]
    tokenizer = open_tokenizer(directory)
    inputs = read_inputs(task, options, tokenizer, model.config.n_positions, console)
    states = _states(model, directory, inputs, console)
    probes = _probes(states, inputs, options.seed, console)
    site, unit_site = best_site(probes), best_unit_site(probes)
    unit = probes[unit_site].best_unit
    reported, labels = states[inputs.reported.name], inputs.reported.labels
    readers = (
        unit_reader(unit_site, unit, reported[unit_site], labels),
        direction_reader(site, probes[site], reported[site], labels),
    )
    texts = read_texts(model, tokenizer, inputs.reported, readers)
    values = held_values(states["train"][unit_site][:, unit])
    hold = partial(steered_sample, directory, unit_site.layer, unit, seed=options.seed, device=options.device)
    samples = [hold(value) for value in values]
    result = _result(name, directory, inputs, probes, options) | {
        "unit": f"{unit_site.layer}.{unit}",
        "unit_accuracy": accuracy_of(probes[unit_site].unit_right)["accuracy"],
        "samples": [sample._asdict() for sample in samples],
    }
    page = page_of(result, inputs, readers, [reader(reported[reader.site]) for reader in readers], texts)
    _write(options.out, page, result)
    print_summary(result, console)
    return result


def _refuse_taken(out: Path) -> None:
    """Raise UsageError unless the folder can be written and holds nothing."""
    files.require_free(out, f"--out {out}")
    files.require_writable(out.resolve().parent / ".probe", f"--out {out}")


def _states(model: GPTForCausalLM, directory: Path, inputs: Inputs, console: Console) -> States:
    """Return the states at the last token of each example."""
    from gptkit.tasks.frozen_states import Site, fingerprint_of, frozen_states

    sites = [Site(layer, name) for layer in range(model.config.n_layer) for name in ("residual", "mlp")]
    splits = {split.name: split for split in (inputs.train, inputs.dev, inputs.reported)}
    largest = max(int(split.encoded.ids.max()) for split in splits.values())
    if largest >= model.config.vocab_size:
        message = f"a text has token id {largest}, but the model's vocabulary ends at {model.config.vocab_size - 1}"
        raise InputError(message, where="--model", fix="use the tokenizer that the model was trained with")
    fingerprint, states = fingerprint_of(directory), {}
    for name, split in splits.items():
        with console.tally(len(split.texts), noun=f"{name} examples") as tally:
            found = frozen_states(model, split.encoded, sites, fingerprint=fingerprint, reached=tally.reach)
        states[name] = found
    return states


def _probes(states: States, inputs: Inputs, seed: int, console: Console) -> dict[Site, Probe]:
    """Return the probe of every site."""
    train, test = states["train"], states[inputs.reported.name]
    rows = inputs.choosing_rows(seed)
    probes: dict[Site, Probe] = {}
    with console.tally(len(train) * FITS, noun="fits") as tally:
        for site in train:
            whole = Examples(np.asarray(train[site]), inputs.train.labels)
            shown = Examples(np.asarray(test[site]), inputs.reported.labels)
            if rows is None:
                data = Data(whole, Examples(np.asarray(states["dev"][site]), inputs.dev.labels), whole, shown)
            else:
                rest = np.setdiff1d(np.arange(len(whole.labels)), rows)
                data = Data(whole.rows(rest), whole.rows(rows), whole, shown)
            done = lambda: tally.reach(tally.done + 1)  # noqa: E731
            probes[site] = probe_site(data, len(inputs.task.labels), seed=seed, fitted=done)
    return probes


def _result(
    name: str, directory: Path, inputs: Inputs, probes: dict[Site, Probe], options: ProbeOptions
) -> dict[str, Any]:
    """Return what the page, the summary and result.json share."""
    rows = {site: row_of(site, probe) for site, probe in probes.items()}
    return {
        "command": "probe",
        "task": inputs.task.name,
        "model": name if name.startswith("hf:") else str(directory),
        "page": str(options.out / PAGE),
        "split": inputs.reported.name,
        "chosen_on": "dev" if inputs.has_test else "a tenth of train",
        "n_train": len(inputs.train.texts),
        "n_dev": len(inputs.dev.texts),
        "n_reported": len(inputs.reported.texts),
        "chance": _chance(inputs.reported.labels),
        "layers": list(rows.values()),
        "best": rows[best_site(probes)],
        "data_sha256": {split.name: split.sha256 for split in (inputs.train, inputs.dev, inputs.reported)},
        "seed": options.seed,
        "version": gptkit.__version__,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _chance(labels: Labels) -> float:
    """Return the accuracy of always naming the most frequent class."""
    return float(np.bincount(labels).max() / len(labels))


def _write(out: Path, page: str, result: dict[str, Any]) -> None:
    with files.translate_os_errors("writing the results", fix="choose another --out"):
        out.mkdir(parents=True, exist_ok=True)
        files.write_atomically(out / PAGE, page)
        files.write_atomically(out / RESULT, json_text(result, indent=1) + "\n")
