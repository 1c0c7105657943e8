"""The HTML page of a probe: one file that a browser opens from the disk; the scripts in html/ draw its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gptkit.probe.fit import Floats
from gptkit.probe.inputs import Inputs
from gptkit.probe.reading import Reader, ReadText, histograms
from gptkit.report.page import SHARED, page_text
from gptkit.system.terminal import safe_text
from gptkit.text.tokenizers.shown import visible

FILES = Path(__file__).with_name("html")
SCRIPTS = (SHARED / "elements.js", SHARED / "charts.js", FILES / "sites.js", FILES / "reading.js", FILES / "start.js")
STYLES = (SHARED / "page.css", FILES / "probe.css")


def page_of(
    result: Mapping[str, Any],
    inputs: Inputs,
    readers: Sequence[Reader],
    values: Sequence[Floats],
    texts: Sequence[ReadText],
) -> str:
    """Return the page; `values` are those of each reader on the reported split, (example,)."""
    labels, names = inputs.reported.labels, inputs.task.labels
    layer, name = readers[1].site
    titles = (f"unit {result['unit']}", f"direction of layer {layer}, {'MLP' if name == 'mlp' else 'residual stream'}")
    data = {
        **result,
        "labels": [visible(name) for name in names],
        "readers": [
            {"title": title, "label": reader.label, **_histogram(own, labels, len(names))}
            for title, reader, own in zip(titles, readers, values, strict=True)
        ],
        "texts": [_text(text) for text in texts],
        "samples": [{**sample, "texts": [safe_text(text) for text in sample["texts"]]} for sample in result["samples"]],
    }
    return page_text(f"Probe of {result['model']} - gptkit probe", SCRIPTS, STYLES, data)


def _histogram(values: Floats, labels: Any, classes: int) -> dict[str, object]:
    edges, counts = histograms(values, labels, classes)
    low, middle, high = np.quantile(values, [0.02, 0.5, 0.98]).tolist()
    return {"edges": edges, "counts": counts, "low": low, "middle": middle, "high": high}


def _text(text: ReadText) -> dict[str, object]:
    values = [[round(value, 4) for value in own.tolist()] for own in text.values]
    return {"label": text.label, "pieces": [visible(piece) for piece in text.pieces], "values": values}
