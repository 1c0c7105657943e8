"""R21: every flag and every key of every file of settings, mutated: taken as written, or one line and exit 2.

A value that is taken must be what the command gets: nothing is ignored in silence, and YAML never makes an object.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from in_process import LONGEST_LINE, complaints, gptkit

from generation_toy import write_model
from gptkit.cli import app
from gptkit.cli.commands import COMMANDS, Command
from gptkit.cli.failures import as_gptkit_error
from gptkit.errors import GptkitError, UsageError
from gptkit.options import fields_of
from gptkit.recipes import Kind, kinds_of, recipe_keys
from gptkit.system.reading import DEEPEST_YAML, LARGEST_YAML

SEED = 21
LETTERS = "abcdefghijklmnopqrstuvwxyz_"
ODD = ["", " ", "~", "\u0661", "1_0", "0x10", "1e3", "-0", "1e999", "nan", "-inf", "9" * 5000, "true", "x" * 100_000]
ODD += ["a\nb", "\x1b[2J", "\u202egpj", "--seed", "*", "&a", "!!int 1", "{a: 1}", "[1", "'", '"', "None", "1,5", "1 2"]


@functools.cache
def program() -> Any:
    return app.make_app()


def understood(words: list[str]) -> Any:
    """Return what a command line asks of its command, or the error that the user gets for it."""
    try:
        return program().main(words, prog_name="gptkit", standalone_mode=False).options
    except Exception as error:
        return as_gptkit_error(error, None, "gptkit")


def unclear(error: GptkitError, *parts: str) -> list[str]:
    """Return what is wrong with an error: no usage error, a line too long, no cure, or a part that is not said."""
    line = str(error)
    wrong = [] if error.exit_code == 2 else [f"exit code {error.exit_code}"]
    wrong += [] if error.where and error.fix else ["no place or no cure"]
    wrong += [] if "\n" not in line and len(line) < LONGEST_LINE else [f"a line of {len(line)} characters"]
    return wrong + [f"{part!r} is not said: {line[:200]}" for part in parts if part not in line]


def misspelt(word: str, random_: random.Random) -> str:
    at = random_.randrange(len(word))
    changes = [word[:at] + word[at + 1 :], word[:at] + random_.choice(LETTERS) + word[at:]]
    return random_.choice(changes)


# --- options ---


def boundaries(kind: Kind, field: dataclasses.Field[Any]) -> list[str]:
    """Return values of the right type on both sides of an option's bounds."""
    bounds = [one for one in (field.metadata["minimum"], field.metadata["maximum"]) if one is not None]
    return [str(kind.type(one + step)) for one in bounds for step in (-1, 0, 1)] if kind.type in (int, float) else []


def values_for(kind: Kind, field: dataclasses.Field[Any], random_: random.Random) -> list[str]:
    return [
        *boundaries(kind, field),
        *kind.choices,
        *(f"{one}x" for one in kind.choices),
        *random_.sample(ODD, len(ODD)),
    ]


def is_as_written(text: str, found: Any, kind: Kind) -> bool:
    """Say whether an option's value is the text that stands for it, by a second reading of the rules."""
    if kind.many:
        return bool(found == (text,))
    if kind.type is bool:
        return (text.lower() in ("true", "yes", "on")) == found
    if kind.type in (int, float):
        return bool(kind.type(text) == found)
    return str(found) == text or str(found) == str(Path(text).expanduser())


def keys_of_all_commands() -> Iterator[tuple[Command, str]]:
    for row in COMMANDS:
        for key in recipe_keys(row.options):
            yield row, key


def needed(row: Command) -> list[str]:
    """Return the arguments without which a command line is none."""
    kinds = kinds_of(row.options)
    required = [one for one in fields_of(row.options).values() if one.default is None and not kinds[one.name].optional]
    return [
        word for one in required for word in (("1",) if one.metadata["argument"] else (f"--{one.name}", "demo-cloze"))
    ]


