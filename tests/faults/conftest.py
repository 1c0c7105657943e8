"""What the trials share: how many to make, the data and the uninterrupted runs, and the table of their figures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from figures import Count, Figure, Report, told, write_table
from small_runs import Reference, SmallRuns

TABLE = Path(__file__).parents[2] / "benchmarks" / "faults.md"
FIGURES = pytest.StashKey[list[Figure]]()
FIRST = pytest.StashKey[int]()  # of a test's figures


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-full", action="store_true", help="full counts, and the table benchmarks/faults.md")


def is_full(config: pytest.Config) -> bool:
    return bool(config.getoption("--faults-full", default=False))  # unknown where pytest began in another folder


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items if is_full(config) else []:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(3600))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = config.stash[FIGURES]
    if figures:
        terminalreporter.section("faults injected")
        for figure in sorted(figures):
            terminalreporter.write_line(told(figure))


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Forget the figures of a test that failed."""
    failed = call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception)
    if failed and FIGURES in item.config.stash:
        first = item.stash.get(FIRST, len(item.config.stash[FIGURES]))
        del item.config.stash[FIGURES][first:]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if is_full(session.config) and session.config.stash[FIGURES]:
        write_table(TABLE, session.config.stash[FIGURES])


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Count:
    """Say how many trials to make: a sample, or with --faults-full all of them."""
    return lambda sample, full: full if is_full(request.config) else sample


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Report:
    """Report a line of the table: how many faults of which kind, from which seed, and what happened."""
    request.node.stash[FIRST] = len(request.config.stash[FIGURES])

    def report(row: str, fault: str, injected: int, outcome: str, *, seed: int | None = None, bound: str = "") -> None:
        request.config.stash[FIGURES].append(Figure(int(row.removeprefix("R")), fault, injected, seed, outcome, bound))

    return report


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
