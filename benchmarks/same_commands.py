"""Runs one table of command lines under two source trees and shows every difference that a user could see.

    python benchmarks/same_commands.py BEFORE_SRC AFTER_SRC [--keep DIR] [--only PATTERN ...]

A source tree is a checkout's src/. Both trees run the table of `command_lines.py` in the same new folder, one after the
other, each with a home, a cache and a temporary directory of its own, so that even absolute paths are alike. Compared
are exit codes, stdout, stderr line by line, and the files written: names, and contents without times, speeds, process
numbers, dates and versions; weights byte for byte. Of help texts the flags alone count: those that --help and
--help-all show together. With GPTKIT_TEST_DATA the rows on real data run too.

Each difference is a short diff under the row's name, and exit code 1. Those that are meant stand in KNOWN of
`command_lines.py`, each with its reason; one that nothing matches any more is reported. --keep leaves both folders,
--only runs the rows that match and those that they build on.
"""

from __future__ import annotations

import argparse
import difflib
import fcntl
import fnmatch
import gzip
import hashlib
import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from command_lines import KNOWN, ROWS, Known, Row

LONGEST = 14  # lines of a diff that are shown
TIMEOUT = 240
KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "CC", "CXX", "OMP_NUM_THREADS")
TIMES = {"version", "versions", "finished_at", "mfu", "tokens_per_second", "megabytes_per_second"}
UNSTABLE = (  # what a line says of the clock, the machine and the process, and what stands in its place
    (r"\x1b\[[0-9;]*m", ""),
    (r"\d{8}\\?-\d{6}(-\d+)?", "TIME"),
    (r"\d{4}-\d\d-\d\d([T ][\d:.]+)?(\+\d\d:\d\d|Z)?", "DATE"),
    (r"\bprocess \d+ on \S+", "process N on HOST"),
    (r"\b(pid|process|rank \d+ \(pid) \d+", r"\1 N"),
    (r"gptkit-error-\w+\.log", "gptkit-error-N.log"),
    (r"\bgptkit(\s*\|)? \d+\.\d+\.\d+", r"gptkit\1 VERSION"),
    (r"[\d.,]+ ([a-zA-Z][\w ]*)/s\b", r"N \1/s"),  # in `lr 9.40e-03  812 tokens/s` not the 03
    (r"\bmfu [\d.]+%", "mfu N%"),
    (r"\b(elapsed|eta) [-\d:]+", r"\1 N"),
    (r"\b[\d.,]+ (s|ms|seconds|minutes)\b", r"N \1"),
    (r"^(\|? ?(tokens per second|model FLOPs utilization|seconds of training|MB per second)).*", r"\1"),
    (r"^(\|? ?)(seconds in all|total seconds).*", r"\1total seconds"),
    (r"\blocalhost:\d+", "localhost:N"),
    (r"\b(time|timestamp)=\"[^\"]*\"", r'\1=""'),
    (r" {2,}", "  "),
    (r"-{3,}", "---"),
)
PASSING = re.compile(r"^requests \d")  # lines that come by the clock
FLAG = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")
FLAGS_OF_HELP = {"--help-all", "--install-completion", "--show-completion"}


class Outcome(NamedTuple):
    """What a row left, ready to be compared: lines by part, such as `stdout` or the file `run/config.yaml`."""

    code: int
    parts: dict[str, list[str]]


class Tree(NamedTuple):
    """A source tree, and the folder that its rows run in."""

    source: Path
    root: Path

    def environment(self, row: Row) -> dict[str, str]:
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        places = {"HOME": "home", "GPTKIT_CACHE": "cache", "TMPDIR": "tmp"}
        own = {name: str(self.root / folder) for name, folder in places.items()}
        fixed = {"LANG": "C.UTF-8", "TZ": "UTC", "COLUMNS": "200", "PYTHONPATH": str(self.source)}
        return kept | own | fixed | dict(row.environment)


