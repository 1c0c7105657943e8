"""`gptkit probe`: what the units of a frozen model know of a task's labels, the sentiment neuron's experiment."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
from gptkit.text.tokenizers.any_tokenizer import AnyTokenizer
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
    from gptkit.system.processor import choose_device

    model = load_model(directory).to(choose_device(options.device))  # type: ignore[arg-type]
    tokenizer = open_tokenizer(directory)
    inputs = read_inputs(task, options, tokenizer, model.config.n_positions, console)
    states = _states(model, inputs, console)
    probes = _probes(states, inputs, options.seed, console)
    result = _result(name, directory, inputs, probes, options)
    result |= _samples(directory, states["train"], probes, options)
    page = _page(model, tokenizer, inputs, states[inputs.reported.name], probes, result)
    _write(options.out, page, result)
    print_summary(result, console)
    return result


def _refuse_taken(out: Path) -> None:
    """Raise UsageError unless the folder can be written and holds nothing."""
    files.require_free(out, f"--out {out}")
    files.require_writable(out.resolve().parent / ".probe", f"--out {out}")


def _states(model: GPTForCausalLM, inputs: Inputs, console: Console) -> States:
    """Return the states at the last token of each example."""
    from gptkit.tasks.frozen_states import Site, fingerprint_of, frozen_states

    sites = [Site(layer, name) for layer in range(model.config.n_layer) for name in ("residual", "mlp")]
    splits = {split.name: split for split in (inputs.train, inputs.dev, inputs.reported)}
    largest = max(int(split.encoded.ids.max()) for split in splits.values())
    if largest >= model.config.vocab_size:
        message = f"a text has token id {largest}, but the model's vocabulary ends at {model.config.vocab_size - 1}"
        raise InputError(message, where="--model", fix="use the tokenizer that the model was trained with")
    fingerprint, states = fingerprint_of(model), {}
    for name, split in splits.items():
        with console.tally(len(split.texts), noun=f"{name} examples") as tally:
            found = frozen_states(model, split.encoded, sites, fingerprint=fingerprint, reached=tally.reach)
        states[name] = found
    return states


def _probes(states: States, inputs: Inputs, seed: int, console: Console) -> dict[Site, Probe]:
    """Return the probe of every site."""
    classes, rows = len(inputs.task.labels), inputs.choosing_rows(seed)
    probes: dict[Site, Probe] = {}
    with console.tally(len(states["train"]) * FITS, noun="fits") as tally:
        for site in states["train"]:
            data = _data(states, inputs, site, rows)
            probes[site] = probe_site(data, classes, seed=seed, fitted=lambda: tally.reach(tally.done + 1))
    return probes


def _data(states: States, inputs: Inputs, site: Site, rows: NDArray[np.int64] | None) -> Data:
    """Return the examples of a site; `rows` of train choose the strength where they are given, else dev does."""
    train, dev, shown = (
        Examples(np.asarray(states[split.name][site]), split.labels)
        for split in (inputs.train, inputs.dev, inputs.reported)
    )
    if rows is None:
        return Data(train, dev, train, shown)
    rest = np.setdiff1d(np.arange(len(train.labels)), rows)
    return Data(train.rows(rest), train.rows(rows), train, shown)


def _samples(
    directory: Path, train: dict[Site, Floats], probes: dict[Site, Probe], options: ProbeOptions
) -> dict[str, Any]:
    """Return the best unit of an MLP, its accuracy, and texts written while it is held at three values."""
    from gptkit.probe.reading import held_values
    from gptkit.probe.samples import steered_sample

    site = best_unit_site(probes)
    unit = probes[site].best_unit
    hold = partial(steered_sample, directory, site.layer, unit, seed=options.seed, device=options.device)
    return {
        "unit": f"{site.layer}.{unit}",
        **{f"unit_{name}": value for name, value in accuracy_of(probes[site].unit_right).items()},
        "samples": [hold(value)._asdict() for value in held_values(train[site][:, unit])],
    }


def _page(
    model: GPTForCausalLM,
    tokenizer: AnyTokenizer,
    inputs: Inputs,
    states: dict[Site, Floats],
    probes: dict[Site, Probe],
    result: dict[str, Any],
) -> str:
    """Return the page; `states` are those of the reported split."""
    from gptkit.probe.page import page_of
    from gptkit.probe.reading import direction_reader, read_texts, unit_reader

    labels, site, unit_site = inputs.reported.labels, best_site(probes), best_unit_site(probes)
    readers = (
        unit_reader(unit_site, probes[unit_site].best_unit, states[unit_site], labels),
        direction_reader(site, probes[site], states[site], labels),
    )
    texts = read_texts(model, tokenizer, inputs.reported, readers)
    return page_of(result, inputs, readers, [reader(states[reader.site]) for reader in readers], texts)


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
