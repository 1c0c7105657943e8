"""What all tests share: no network, a cache of their own, real text where there is some, and figures of faults."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from figures import Count, Figure, Report, told, write_table

settings.register_profile("gptkit", deadline=None)  # a loaded machine takes any example longer
settings.load_profile("gptkit")

# Before anything imports a library that reads them.
os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"})
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # threads of several workers on a core wait for each other
    threads = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))

CHROMIUM = Path("/usr/bin/chromium")
TABLE = Path(__file__).parents[1] / "benchmarks" / "faults.md"
FIGURES = pytest.StashKey[list[Figure]]()
FIRST = pytest.StashKey[int]()  # of a test's figures


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-full", action="store_true", help="full counts, and the table benchmarks/faults.md")


def is_full(config: pytest.Config) -> bool:
    return bool(config.getoption("--faults-full"))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items if is_full(config) else []:
        if Path(__file__).with_name("faults") in item.path.parents:
            item.add_marker(pytest.mark.timeout(3600))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = config.stash[FIGURES]
    if figures:
        terminalreporter.section("faults injected")
        for figure in sorted(figures, key=lambda one: (one.row, one.fault)):
            terminalreporter.write_line(told(figure))


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Forget the figures of a test that failed."""
    failed = call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception)
    if failed and FIGURES in item.config.stash:
        first = item.stash.get(FIRST, len(item.config.stash[FIGURES]))
        del item.config.stash[FIGURES][first:]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the figures of a worker of xdist to its controller, which keeps the table."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["figures"] = [astuple(one) for one in session.config.stash[FIGURES]]
    elif is_full(session.config) and session.config.stash[FIGURES]:
        write_table(TABLE, session.config.stash[FIGURES])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[FIGURES] += [Figure(*one) for one in getattr(node, "workeroutput", {}).get("figures", [])]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache out of the tests, and the tests out of it."""
    before = os.environ.get("GPTKIT_CACHE")
    os.environ["GPTKIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["GPTKIT_CACHE"]
    else:
        os.environ["GPTKIT_CACHE"] = before


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """Undo what a command line sets for the libraries that it is about to import."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real texts and tokenizer files that GPTKIT_TEST_DATA names."""
    folder = os.environ.get("GPTKIT_TEST_DATA")
    if not folder:
        pytest.skip("GPTKIT_TEST_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses root's
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=sandbox)
        yield browser
        browser.close()


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
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model of characters, half of whose vocabulary has no token."""
    from generation_toy import write_model  # late: it imports torch

    return write_model(tmp_path_factory.mktemp("model"))
