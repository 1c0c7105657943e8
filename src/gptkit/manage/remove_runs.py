"""`gptkit runs rm` and `prune`: remove whole runs, or only the checkpoints of finished ones.

A run is removed under its lock. It is renamed to being-removed-NAME first, so that one that cannot be removed stays
whole and one whose removal is interrupted does not look like a run; its run.lock goes last.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from gptkit.console import Console
from gptkit.errors import UsageError
from gptkit.manage.compare_runs import EVALUATION
from gptkit.manage.options import RunsPruneOptions, RunsRemoveOptions
from gptkit.manage.run_rows import HEADER, REMOVING, describe, find_run, parts, read_json
from gptkit.manage.runs import rows_under
from gptkit.recipes import CONFIG
from gptkit.report.text import on_one_line, size
from gptkit.system import files, run_layout
from gptkit.system.files import DISCARDED, LOCK, RunLock, size_of
from gptkit.system.run_layout import CHECKPOINTS, DIVERGED, LM, METRICS, MODEL, PEERS, RESULT, RUNS, SNAPSHOTS, START

# What gptkit writes into a run directory, at its top.
FILES = re.compile(
    rf"(?:{CONFIG}|{METRICS}(?:\.damaged)?|{RESULT}|{LOCK}|{DIVERGED}|(?:loss|study)\.png"
    rf"|zero-shot\.(?:png|json)|predictions-.*\.jsonl|{run_layout.LM_TEXTS})(?:\.tmp)?"
    r"|[A-Z][\w-]*\.tsv|gptkit-error-.*\.log|\.DS_Store"  # .tsv: for GLUE's server
)
FOLDERS = re.compile(
    rf"(?:{DISCARDED})?(?:{CHECKPOINTS}|{MODEL}|{SNAPSHOTS}|{START}|{LM}|{PEERS}|seed-\d+)(?:\.tmp)?"
    r"|tensorboard|wandb|trackio"
)
OWN_NAME = re.compile(r"(?:pretrain|finetune)-.*-\d{8}-\d{6}(?:-\d+)?")  # of a run without --out
WRITABLE = "make it and its folder writable; then rerun the same command"


def run_remove(options: RunsRemoveOptions, console: Console) -> dict[str, Any]:
    """Remove the runs after checking that all are runs that are not in use; return what `--json` prints."""
    sizes = {path: size_of(path) for path in _paths(options) if _is_removable(path)}
    return _confirm_and_remove(sizes, sizes, _is_removable, _remove, options, console)


def run_prune(options: RunsPruneOptions, console: Console) -> dict[str, Any]:
    """Remove the checkpoints of finished runs; return what `--json` prints."""
    finished = _paths(options)
    for row in map(describe, finished):
        if row["state"] != "finished":
            message = f"the run is {row['state']}" + (f": {row['reason']}" if row["reason"] else "")
            raise UsageError(message, where=row["path"], fix="only checkpoints of finished runs can be removed")
    if not options.runs:
        finished = [Path(row["path"]) for row in rows_under(options.root) if row["state"] == "finished"]
    sizes = {}
    for run in [part for path in finished if not path.is_symlink() for part in _whole(path)]:
        folders = (run / CHECKPOINTS, run / f"{DISCARDED}{CHECKPOINTS}")  # the latter of a prune that was interrupted
        if found := [folder for folder in folders if folder.is_dir() and not folder.is_symlink()]:
            if _runs_in(run / CHECKPOINTS):
                console.warn(f"{run} is skipped: another run lies among its checkpoints")
            elif options.runs or os.access(run, os.W_OK):
                sizes[run / CHECKPOINTS] = sum(map(size_of, found))
            else:
                console.warn(f"{run} is skipped: you do not have permission to change it")
    runs = [folder.parent for folder in sizes]
    return _confirm_and_remove(sizes, runs, lambda folder: (folder.parent / RESULT).is_file(), _prune, options, console)


def _confirm_and_remove(
    sizes: Mapping[Path, int],
    runs: Collection[Path],
    is_removable: Callable[[Path], bool],
    remove: Callable[[Path], None],
    options: RunsRemoveOptions,
    console: Console,
) -> dict[str, Any]:
    """Remove each path under the lock of its run if nobody uses any and the user agrees; return what `--json` prints.

    One lock at a time is held: the limit on open files may be less than the number of runs.
    """
    removed = []
    for run in runs:
        with _locked(run):
            pass
    if _agreed(sizes, options, console):
        for path, run in zip(sizes, runs, strict=True):
            with _locked(run):
                if is_removable(path):  # it may have changed before the answer
                    with files.translate_os_errors(f"removing {path}", fix=WRITABLE):
                        remove(path)
                    removed.append(path)
                    console.result(f"removed {_with_size(path, sizes[path])}")
    if not removed:
        console.say("nothing was removed" if sizes else "there is nothing to remove")
    root = f" --root {shlex.quote(str(options.root))}" if options.root != RUNS else ""
    total = sum(sizes[path] for path in removed)
    return {"removed": [str(path) for path in removed], "bytes": total, "next": f"gptkit runs ls{root}"}


def _with_size(path: Path, count: int) -> str:
    return f"{on_one_line(str(path))}  {size(count)}"


def _paths(options: RunsRemoveOptions) -> list[Path]:
    """Return the paths of the runs, each once; a link is refused."""
    found: dict[Path, Path] = {}
    for name in options.runs:
        path = find_run(name, options.root)
        if path.is_symlink():
            fix = f"remove the link itself, or pass its target: {os.path.realpath(path)}"
            raise UsageError("this is a link, and links are never followed", where=str(path), fix=fix)
        found[Path(os.path.realpath(path))] = path
    return list(found.values())


def _is_removable(path: Path) -> bool:
    """Return True, or raise UsageError unless everything in a directory is what gptkit writes into a run."""
    whole = Path(os.path.realpath(path))
    if not path.is_dir():
        problem, fix = "this is a file, not a run", "remove it yourself"
    elif Path.cwd().is_relative_to(whole):
        problem, fix = "the current directory is inside it", "change to another directory first"
    elif outer := next((parent for parent in whole.parents[:2] if (parent / CONFIG).is_file() and parts(parent)), None):
        problem, fix = "this is a part of a run", f"remove the whole run, {outer}"
    elif not _is_marked(whole):
        problem, fix = "this is not a gptkit run", "gptkit runs ls lists them"
    elif others := _others(whole):
        problem = f"the folder also holds what is not part of the run: {', '.join(others[:3])}"
        fix = "move them away first"
    else:
        return True
    raise UsageError(problem, where=str(path), fix=fix)


def _others(path: Path) -> list[str]:
    """Return the entries of a run directory that gptkit writes into no run, and other runs at any depth."""

    def is_ours(entry: Path) -> bool:
        if entry.is_dir() and not entry.is_symlink():
            return FOLDERS.fullmatch(entry.name) is not None or any(entry.glob(f"seed-*/{LOCK}"))  # of a variant
        if entry.suffix == ".json" and entry.is_file() and not FILES.fullmatch(entry.name):
            return read_json(entry).get("schema") == EVALUATION
        return any(pattern.fullmatch(entry.name) for pattern in (FILES, FOLDERS))

    with files.translate_os_errors("looking into the run", fix="make it readable"):
        own = _whole(path)
        runs = {str(run.relative_to(path)) for run in _runs_in(path) if run not in own}
        return sorted(runs | {entry.name for entry in path.iterdir() if not is_ours(entry)})


def _whole(path: Path) -> list[Path]:
    """Return a run and all runs that gptkit itself makes inside it."""
    return [path, path / LM, *sorted(path.glob(f"{PEERS}/*/")), *parts(path)]


def _runs_in(folder: Path) -> list[Path]:
    return [config.parent for config in folder.rglob(CONFIG) if _is_marked(config.parent)]


def _is_marked(path: Path) -> bool:
    """Return whether a directory says that gptkit made it: by its config.yaml, its lock, or its name."""
    with files.translate_os_errors("looking into the run", fix="make it readable"):
        if OWN_NAME.fullmatch(path.name) or (path.name.startswith(REMOVING) and not os.listdir(path)):
            return True
        starts = ((path / CONFIG, HEADER), (path / LOCK, re.compile("process ")))
        return any(file.is_file() and start.match(file.read_text(errors="replace")) for file, start in starts)


@contextlib.contextmanager
def _locked(run: Path) -> Iterator[None]:
    """Hold the lock of a run, and of the seeds in it."""
    with contextlib.ExitStack() as stack:
        for locked in (run, *parts(run)):
            with files.translate_os_errors("taking the lock of the run", fix=WRITABLE):
                stack.callback(RunLock(locked, fix="wait for it, or stop it first").release)
        yield


def _agreed(sizes: Mapping[Path, int], options: RunsRemoveOptions, console: Console) -> bool:
    """Return whether the user agrees, asking on a terminal; UsageError where there is none."""
    if options.yes or not sizes:
        return bool(sizes)
    total = size(sum(sizes.values()))
    if sys.stdin is None or not sys.stdin.isatty():
        message = f"removing {total} needs confirmation, but stdin is not a terminal"
        raise UsageError(message, where="stdin", fix="pass --yes")
    for path, count in sizes.items():
        console.say(_with_size(path, count))
    console.say(f"remove {'all of these' if len(sizes) > 1 else 'it'}, {total}? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _remove(run: Path) -> None:
    folders = (path for path in run.rglob("*") if path.is_dir() and not path.is_symlink())
    for folder in (run, *folders):  # another user's run in a folder of one's own could be renamed, but not removed
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    if not run.name.startswith(REMOVING):
        names = itertools.chain([f"{REMOVING}{run.name}"], (f"{REMOVING}{run.name}-{n}" for n in itertools.count(2)))
        removed = next(path for path in map(run.with_name, names) if not os.path.lexists(path))
        files.rename(run, removed)
        run = removed
    # The result goes first: without it no command takes the run for a finished one.
    for entry in sorted(run.iterdir(), key=lambda entry: (entry.name != RESULT, entry.name == LOCK, entry.name)):
        (files.remove_directory if entry.is_dir() else files.remove_file)(entry)
    run.rmdir()
    files.sync_directory(run.parent)


def _prune(folder: Path) -> None:
    files.remove_discarded(folder.parent)
    if folder.is_dir() and not folder.is_symlink():
        files.discard(folder)
    files.sync_directory(folder.parent)
