"""R12: a run goes on with what it was begun with; anything else is refused, with key, old and new value."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from children import run_command
from in_process import Ended, complaints, gptkit
from small_runs import SmallRuns

from gptkit.finetune.options import FinetuneOptions
from gptkit.options import fields_of
from gptkit.pretrain.options import PretrainOptions
from gptkit.recipes import Kind, kinds_of, read_recipe
from gptkit.training.options import TrainingOptions

KINDS: dict[str, type[TrainingOptions]] = {"pretrain": PretrainOptions, "finetune": FinetuneOptions}
OUTSIDE = {"json", "resume", "dry_run", "out"}  # how a command is given, not how it is run
# Another value, where any would not do.
OTHERS: Mapping[str, Any] = {
    "data": ("{folder}/other.txt",),
    "validation": "0.2",
    "model": "{folder}/other.json",
    "tokenizer": "bpe:300",
    "task": "qnli",
    "transfer_layers": "0",
    "sequence_length": 8,
    "tokens_per_step": 128,
    "batch_size": 8,
    "device": "auto",
    "encoding": "cp1252",
}
FINETUNE_OTHERS = {"data": "{folder}/moved", "model": "{folder}/other-model"}
CONDUCT = {"micro_batch": 4, "log_every": 3, "eval_every": 7, "save_every": 5, "keep_checkpoints": 3}


def identity_keys(kind: str) -> list[str]:
    return [name for name, one in fields_of(KINDS[kind]).items() if not one.metadata["resumable"]]


def another(kind: str, name: str, now: Any, folder: Path) -> Any:
    """Return a value that the option may have, and has not."""
    options = KINDS[kind]
    others = OTHERS | (FINETUNE_OTHERS if kind == "finetune" else {})
    if name in others:
        return _placed(others[name], folder)
    return _other(kinds_of(options)[name], fields_of(options)[name], now)


def _placed(value: Any, folder: Path) -> Any:
    if isinstance(value, tuple):
        return tuple(_placed(one, folder) for one in value)
    return value.format(folder=folder) if isinstance(value, str) else value


def _other(kind: Kind, field: dataclasses.Field[Any], now: Any) -> Any:
    if kind.choices:
        return next(one for one in kind.choices if one != now)
    if kind.type is bool:
        return not now
    assert kind.type in (int, float), f"{field.name}: say in OTHERS what else it may be"
    maximum, value = field.metadata["maximum"], now or 0
    return value + 1 if maximum is None or value + 1 <= maximum else value / 2 if value else maximum


@pytest.fixture(scope="module")
def begun(small: SmallRuns) -> Callable[[str], Path]:
    """Return a run of a kind that stopped half-way; with what else there is to name."""
    folder = small.folder
    (folder / "other.txt").write_text((folder / "text.txt").read_text() * 2)
    (folder / "other.json").write_text(json.dumps(json.loads((folder / "shape.json").read_text()) | {"n_layer": 2}))
    shutil.copytree(small.pretrained, folder / "other-model")
    flip_a_weight(folder / "other-model" / "model.safetensors")
    shutil.copytree(folder / "data", folder / "moved")

    def run(kind: str) -> Path:
        out = folder / f"begun-{kind}" / "run"
        if not out.exists():
            out.parent.mkdir()
            made = run_command(small.words(kind, out), log=out.parent / "log")
            assert made.wait() == 0, made.err
            newest = max((out / "checkpoints").iterdir())
            shutil.rmtree(newest)
            (out / "result.json").unlink()
        return out

    return run


def content(run: Path) -> str:
    """Return a hash of what a run goes on from: its options and its checkpoints."""
    digest = hashlib.sha256()
    for path in sorted([run / "config.yaml", *run.glob("checkpoints/*/*")]):
        digest.update(f"{path.relative_to(run)} {path.stat().st_mtime_ns}".encode() + path.read_bytes())
    return digest.hexdigest()


def unlike(ended: Ended, key: str, old: Any, new: Any) -> list[str]:
    """Return what is wrong with the refusal of a changed option."""
    wrong = complaints(ended)
    said = ended.err
    for part in (f"{key} was {shown(old)}", f"now {shown(new)}"):
        if part not in said:
            wrong.append(f"{part!r} is not said: {said.strip()}")
    return wrong


def shown(value: Any) -> str:
    return "unset" if value is None else str(list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize("kind", KINDS)
def test_another_option_is_refused(kind: str, small: SmallRuns, begun: Any, count: Any, figure: Any) -> None:
    run, options = begun(kind), KINDS[kind]
    stored, before = read_recipe(run / "config.yaml", options), content(run)
    keys = identity_keys(kind)[:: count(4, 1)]
    failures = []
    for key in keys:
        old = stored.get(key, fields_of(options)[key].default)
        new = another(kind, key, old, small.folder)
        ended = gptkit(*_asking(small, kind, run, key, new))
        several = key == "study" and "this directory holds a single-seed run" in ended.err
        wrong = [] if several else unlike(ended, key, old, new)
        if wrong or content(run) != before:
            failures.append(f"{key}: {'; '.join(wrong) or 'the run was touched'}")
    told = f"{len(keys) - len(failures)} naming key, old and new value; the run untouched"
    figure(
        "R12", f"another value of an identity option, on resuming {kind}", len(keys), told, bound="100% of 25 or more"
    )
    assert not failures, "\n".join(failures)


def _asking(small: SmallRuns, kind: str, run: Path, key: str, value: Any) -> Iterator[str]:
    """Yield the run's own command line with one option changed: by its flag, or by a recipe that sets it."""
    if fields_of(KINDS[kind])[key].metadata["argument"]:
        yield from (value[0] if word == str(small.folder / "text.txt") else word for word in small.words(kind, run))
    elif not fields_of(KINDS[kind])[key].metadata["recipe_only"]:
        yield from small.words(kind, run, **{key: value})
    else:
        recipe = run.parent / "recipe.yaml"
        recipe.write_text(yaml.safe_dump({key: value}))
        yield from [*small.words(kind, run), "--recipe", str(recipe)]
    yield "--json"


