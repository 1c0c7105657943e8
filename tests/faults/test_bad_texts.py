"""R19: a text file of any kind is read by a written rule, or refused in one line that names file, line and byte."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from bad_texts import KINDS, Case, Read
from in_process import complaints, gptkit

from gptkit.text.readers import read_pieces

SEED = 19
SLOWEST = 30.0  # seconds
HUGE = 100_000_000  # bytes of one line


def documents(path: Path) -> tuple[str, ...]:
    found: dict[int, str] = {}
    for text, document, _ in read_pieces(path):
        found[document] = found.get(document, "") + text
    return tuple(found.values())


def outcome(case: Case, folder: Path) -> tuple[str, list[str]]:
    """Return "read" or "refused", and what is wrong with that."""
    folder.mkdir()
    path = folder / case.name
    if case.make is not None:
        case.make(path)
    else:
        path.write_bytes(case.content)
    ended = gptkit("tokenizer", "train", path, "--tokenizer", "char", "--out", folder / "made", "--json")
    wrong = [f"took {ended.seconds:.0f} s"] if ended.seconds > SLOWEST else []
    if isinstance(case.expected, Read):
        wrong += [] if ended.code == 0 else [f"exit code {ended.code}: {ended.err}"]
        wrong += [] if documents(path) == case.expected.documents else ["other documents"]
        return "read", wrong
    wrong += complaints(ended)
    if ended.code == 0:
        return "refused", wrong
    if case.expected.says not in ended.error["message"]:
        wrong.append(f"says {ended.error['message']!r}")
    place = case.expected.place
    where = ended.error["where"] or ""
    if not (where.startswith(str(path)) if place is None else where == f"{path}{place}"):
        wrong.append(f"at {where!r}, not {place!r}")
    return "refused", wrong


def test_every_text_file_is_read_by_a_rule_or_refused_in_its_place(tmp_path: Path, count: Any, figure: Any) -> None:
    random_ = random.Random(SEED)
    trials = count(4 * len(KINDS), 1_100)
    outcomes: Counter[str] = Counter()
    failures = []
    for trial in range(trials):
        kind = KINDS[trial % len(KINDS)]
        case = kind(random_)
        came, wrong = outcome(case, tmp_path / str(trial))
        outcomes[came] += 1
        if wrong:
            failures.append(f"{kind.__name__} ({trial}): {'; '.join(wrong)}")
    fault = f"text files of {len(KINDS)} kinds, most of them bad"
    told = (
        f"{outcomes['read']} read as documented, {outcomes['refused']} refused at file:line:byte, {len(failures)} else"
    )
    figure("R19", fault, trials, told, seed=SEED, bound="0 else")
    assert not failures, "\n".join(failures)


# --- sizes ---


def huge_text(path: Path) -> None:
    path.write_bytes(b"word " * (HUGE // 5))


def huge_row(path: Path) -> None:
    path.write_bytes(b'{"text": "' + b"word " * (HUGE // 5) + b'"}\n')


def bomb(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(HUGE // 1_000_000):
            file.write(b"word " * 200_000)


def huge_table(path: Path) -> None:
    pq.write_table(pa.table({"text": ["word " * (HUGE // 5)]}), path, compression="none", use_dictionary=False)


SIZES = {"one.txt": huge_text, "row.jsonl": huge_row, "small.txt.gz": bomb, "cell.parquet": huge_table}


def test_a_line_of_100_mb_takes_bounded_memory_and_time(tmp_path: Path, count: Any, figure: Any) -> None:
    bound = 3 * HUGE / 2**20 + 300
    for name in list(SIZES)[: count(1, len(SIZES))]:
        SIZES[name](tmp_path / name)
        megabytes, seconds = tokenized(tmp_path / name)
        told = f"read with {megabytes:.0f} MB in {seconds:.0f} s"
        figure("R19", f"100 MB in one line ({name})", 1, told, bound=f"{bound:.0f} MB, {SLOWEST:.0f} s")
        assert megabytes < bound
        assert seconds < SLOWEST


MEASURED = r"""
import re, resource, sys
from gptkit.cli.main import main
code = main(sys.argv[1:])
peak = re.search(r"VmHWM:\s+([0-9]+)", open("/proc/self/status").read()).group(1)  # rusage would count the parent's
usage = resource.getrusage(resource.RUSAGE_SELF)
print(code, int(peak) / 1024, usage.ru_utime + usage.ru_stime)
"""


def tokenized(path: Path) -> tuple[float, float]:
    """Return the peak of memory (MB) and the processor's seconds of a process that makes a tokenizer of a file."""
    words = ["tokenizer", "train", str(path), "-t", "char", "--out", f"{path}-made"]
    done = subprocess.run([sys.executable, "-c", MEASURED, *words], capture_output=True, text=True, check=True)
    code, megabytes, seconds = done.stdout.splitlines()[-1].split()
    assert code == "0", done.stderr
    return float(megabytes), float(seconds)
