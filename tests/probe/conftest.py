"""The probe of a planted unit, made once for all tests of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from planted import write_model, write_texts

from gptkit.console import Console
from gptkit.probe.command import run
from gptkit.probe.options import ProbeOptions


@dataclass(frozen=True)
class Probed:
    folder: Path
    result: dict[str, Any]
    out: str
    said: str

    @property
    def page(self) -> Path:
        return self.folder / "probe/probe.html"


Prober = Callable[..., Probed]


def probed(folder: Path, task: Path) -> Probed:
    """Probe the model in a folder, with a cache of its own."""
    stdout, stderr = io.StringIO(), io.StringIO()
    options = ProbeOptions(task=str(task), model=str(folder / "model"), out=folder / "probe", device="cpu")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GPTKIT_CACHE", str(folder / "cache"))
        result = run(options, Console(stdout=stdout, stderr=stderr, environment={}))
    return Probed(folder, result, stdout.getvalue(), stderr.getvalue())


@pytest.fixture(scope="session")
def prober() -> Prober:
    return probed


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Probed:
    folder = tmp_path_factory.mktemp("planted")
    write_model(folder / "model", planted=True)
    return probed(folder, write_texts(folder))