@pytest.mark.parametrize("kind", KINDS)
def test_an_edited_config_is_refused_by_the_checkpoint(
    kind: str, small: SmallRuns, begun: Any, count: Any, figure: Any
) -> None:
    """config.yaml says what the run is asked for, the checkpoint what it was begun with."""
    run, options = begun(kind), KINDS[kind]
    config = run / "config.yaml"
    text, values = config.read_text(), yaml.safe_load(config.read_text())
    keys = [key for key in identity_keys(kind) if key not in ("data", "task", "device")][:: count(6, 1)]
    failures = []
    for key in keys:
        old = read_recipe(config, options).get(key, fields_of(options)[key].default)
        new = another(kind, key, old, small.folder)
        config.write_text(yaml.safe_dump(values | {key: new}))
        ended = gptkit(kind, "--resume", run, "--json")
        config.write_text(text)
        wrong = complaints(ended)
        several = key == "study" and "this directory holds a single-seed run" in ended.err
        if not several and not re.search(rf"\b{key}(_sha256)? was .*, now ", ended.err):
            wrong.append(ended.err.strip())
        if wrong:
            failures.append(f"{key}: {'; '.join(wrong)}")
    told = f"{len(keys) - len(failures)} refused naming the key"
    figure("R12", f"an option edited in config.yaml of a {kind} run", len(keys), told, bound="100%")
    assert not failures, "\n".join(failures)


def flip_a_letter(path: Path) -> None:
    text = path.read_text()
    path.write_text(text.replace("cat", "cut", 1))


def flip_a_weight(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)


def one_more_label(path: Path) -> None:
    path.write_text(path.read_text().replace("not_entailment", "entailment", 1))


def another_width(path: Path) -> None:
    path.write_text(path.read_text().replace('"n_head": 2', '"n_head": 4'))


def another_letter(path: Path) -> None:
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["\u03b1"] = vocabulary.pop("z", None) or vocabulary.pop("c")
    path.write_text(json.dumps(tokenizer))


CONTENTS: list[tuple[str, str, Callable[[Path], None], str]] = [
    ("pretrain", "text.txt", flip_a_letter, "data"),
    ("pretrain", "shape.json", another_width, "model"),
    ("finetune", "data/train.tsv", flip_a_letter, "data"),
    ("finetune", "data/train.tsv", one_more_label, "data"),
    ("finetune", "data/dev.tsv", flip_a_letter, "data"),
    ("finetune", "pretrained/model/model.safetensors", flip_a_weight, "model"),
    ("finetune", "pretrained/model/tokenizer.json", another_letter, "tokenizer"),
]


def test_other_content_under_the_same_name_is_refused(small: SmallRuns, begun: Any, figure: Any) -> None:
    failures = []
    for kind, name, change, says in CONTENTS:
        run, path = begun(kind), small.folder / name
        before, raw = content(run), path.read_bytes()
        change(path)
        assert path.read_bytes() != raw
        ended = gptkit(*small.words(kind, run), "--json")
        path.write_bytes(raw)
        wrong = complaints(ended)
        if says not in ended.err:
            wrong.append(ended.err)
        if content(run) != before:
            wrong.append("the run was touched")
        if wrong:
            failures.append(f"{kind} {name}: {'; '.join(wrong)}")
    told = f"{len(CONTENTS) - len(failures)} refused naming what changed; the run untouched"
    figure("R12", "data, weights or tokenizer changed under the same name", len(CONTENTS), told, bound="100%")
    assert not failures, "\n".join(failures)


def test_what_is_resumable_may_change(small: SmallRuns, begun: Any, reference: Any, count: Any, figure: Any) -> None:
    """The weights at the end are those of the run that nobody interrupted, whatever was logged and saved on the way."""
    done, failures = 0, []
    for kind in KINDS:
        for key, value in list(CONDUCT.items())[:: count(5, 1)]:
            run = begun(kind).parent / key / "run"
            shutil.copytree(begun(kind), run)
            child = run_command([*_asking(small, kind, run, key, value)], log=run.parent / "log")
            done += 1
            if child.wait() != 0:
                failures.append(f"{kind} {key}: {child.err}")
            elif key != "micro_batch" and weights(run) != weights(reference(kind)):  # dropout is drawn for each
                failures.append(f"{kind} {key}: other weights")
    figure(
        "R12",
        "another value of a resumable option, on resuming",
        done,
        f"{done - len(failures)} went on, to the same bits",
    )
    assert not failures, "\n".join(failures)


def weights(run: Path) -> bytes:
    return (max((run / "checkpoints").iterdir()) / "model.safetensors").read_bytes()