def main() -> None:
    options = _options()
    trees = [one.resolve() for one in (options.before, options.after)]
    rows = chosen_rows(options.only)
    with ExitStack() as stack:
        place = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="same-commands-")))
        place.mkdir(parents=True, exist_ok=True)
        write_fixtures(place / "fixtures")
        before, after = (
            run_all(source, rows, place, name) for source, name in zip(trees, ("before", "after"), strict=True)
        )
    named = [one for one in KNOWN if any(fnmatch.fnmatch(row.name, one.row) for row in rows)]
    sys.exit(report(rows, before, after, [] if trees[0] == trees[1] else named))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, metavar="BEFORE_SRC")
    parser.add_argument("after", type=Path, metavar="AFTER_SRC")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave what was written in this new directory")
    parser.add_argument("--only", action="append", metavar="PATTERN", help="rows by name; may be given again")
    options = parser.parse_args()
    for source in (options.before, options.after):
        if not (source / "gptkit" / "__main__.py").is_file():
            parser.error(f"{source} holds no gptkit: name a checkout's src/")
    if options.keep and options.keep.exists() and any(options.keep.iterdir()):
        parser.error(f"{options.keep} is not empty")
    return options


def chosen_rows(patterns: Sequence[str] | None) -> list[Row]:
    """Return the rows that match and those that they build on, in the table's order."""
    by_name = {row.name: row for row in ROWS}
    assert len(by_name) == len(ROWS), "two rows have one name"
    wanted = [name for name in by_name if not patterns or any(fnmatch.fnmatch(name, one) for one in patterns)]
    chosen: set[str] = set()
    while wanted:
        row = by_name[wanted.pop()]
        chosen.add(row.name)
        wanted += {one for one in re.findall(r"\.\./([\w-]+)", f"{row.line} {row.setup}") if one in by_name} - chosen
    has_data = bool(os.environ.get("GPTKIT_TEST_DATA"))
    return [row for row in ROWS if row.name in chosen and (has_data or "$DATA" not in f"{row.line} {row.setup}")]


def run_all(source: Path, rows: Sequence[Row], place: Path, name: str) -> dict[str, Outcome]:
    """Return each row's outcome under a tree; both trees take turns with the folder `work`, kept under `name`."""
    began = time.perf_counter()
    tree = Tree(source, place / "work")
    for folder in ("home", "cache", "tmp"):
        (tree.root / folder).mkdir(parents=True)
    outcomes = {}
    for number, row in enumerate(rows, 1):
        if sys.stderr.isatty():
            print(f"\r{name}: {number}/{len(rows)} {row.name:40}", end="", file=sys.stderr, flush=True)
        outcome = outcomes[row.name] = run_row(row, tree)
        if outcome.code != row.code:
            said = (outcome.parts.get("setup") or outcome.parts["stderr"] or [""])[-1]
            print(f"{name}: {row.name}: exit code {outcome.code}, not {row.code}: {said}", file=sys.stderr, flush=True)
    print(f"{name}: {len(rows)} rows in {time.perf_counter() - began:.0f} s{' ' * 40}", file=sys.stderr, flush=True)
    tree.root.rename(place / name)
    return outcomes


def run_row(row: Row, tree: Tree) -> Outcome:
    folder = tree.root / row.name
    folder.mkdir()
    if row.help:
        return Outcome(0, {"flags": help_flags(row, tree, folder)})
    with ExitStack() as stack:
        for verb, *arguments in row.setup:
            try:
                kept = SETUP[str(verb)](folder, *arguments)
            except OSError as error:  # a row that this one builds on has failed
                return Outcome(-1, {"setup": stable_lines(f"{verb}: {error}", tree), "stderr": []})
            if kept is not None:
                stack.enter_context(kept)
        try:
            code, stdout, stderr = run_command(shlex.split(real(row.line)), row, tree, folder)
        except subprocess.TimeoutExpired:
            return Outcome(-1, {"setup": [f"no end after {TIMEOUT} s"], "stderr": []})
    ignore = set(row.ignore)
    parts = {"stdout": stable_text(stdout, ignore, tree, keys=row.keys), "stderr": stable_lines(stderr, tree)}
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        found = stable_lines(str(path.relative_to(folder)), tree)[0]
        parts[found] = stable_file(path, ignore, tree)
    return Outcome(code, parts)


