"""What the trials share: the data and the uninterrupted runs. Their figures are kept by the conftest above."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_runs import Reference, SmallRuns


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallRuns:
    """The small command lines, with their data and the model to fine-tune in place."""
    from children import run_command

    small = SmallRuns(tmp_path_factory.mktemp("small"))
    small.write()
    words = small.pretrain(small.pretrained.parent, steps=1)
    made = run_command(words, log=small.folder / "pretrained-log")
    assert made.wait() == 0, made.err
    return small


@pytest.fixture(scope="session")
def reference(small: SmallRuns) -> Reference:
    """Return the uninterrupted run of a kind (pretrain, finetune), made once; called `run`, as trials should be.

    Its effects on files are noted beside it: see `effects.effects_of`.
    """
    from children import start
    from effects import TRACE, recorded

    made: dict[str, Path] = {}

    def run(kind: str, **changes: object) -> Path:
        key = f"{kind} {sorted(changes.items())}"
        if key not in made:
            out = small.folder / f"reference-{len(made)}" / "run"
            out.parent.mkdir()
            words = small.words(kind, out, **changes)
            child = start(recorded, words, out, out.parent / TRACE, log=out.parent / "log")
            assert child.wait() == 0, child.err
            made[key] = out
        return made[key]

    return run


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path) -> Iterator[None]:
    """Keep what a child writes where it stands (./runs) in the trial's own folder."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield
    os.chdir(before)