def test_every_recipe_key_is_taken_as_written_or_refused(tmp_path: Path, count: Any, figure: Any) -> None:
    random_, outcomes, failures = random.Random(SEED), Counter[str](), []
    recipe = tmp_path / "recipe.yaml"
    for row, key in keys_of_all_commands():
        kind, field = kinds_of(row.options)[key], fields_of(row.options)[key]
        for text in values_for(kind, field, random_)[: count(1, 50)]:
            recipe.write_text(f"# a line\n{key}: {json.dumps(text)}\n", encoding="utf-8")
            found = understood([*row.name.split(), *needed(row), "-r", str(recipe)])
            outcomes[came := "refused" if isinstance(found, GptkitError) else "taken"] += 1
            if came == "refused":
                wrong = unclear(found, f"{recipe}:2")
            else:  # what the command line itself must give wins over the recipe
                is_needed = field.default is None and not kind.optional
                given = is_needed or is_as_written(text, getattr(found, key), kind)
                wrong = [] if given else [f"became {getattr(found, key)!r}"]
            failures += [f"{row.name} {key}: {text[:40]!r}: {one}" for one in wrong]
        typo = misspelt(key, random_)
        if typo in fields_of(row.options):
            continue
        recipe.write_text(f"{typo}: 1\n")
        outcomes["unknown"] += 1
        found = understood([*row.name.split(), *needed(row), "-r", str(recipe)])
        if not isinstance(found, GptkitError):
            failures.append(f"{row.name}: {typo} is ignored")
        elif f"did you mean {key!r}" not in str(found):
            outcomes["unknown, another one suggested"] += 1
    told = f"{outcomes['taken']} taken as written, {outcomes['refused']} refused at file:line; {outcomes['unknown']} "
    told += f"misspelt keys refused, {outcomes['unknown, another one suggested']} with another suggestion"
    figure("R21", "a value or a misspelling of every recipe key", outcomes.total(), told, seed=SEED, bound="0 ignored")
    assert not failures, "\n".join(failures)
    assert outcomes["unknown, another one suggested"] < 0.1 * outcomes["unknown"]


def test_every_flag_is_taken_as_written_or_refused(count: Any, figure: Any) -> None:
    random_, outcomes, failures = random.Random(SEED), Counter[str](), []
    for row in COMMANDS:
        for key, field in fields_of(row.options).items():
            kind = kinds_of(row.options)[key]
            if field.metadata["argument"] or field.metadata["recipe_only"] or kind.type is bool or key == "resume":
                continue
            flag = f"--{key.replace('_', '-')}"
            for text in values_for(kind, field, random_)[: count(1, 50)]:
                found = understood([*row.name.split(), *needed(row), f"{flag}={text}"])
                outcomes[came := "refused" if isinstance(found, GptkitError) else "taken"] += 1
                if came == "refused":
                    wrong = unclear(found, flag)
                else:
                    as_written = is_as_written(text, getattr(found, key), kind)
                    wrong = [] if as_written else [f"became {getattr(found, key)!r}"]
                failures += [f"{row.name} {flag}={text[:40]!r}: {one}" for one in wrong]
    told = f"{outcomes['taken']} taken as written, {outcomes['refused']} refused naming the flag"
    figure("R21", "a value of every flag", outcomes.total(), told, seed=SEED, bound="0 ignored")
    assert not failures, "\n".join(failures)


# --- files of YAML ---

PAYLOADS = [
    "!!python/object/apply:os.system ['touch {canary}']",
    "!!python/object/new:subprocess.Popen [['touch', '{canary}']]",
    "!!python/name:os.system",
    "!!python/module:antigravity",
    "!!int 3",
    "!mine 3",
    "&a 3",
    "*a",
    "[&a [1], *a]",
    "{{<<: *a}}",
    "[" * (DEEPEST_YAML + 1) + "1" + "]" * (DEEPEST_YAML + 1),
    "[" * 100_000,
    "{{a: " * 50_000,
    "'unclosed",
    '"\\0"',
    "{{a: {{b: 1}}}}",
    "? [a]",
    "@x",
    "\ttab",
    "%TAG",
    "x\n---\nsecond: document",
]
TASK = "format: classification\nlabels: [a, b]\nname: {value}\n"
SUITE = "tasks:\n- task: lambada\n  limit: {value}\n"
LAUNCH = "distributed_type: NO\nnum_processes: {value}\n"
LINES = "bomb: &a [1, 1]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(30))