def real(text: str) -> str:
    return text.replace("$DATA", os.environ.get("GPTKIT_TEST_DATA", ""))


def run_command(words: Sequence[str], row: Row, tree: Tree, folder: Path) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "gptkit", *words]
    with ExitStack() as stack:
        stdout: int = subprocess.PIPE
        if row.stdout == "closed":
            reading, stdout = os.pipe()
            os.close(reading)
            stack.callback(os.close, stdout)
        elif row.stdout == "full":
            stdout = os.open("/dev/full", os.O_WRONLY)
            stack.callback(os.close, stdout)
        done = subprocess.run(
            command,
            cwd=folder,
            env=tree.environment(row),
            input=row.stdin.encode(),
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT,
        )
    return done.returncode, (done.stdout or b"").decode(errors="replace"), done.stderr.decode(errors="replace")


def help_flags(row: Row, tree: Tree, folder: Path) -> list[str]:
    """Return the flags that --help and --help-all show, examples of command lines left out."""
    found: set[str] = set()
    for flag in ("--help", "--help-all"):
        code, text, _ = run_command([*row.line.split(), flag], row, tree, folder)
        lines = [line for line in text.splitlines() if "gptkit " not in line] if code == 0 else []
        found |= {one for line in lines for one in FLAG.findall(line)}
    return sorted(found - FLAGS_OF_HELP)


# --- What a row finds in its folder ---


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def write_bytes(folder: Path, name: str, digits: str) -> None:
    (folder / name).write_bytes(bytes.fromhex(digits))


def write_gzip(folder: Path, name: str, text: str) -> None:
    (folder / name).write_bytes(gzip.compress(text.encode(), mtime=0))


def copy(folder: Path, source: str, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    found = folder / source
    shutil.copytree(found, folder / name) if found.is_dir() else shutil.copy(found, folder / name)


def copy_fixture(folder: Path, source: str, name: str | None = None) -> None:
    copy(folder, f"../../fixtures/{source}", name or source)


def copy_head(folder: Path, source: str, name: str, lines: int) -> None:
    with open(real(source), encoding="utf-8") as file:
        write(folder, name, "".join(line for line, _ in zip(file, range(lines), strict=False)))


def copy_without_items(folder: Path, source: str, name: str) -> None:
    write(
        folder,
        name,
        json.dumps({key: one for key, one in json.loads((folder / source).read_text()).items() if key != "items"}),
    )


def remove(folder: Path, name: str) -> None:
    shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def replace(folder: Path, name: str, old: str, new: str) -> None:
    write(folder, name, (folder / name).read_text().replace(old, new))


def cut(folder: Path, name: str, size: int) -> None:
    """Keep the first `size` bytes, or lose the last `-size`."""
    (folder / name).write_bytes((folder / name).read_bytes()[:size])


def flip(folder: Path, name: str) -> None:
    """Change the last byte, which leaves the size."""
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 255]))


def hold(folder: Path, name: str) -> Any:
    """Hold a run's lock for as long as the file that is returned is open."""
    file = open(folder / name, "r+")  # noqa: SIM115
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


SETUP: dict[str, Any] = {
    "write": write,
    "bytes": write_bytes,
    "gzip": write_gzip,
    "copy": copy,
    "fixture": copy_fixture,
    "head": copy_head,
    "without-items": copy_without_items,
    "remove": remove,
    "replace": replace,
    "cut": cut,
    "flip": flip,
    "hold": hold,
}


