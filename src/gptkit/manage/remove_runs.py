"""`gptkit runs rm` and `prune`: remove whole runs, or only the checkpoints of finished ones.

A run is removed under its lock. It is renamed to being-removed-NAME first, so that one that cannot be removed stays
whole and one whose removal is interrupted looks like no run; its run.lock goes last.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptkit.console import Console
from gptkit.errors import UsageError
from gptkit.manage.runs import (
    EVALUATION,
    HEADER,
    REMOVING,
    RunsListOptions,
    describe,
    find_run,
    parts,
    read_json,
    rows_under,
)
from gptkit.options import REQUIRED, option
from gptkit.recipes import CONFIG
from gptkit.report.text import size
from gptkit.system import files
from gptkit.system.files import DISCARDED, LOCK, RunLock, size_of
from gptkit.system.run_layout import CHECKPOINTS, DIVERGED, METRICS, MODEL, RESULT, SNAPSHOTS, START
from gptkit.training.finished_runs import RUNS

# What gptkit writes into a run directory, at its top.
FILES = re.compile(
    rf"(?:{CONFIG}|{METRICS}(?:\.damaged)?|{RESULT}|{LOCK}|{DIVERGED}|loss\.png|zero-shot\.(?:png|json))(?:\.tmp)?"
    r"|predictions-.*\.jsonl(?:\.tmp)?|[A-Z][\w-]*\.tsv|gptkit-error-.*\.log|\.DS_Store"  # .tsv: for GLUE's server
)
FOLDERS = re.compile(
    rf"(?:{DISCARDED})?(?:{CHECKPOINTS}|{MODEL}|{SNAPSHOTS}|{START}|seed-\d+)(?:\.tmp)?|tensorboard|wandb|trackio"
)
OWN_NAME = re.compile(r"(?:pretrain|finetune)-.*-\d{8}-\d{6}(?:-\d+)?")  # of a run without --out
WRITABLE = "make it and its folder writable; then rerun the same command"


@dataclass(frozen=True, kw_only=True)
class RunsRemoveOptions(RunsListOptions):
    """Remove runs with all that is in them; a running one is refused, and so is what is no run."""

    runs: tuple[str, ...] = option(REQUIRED, "Names under --root, or paths.", argument=True, metavar="RUN")
    yes: bool = option(False, "Do not ask; needed where nobody can answer.", short="-y")


@dataclass(frozen=True, kw_only=True)
class RunsPruneOptions(RunsRemoveOptions):
    """Remove the checkpoints of finished runs; models and snapshots stay, but no run can be given more steps then."""

    runs: tuple[str, ...] = option(
        (), "Names under --root, or paths [default: all finished runs].", argument=True, metavar="RUN"
    )


def run_remove(options: RunsRemoveOptions, console: Console) -> dict[str, Any]:
    """Remove the runs, once all are known to be runs that nobody uses; return what `--json` prints."""
    paths = _paths(options)
    for path in paths:
        _refuse_what_is_no_run(path)
    sizes = {path: size_of(path) for path in paths}
    with _locked(paths):
        if _agreed("remove", sizes, options, console):
            for path in paths:
                _refuse_what_is_no_run(path)  # somebody may have put a file there while nobody answered
            return _report(((path, _remove) for path in paths), sizes, options, console)
    return _report((), sizes, options, console)


def run_prune(options: RunsPruneOptions, console: Console) -> dict[str, Any]:
    """Remove the checkpoints of finished runs; return what `--json` prints."""
    if options.runs:
        finished = _paths(options)
        for path in finished:
            if (row := describe(path))["state"] != "finished":
                message = f"the run is {row['state']}" + (f": {row['reason']}" if row["reason"] else "")
                raise UsageError(message, where=str(path), fix="only finished runs can do without their checkpoints")
    else:
        finished = [Path(row["path"]) for row in rows_under(options.root) if row["state"] == "finished"]
        finished = [path for path in finished if not path.is_symlink()]
    sizes = {}
    for run in [part for path in finished for part in (path, *parts(path))]:
        folders = (run / CHECKPOINTS, run / f"{DISCARDED}{CHECKPOINTS}")  # the latter of a prune that was interrupted
        if found := [folder for folder in folders if folder.is_dir() and not folder.is_symlink()]:
            sizes[run / CHECKPOINTS] = sum(map(size_of, found))
    with _locked([folder.parent for folder in sizes]):
        sizes = {
            folder: count for folder, count in sizes.items() if (folder.parent / RESULT).is_file()
        }  # still finished
        if _agreed("remove", sizes, options, console):
            return _report(((folder, _prune) for folder in sizes), sizes, options, console)
    return _report((), sizes, options, console)


def _paths(options: RunsRemoveOptions) -> list[Path]:
    """Return the paths of the runs, each once; a link is refused."""
    found: dict[Path, Path] = {}
    for name in options.runs:
        path = find_run(name, options.root)
        if path.is_symlink():
            fix = f"remove the link itself, or pass what it leads to: {os.path.realpath(path)}"
            raise UsageError("this is a link, which is never followed", where=str(path), fix=fix)
        found[Path(os.path.realpath(path))] = path
    return list(found.values())


def _refuse_what_is_no_run(path: Path) -> None:
    """Raise UsageError unless everything in a directory is what gptkit writes into a run."""
    whole = Path(os.path.realpath(path))
    problem = None
    if not path.is_dir():
        problem, fix = "a file is no run", "remove it yourself"
    elif Path.cwd().is_relative_to(whole):
        problem, fix = "the current folder is in it", "go elsewhere first"
    elif outer := next((parent for parent in whole.parents[:2] if (parent / CONFIG).is_file() and parts(parent)), None):
        problem, fix = "this is a part of a run", f"remove the whole run, {outer}"
    elif not _is_marked(whole):
        problem, fix = "this is no run of gptkit", "gptkit runs ls lists them"
    elif others := _others(whole):
        problem, fix = f"the run also holds files of yours: {', '.join(others[:3])}", "move them away first"
    if problem:
        raise UsageError(problem, where=str(path), fix=fix)


def _others(path: Path) -> list[str]:
    """Return the entries of a directory that gptkit writes into no run."""

    def is_ours(entry: Path) -> bool:
        if entry.is_dir() and not entry.is_symlink():
            return FOLDERS.fullmatch(entry.name) is not None or any(entry.glob(f"seed-*/{LOCK}"))  # of a variant
        if entry.suffix == ".json" and entry.is_file() and not FILES.fullmatch(entry.name):
            return read_json(entry).get("schema") == EVALUATION
        return any(pattern.fullmatch(entry.name) for pattern in (FILES, FOLDERS))

    with files.translate_os_errors("looking into the run", fix="make it readable"):
        return sorted(entry.name for entry in path.iterdir() if not is_ours(entry))


def _is_marked(path: Path) -> bool:
    """Return whether a directory says that gptkit made it: by its config.yaml, its lock, or its name."""
    is_rest = path.name.startswith(REMOVING) and not os.listdir(path)
    if is_rest or OWN_NAME.fullmatch(path.name):
        return True
    for name, starts in ((CONFIG, HEADER.match), (LOCK, re.compile("process ").match)):
        with files.translate_os_errors("looking into the run", fix="make it readable"):
            if (path / name).is_file() and starts((path / name).read_text(errors="replace")):
                return True
    return False


@contextlib.contextmanager
def _locked(runs: Sequence[Path]) -> Iterator[None]:
    """Hold the locks of runs, and of the seeds in them."""
    with contextlib.ExitStack() as stack:
        for locked in [part for run in runs for part in (run, *parts(run))]:
            with files.translate_os_errors("taking the lock of the run", fix=WRITABLE):
                stack.callback(RunLock(locked, fix="wait for it, or stop it first").release)
        yield


def _agreed(what: str, sizes: Mapping[Path, int], options: RunsRemoveOptions, console: Console) -> bool:
    """Return whether the user agrees, asking on a terminal; UsageError where nobody can be asked."""
    if options.yes or not sizes:
        return bool(sizes)
    total = size(sum(sizes.values()))
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(f"this would free {total}, and nobody can be asked", where="stdin", fix="pass --yes")
    for path, count in sizes.items():
        console.say(f"{path}  {size(count)}")
    console.say(f"{what} {'all of these' if len(sizes) > 1 else 'it'}, {total}? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _remove(run: Path) -> None:
    if not run.name.startswith(REMOVING):
        names = itertools.chain([f"{REMOVING}{run.name}"], (f"{REMOVING}{run.name}-{n}" for n in itertools.count(2)))
        removed = next(path for path in map(run.with_name, names) if not os.path.lexists(path))
        files.rename(run, removed)
        run = removed
    # The result goes first: without it no command takes the run for a finished one.
    for entry in sorted(run.iterdir(), key=lambda entry: (entry.name != RESULT, entry.name == LOCK, entry.name)):
        if entry.is_dir() or entry.is_symlink():
            files.remove_directory(entry)
        else:
            files.remove_file(entry)
    run.rmdir()
    files.sync_directory(run.parent)


def _prune(folder: Path) -> None:
    files.remove_discarded(folder.parent)
    if folder.is_dir() and not folder.is_symlink():
        files.discard(folder)
    files.sync_directory(folder.parent)


def _report(
    work: Iterable[tuple[Path, Callable[[Path], None]]],
    sizes: Mapping[Path, int],
    options: RunsRemoveOptions,
    console: Console,
) -> dict[str, Any]:
    """Do the work on each path, say what it frees, and return what `--json` prints."""
    removed = []
    for path, remove in work:
        with files.translate_os_errors(f"removing {path}", fix=WRITABLE):
            remove(path)
        removed.append(path)
        console.result(f"removed {path}  {size(sizes[path])}")
    if not removed:
        console.say("nothing was removed" if sizes else "there is nothing to remove")
    root = f" --root {shlex.quote(str(options.root))}" if options.root != RUNS else ""
    total = sum(sizes[path] for path in removed)
    return {"removed": [str(path) for path in removed], "bytes": total, "next": f"gptkit runs ls{root}"}