def yaml_readers(model: Path) -> dict[str, tuple[str, Callable[[Path], list[object]]]]:
    """Return by what the file is: its text, and the command line that reads it."""
    return {
        "recipe": ("steps: {value}\n", lambda path: ["pretrain", "--recipe", path, "--dry-run"]),
        "task": (TASK, lambda path: ["finetune", "--task", path, "--data", path.parent, "--model", model]),
        "suite": (SUITE, lambda path: ["eval", "--suite", path, "--model", model]),
        "launch": (LAUNCH, lambda path: ["pretrain", "--accelerate-config", path, "--dry-run"]),
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def test_yaml_says_words_and_does_nothing(tmp_path: Path, model: Path, count: Any, figure: Any) -> None:
    canary, failures, done = tmp_path / "canary", [], 0
    files = [
        (name, template.replace("{value}", one))
        for name, (template, _) in yaml_readers(model).items()
        for one in PAYLOADS
    ]
    contents = [
        (name, text.replace("{{", "{").replace("}}", "}").replace("{canary}", str(canary)).encode())
        for name, text in files
    ]
    contents += [(name, one) for name in yaml_readers(model) for one in whole_files()]
    for number, (name, content) in enumerate(contents[:: count(3, 1)]):
        path = tmp_path / f"{number}.yaml"
        path.write_bytes(content)
        ended = gptkit(*yaml_readers(model)[name][1](path), "--json")
        wrong = complaints(ended) + ([] if str(path) in ended.err else [f"not named: {ended.err}"])
        wrong += ["something ran"] if canary.exists() else []
        wrong += [f"{ended.seconds:.0f} s"] if ended.seconds > 30 else []
        done += 1
        failures += [f"{name} {content[:60]!r}: {one}" for one in wrong]
    told = f"{done - len(failures)} refused in one line, 0 objects made"
    figure("R21", "tags, aliases, depth, size and damage in YAML", done, told, bound="100%")
    assert not failures, "\n".join(failures)


def whole_files() -> list[bytes]:
    return [
        b"#" * (10 * LARGEST_YAML),
        b"- " * (LARGEST_YAML // 2),
        b"a: \xff",
        b"a: \0",
        "a: b".encode("utf-16"),
        LINES.encode(),
        b"[" * (LARGEST_YAML - 1),
        b"- a\n- b",
        b"words",
        b"2026-13-45: 1",
    ]


# --- config.json ---

VALUES = [None, True, -1, 0, 10**400, 1.5, float("nan"), "", "x" * 100_000, [], [1], {}, {"a": 1}, "gelu", 3, 10**12]


def test_every_key_of_a_config_is_taken_as_written_or_refused(
    tmp_path: Path, model: Path, count: Any, figure: Any
) -> None:
    """A value that is taken is one by which the model still fits its weights."""
    random_, outcomes, failures = random.Random(SEED), Counter[str](), []
    path = model / "config.json"
    whole = json.loads(path.read_text())
    keys = [*whole, "n_inner", "pad_token_id", "format", "task", "auto_map", "quantization_config", "tie_weights"]
    texts = [
        f'{{"n_layer": 1, "n_layer": 1, {path.read_text()[1:]}',
        "[" * 100_000,
        "[]",
        "null",
        '{"n_layer": NaN}',
        "",
    ]
    texts += [json.dumps({**whole, key: one}) for key in keys for one in random_.sample(VALUES, count(1, len(VALUES)))]
    texts += [
        json.dumps({**whole, misspelt(key, random_): whole[key]}) for key in [*whole][:: count(4, 1)] if key != "dtype"
    ]
    for text in texts:
        path.write_text(text)
        ended = gptkit("generate", "F", "--model", model, "--max-new-tokens", 1, "--json")
        outcomes["taken" if ended.code == 0 else "refused"] += 1
        wrong = complaints(ended) if ended.code else []
        wrong += [] if ended.code == 0 or str(model) in ended.err else [f"not named: {ended.err}"]
        failures += [f"{text[:50]} ... {text[-200:]}: {one}" for one in wrong]
    path.write_text(json.dumps(whole))
    told = f"{outcomes['taken']} taken, {outcomes['refused']} refused in one line"
    figure("R21", "a value or a misspelling of every key of config.json", outcomes.total(), told, seed=SEED)
    assert outcomes["refused"] > outcomes.total() / 2
    assert not failures, "\n".join(failures)


# --- the files of tasks, suites and launches, key by key ---


def mutated(tree: Any, random_: random.Random) -> Any:
    """Return a tree of settings with one word, list or key changed."""
    tree = json.loads(json.dumps(tree))
    holder, key = random_.choice([*_places(tree)])
    kind = random_.randrange(4)
    if kind == 0 and isinstance(holder, dict):
        holder[misspelt(str(key), random_)] = holder.pop(key)
    elif kind == 1:
        del holder[key]
    else:
        holder[key] = random_.choice(
            [None, True, -1, 1.5, "", "x", "x" * 100_000, [], [1, 1], {}, {"a": "b"}, "\0", "9"]
        )
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    keys = range(len(tree)) if isinstance(tree, list) else list(tree) if isinstance(tree, dict) else []
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


TREES: dict[str, Any] = {
    "task": {
        **{"name": "mine", "format": "classification", "labels": ["no", "yes"], "metrics": ["accuracy", "f1"]},
        **{"splits": {"train": "a.csv", "dev": "b.csv"}, "columns": {"text": "review", "label": "stars", "index": "n"}},
        **{"hub": "some/data:config", "data": "from somewhere"},
    },
    "suite": {"tasks": [{"task": "lambada", "data": "l", "limit": 5, "floor": 0.1, "minimum": 0.2}, {"task": "blimp"}]},
    "launch": {
        **{"distributed_type": "FSDP", "num_processes": 2, "num_machines": 1, "use_cpu": True, "gpu_ids": "all"},
        **{
            "mixed_precision": "no",
            "main_process_port": 0,
            "fsdp_config": {"fsdp_version": 2, "fsdp_offload_params": False},
        },
    },
}


def test_every_key_of_other_files_is_taken_or_refused_in_its_line(tmp_path: Path, count: Any, figure: Any) -> None:
    from gptkit.evaluate.jobs import read_suite
    from gptkit.tasks.own import read_task
    from gptkit.training.launching import read_launch_config

    readers: dict[str, Callable[[Path], object]] = {
        "task": read_task,
        "suite": read_suite,
        "launch": read_launch_config,
    }
    random_, outcomes, failures = random.Random(SEED), Counter[str](), []
    for number in range(count(90, 1500)):
        name = list(TREES)[number % len(TREES)]
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump(tree := mutated(TREES[name], random_), sort_keys=False))
        try:
            readers[name](path)
            outcomes["taken"] += 1
        except UsageError as error:
            outcomes["refused"] += 1
            failures += [f"{name} {str(tree)[:300]}: {one}" for one in unclear(error, str(path))]
        except Exception as error:
            failures.append(f"{name} {str(tree)[:300]}: {type(error).__name__}: {error}")
    told = f"{outcomes['taken']} taken, {outcomes['refused']} refused in one line"
    figure("R21", "a change to any key of a task, a suite or a launch file", outcomes.total(), told, seed=SEED)
    assert not failures, "\n".join(failures)