def write_fixtures(folder: Path) -> None:
    """Write foreign weights, once for both trees: nanoGPT's checkpoint, OpenAI's GPT-1, a pickled GPT-2."""
    import numpy as np
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel

    folder.mkdir()
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "n_positions": 24, "n_embd": 16, "n_layer": 2, "n_head": 2}
    gpt2 = GPT2LMHeadModel(GPT2Config(**sizes))
    (folder / "pickled").mkdir()
    gpt2.config.save_pretrained(folder / "pickled")
    torch.save(gpt2.state_dict(), folder / "pickled" / "pytorch_model.bin")

    turned = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    weights = {name: one.t().contiguous() if name.endswith(turned) else one for name, one in gpt2.state_dict().items()}
    arguments = {name: sizes[name] for name in ("n_layer", "n_head", "n_embd", "vocab_size")}
    arguments |= {"block_size": sizes["n_positions"], "dropout": 0.1, "bias": True}
    torch.save({"model": weights, "model_args": arguments, "iter_num": 5, "config": {"lr": 1e-3}}, folder / "ckpt.pt")

    gpt1 = OpenAIGPTLMHeadModel(OpenAIGPTConfig(**sizes | {"n_embd": 64, "n_head": 1}))  # heads of 64, as GPT-1's
    state = gpt1.transformer.state_dict()
    names = ["positions_embed.weight", "tokens_embed.weight"]
    for layer in range(sizes["n_layer"]):
        parts = ("attn.c_attn", "attn.c_proj", "ln_1", "mlp.c_fc", "mlp.c_proj", "ln_2")
        names += [f"h.{layer}.{part}.{kind}" for part in parts for kind in ("weight", "bias")]
    arrays = [state[name].numpy() for name in names]
    arrays = [one if one.ndim == 1 or number < 2 else one[None] for number, one in enumerate(arrays)]
    (folder / "openai").mkdir()
    (folder / "openai" / "params_shapes.json").write_text(json.dumps([one.shape for one in arrays]))
    for number, part in enumerate(np.array_split(np.concatenate([one.ravel() for one in arrays]), 10)):
        np.save(folder / "openai" / f"params_{number}.npy", part)

    (folder / "harmful").mkdir()
    (folder / "harmful" / "ckpt.pt").write_bytes(pickle.dumps(print))


# --- What is compared ---


def stable_file(path: Path, ignore: set[str], tree: Tree) -> list[str]:
    """Return the lines of a file that two runs of one command must share."""
    if path.name == "run.lock" or path.suffix == ".lock":
        return ["a lock"]
    if path.suffix == ".png":
        return ["a picture"]
    content = path.read_bytes()
    if path.suffix not in (".json", ".jsonl", ".yaml", ".yml", ".csv", ".tsv", ".md", ".txt", ".xml", ".log"):
        return [f"sha256 {hashlib.sha256(content).hexdigest()}"]
    text = content.decode(errors="replace")
    if path.name == "MANIFEST.json":
        return stable_json(without_hashes(json.loads(text)), ignore, tree)
    return stable_text(text, ignore, tree)


def without_hashes(manifest: Any) -> Any:
    """Return a checkpoint's manifest without what is only known of files without times: the weights."""
    if isinstance(manifest, list):
        return [without_hashes(one) for one in manifest]
    if not isinstance(manifest, dict):
        return manifest
    is_stable = str(manifest.get("name", "")).endswith(".safetensors")
    return {key: without_hashes(one) for key, one in manifest.items() if is_stable or key not in ("sha256", "size")}


def stable_text(text: str, ignore: set[str], tree: Tree, *, keys: bool = False) -> list[str]:
    """Return text as lines; JSON as one value and JSON lines as one each, without their times."""
    try:
        return stable_json(json.loads(text), ignore, tree, keys=keys)
    except ValueError:
        pass
    lines: list[str] = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            lines += stable_lines(line, tree)
        else:
            lines.append(" ".join(one.strip() for one in stable_json(value, ignore, tree)))
    return lines


def stable_json(value: Any, ignore: set[str], tree: Tree, *, keys: bool = False) -> list[str]:
    text = json.dumps(without_times(value, ignore, keys=keys), indent=1, ensure_ascii=False)
    return stable_lines(text, tree)


