"""The options of `gptkit probe`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gptkit.options import DeviceName, ReadingOptions, option


@dataclass(frozen=True, kw_only=True)
class ProbeOptions(ReadingOptions):
    """Find out what a frozen model's units know about a task's labels: logistic regression on its states.

    As for the sentiment neuron (Radford, Jozefowicz and Sutskever 2017), on every layer of a GPT. Writes a page,
    probe.html, and result.json.
    """

    task: str = option(
        "demo-classification",
        "A task of classes listed by gptkit tasks, or the YAML file of your own.",
        metavar="NAME|FILE",
    )
    data: str | None = option(
        None,
        "Folder with the task's files, or with one folder per task; hf: = its hub data set. Demo tasks need none.",
        metavar="DIR|hf:[NAME[:CONFIG]]",
    )
    model: str | None = option(
        None, "A model or run directory, or hf:NAME [default: the newest pretrain run].", short="-m", metavar="MODEL"
    )
    out: Path = option(Path("probe"), "The folder to write, which must be new or empty.", short="-o", metavar="DIR")
    seed: int = option(0, "Random seed of the shuffled labels, the fits and the samples.", minimum=0, maximum=2**31 - 1)
    device: DeviceName = option("auto", "Device; auto = a GPU if there is one.", panel="Speed")