def without_times(value: Any, ignore: set[str], *, keys: bool = False) -> Any:
    """Return a value of JSON where times and what is ignored have lost their values, with `keys` all."""
    if isinstance(value, dict):
        return {
            key: without_times(one, ignore, keys=keys or is_time(key) or key in ignore) for key, one in value.items()
        }
    if keys:
        return [] if isinstance(value, list) else None
    return [without_times(one, ignore) for one in value] if isinstance(value, list) else value


def is_time(key: str) -> bool:
    return key in TIMES or key.endswith("seconds")


def stable_lines(text: str, tree: Tree) -> list[str]:
    text = text.replace(str(tree.source), "SOURCE").replace(str(tree.source.parent), "CHECKOUT")
    lines = [line for line in text.splitlines() if not PASSING.match(line)]
    for pattern, stands in UNSTABLE:
        lines = [re.sub(pattern, stands, line) for line in lines]
    return [line.rstrip() for line in lines]


# --- The verdict ---


def report(rows: Sequence[Row], before: dict[str, Outcome], after: dict[str, Outcome], known: Sequence[Known]) -> int:
    """Print the differences and the summary; return the exit code."""
    used: set[Known] = set()
    kinds: Counter[str] = Counter()
    differing = 0
    for row in rows:
        found = list(differences(row, before[row.name], after[row.name]))
        meant = {part: match_of(row, part, diff, known) for part, diff in found}
        used |= {one for one in meant.values() if one is not None}
        unmeant = [(part, diff) for part, diff in found if meant[part] is None]
        for reason in sorted({one.reason for one in meant.values() if one is not None}):
            print(f"{row.name}: differs as it should: {reason}")
        if unmeant:
            differing += 1
            print(f"\n{row.name}: gptkit {row.line}")
            for part, diff in unmeant:
                kinds.update(kinds_of(part, diff))
                print(f"  {part}")
                print("\n".join(f"    {line[:240]}" for line in diff[:LONGEST]))
                if len(diff) > LONGEST:
                    print(f"    ... {len(diff) - LONGEST} more lines")
    unused = [one for one in known if one not in used]
    for one in unused:
        print(f"no longer differs, or differs otherwise: {one.row} {one.part}, known because {one.reason}")
    print(f"{len(rows)} commands, {len(rows) - differing} the same, {differing} differ")
    print("\n".join(f"{count:5}  {kind}" for kind, count in kinds.most_common()))
    return 1 if differing or unused else 0


def kinds_of(part: str, diff: Sequence[str]) -> set[str]:
    """Return what a diff is of: an order, values of JSON by key, or the part it is in, a file by its last name."""
    gone, new = ([line[1:].strip(" ,") for line in diff if line[0] == sign] for sign in "-+")
    if sorted(gone) == sorted(new):
        return {"an order of lines"}
    keys = [re.match(r'"([^"]+)": ', line) for line in {*gone, *new} - {*gone} & {*new}]
    if keys and all(keys):
        return {f"JSON {key[1]}" for key in keys if key}
    return {Path(part).name}


def differences(row: Row, before: Outcome, after: Outcome) -> Iterator[tuple[str, list[str]]]:
    """Yield the parts that differ, each with a diff."""
    if before.code != after.code:
        yield "exit code", [f"-{before.code}", f"+{after.code}"]
    if before.code != row.code:
        yield "table", [f"the table says exit code {row.code}, before has {before.code}", *before.parts["stderr"][-3:]]
    left, right = before.parts, after.parts
    for part in sorted(left.keys() | right.keys()):
        if part not in right:
            yield part, ["-missing after"]
        elif part not in left:
            yield part, ["+new after"]
        elif left[part] != right[part]:
            _, _, *diff = difflib.unified_diff(left[part], right[part], lineterm="", n=0)
            yield part, [line for line in diff if not line.startswith("@@")]


def match_of(row: Row, part: str, diff: Sequence[str], known: Sequence[Known]) -> Known | None:
    for one in known:
        if (
            fnmatch.fnmatch(row.name, one.row)
            and fnmatch.fnmatch(part, one.part)
            and re.search(one.says, "\n".join(diff))
        ):
            return one
    return None


if __name__ == "__main__":
    main()
