"""The table of commands: name, options, function, examples, and the command to suggest next.

To add a command, write a file with its options and `run(options, console) -> dict | None`, and add a row here.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptkit.cli.recipes import RecipesCopyOptions, RecipesListOptions, RecipesShowOptions
from gptkit.convert.formats import FORMATS
from gptkit.convert.options import ConvertOptions
from gptkit.evaluate.options import EvalOptions
from gptkit.finetune.options import FinetuneOptions
from gptkit.generate.options import GenerateOptions
from gptkit.inspect.options import InspectOptions
from gptkit.manage.options import (
    EnvOptions,
    RunsCompareOptions,
    RunsListOptions,
    RunsPruneOptions,
    RunsRemoveOptions,
    RunsShowOptions,
    TasksOptions,
    TasksShowOptions,
    TokenizerCompareOptions,
    TokenizerDecodeOptions,
    TokenizerEncodeOptions,
    TokenizerTrainOptions,
)
from gptkit.options import OutputOptions
from gptkit.pretrain.options import PretrainOptions
from gptkit.probe.options import ProbeOptions
from gptkit.system.encodings import UTF8
from gptkit.system.run_layout import RUNS, best_weights
from gptkit.use.options import PredictOptions, ScoreOptions

EXPORT = "gptkit convert {model} {free:exported}"  # a fine-tuned model, once its answers have been seen

EXAMPLES = ("A man sleeps.", "Nobody sleeps.")  # texts for a classifier


@dataclass(frozen=True)
class Command:
    """A command; the docstring of `options` is its help.

    `function` is "module:function" of `run(options, console) -> dict | None`, imported when the command runs; --json
    prints the dict. `check`, if any, is "module:function" of what finds errors in the options without torch, and runs
    before. `next` is the command to try next, or a function from the dict and the words that the user typed to it
    ("" = none), formatted with the dict; `{free:NAME}` becomes an unused file name. Without --recipe, the recipe named
    like the value of the option `recipe_by` (`laptop` if that is not given) supplies the defaults.
    """

    name: str
    options: type[OutputOptions]
    function: str
    examples: tuple[str, ...]
    next: str | Callable[[Mapping[str, Any], Sequence[str]], str]
    recipe_by: str | None = None
    check: str | None = None


def _once_trained(line: str) -> str:
    """Return a command that takes the newest pretrain run, or the one that makes the first."""
    from gptkit.training.finished_runs import newest_finished  # safetensors would slow --help down

    newest = newest_finished(RUNS, lambda result: result.get("command") == "pretrain", lambda line: None)
    return line if newest else "gptkit pretrain"


def _after_pretrain(result: Mapping[str, Any], words: Sequence[str]) -> str:
    kept = best_weights(result)
    command = "generate --top-k 40" if result.get("masked_loss") is None else "finetune --task demo-classification"
    return f"gptkit {command} --model " + (_quoted(str(kept)) if kept else "{model_dir}")


def _after_finetune(result: Mapping[str, Any], words: Sequence[str]) -> str:
    if "variants" in result:
        return "gptkit finetune --resume {run_dir} --predict dev"
    from_hub = "--data hf:" in " ".join(words).replace("=", " ")
    return "" if from_hub else "gptkit eval --model {run_dir}"  # which finds the run's own files


def _after_convert(result: Mapping[str, Any], words: Sequence[str]) -> str:
    row, head = FORMATS[result["to"]], result["format"]
    if not result["tokenizer"] or head == "multiple-choice":  # only the task knows of how many choices
        return ""
    inside = "" if os.path.isfile(result["destination"]) else f"/model{row.suffix}"
    texts = shlex.join(EXAMPLES[: 1 if head == "classification" else 2])
    return row.next[bool(head)].replace("{inside}", inside).replace("{texts}", texts)


def _after_generate(result: Mapping[str, Any], words: Sequence[str]) -> str:
    flags = {word.partition("=")[0] for word in words}
    if flags & {"-", "-r", "--recipe", "--prompts", "--interactive", "--beams", "--greedy", "--json"}:
        return "gptkit convert {model} {free:exported} --to hf" if _is_gpt(result) else "gptkit eval --model {model}"
    if flags & {"--num-samples", "--temperature"}:
        return "gptkit generate --interactive --top-k 40 --model {model}"
    return _repeated(words, "--num-samples", "3", "--temperature", "0.8")


def _is_gpt(result: Mapping[str, Any]) -> bool:
    """Return whether the model that was read is a GPT, which inspect and convert take."""
    from gptkit.training.finished_runs import is_gpt  # safetensors would slow --help down

    return is_gpt(result["model"])


def _after_score(result: Mapping[str, Any], words: Sequence[str]) -> str:
    flags = {word.partition("=")[0] for word in words}
    if flags & {"-", "--texts", "--tokens"}:
        return "gptkit generate --max-new-tokens 30 --show-probs --model {model}"
    return _repeated(words, "--tokens")


def _after_predict(result: Mapping[str, Any], words: Sequence[str]) -> str:
    flags = {word.partition("=")[0] for word in words if word.startswith("-")}
    if not _is_gpt(result):
        return "gptkit eval --model {model}"
    if flags - {"--model", "-m", "--device"} or result["truncated"]:  # inspect shows no more than fits
        return EXPORT
    model = [] if flags & {"--model", "-m"} else ["--model", result["model"]]
    return _quoted("gptkit", "inspect", *words[1:], *model) + " --out {free:inspect.html}"


def _after_inspect(result: Mapping[str, Any], words: Sequence[str]) -> str:
    return EXPORT if "answer" in result else "gptkit generate --show-probs --max-new-tokens 20 --model {model}"


def _after_probe(result: Mapping[str, Any], words: Sequence[str]) -> str:
    return f"gptkit generate --steer {result['samples'][-1]['steer']} --top-k 40 --model {{model}}"


def _after_eval(result: Mapping[str, Any], words: Sequence[str]) -> str:
    flags = [word.partition("=")[0] for word in words]
    output = next((place for place, flag in enumerate(flags) if flag in ("--output", "-o")), None)
    if "verdict" in result or "checkpoints" in result or (output is None) == bool(result.get("output")):
        return ""  # also where a recipe names the output
    model = [] if {"--model", "-m"} & {*flags} else ["--model", result["model"]]
    if output is None:
        return _quoted("gptkit", *words, *model) + " --output {free:baseline.json}"
    rest = words[output + (1 if "=" in words[output] else 2) :]
    return _quoted("gptkit", *words[:output], *rest, *model, "--baseline", result["output"])


def _after_copy(result: Mapping[str, Any], words: Sequence[str]) -> str:
    if result["command"] == "pretrain":
        return "gptkit pretrain --dry-run {flag} {path}"
    prompt = " 'The function returns'" if result["command"] == "generate" else ""
    return _once_trained("gptkit {command}" + prompt + " {flag} {path}")


def _after_tokenizer(result: Mapping[str, Any], words: Sequence[str]) -> str:
    tokenizer = "{tokenizer_dir}" if "tokenizer_dir" in result else "{suggested}"
    encoding = ("--encoding", result["encoding"]) if result["encoding"] != UTF8 else ()
    return f"{_quoted('gptkit', 'pretrain', *result['data'], *encoding)} --tokenizer {tokenizer}"


def _repeated(words: Sequence[str], *flags: str) -> str:
    """Return the command that the user typed with more flags, before any `--`, after which all is text."""
    end = words.index("--") if "--" in words else len(words)
    return _quoted("gptkit", *words[:end], *flags, *words[end:])


def _quoted(*words: str) -> str:
    """Return words quoted for a shell, and for str.format."""
    return shlex.join(words).replace("{", "{{").replace("}", "}}")


def _as_it_says(result: Mapping[str, Any], words: Sequence[str]) -> str:
    return str(result["next"]).replace("{", "{{").replace("}", "}}")


def _after_show(result: Mapping[str, Any], words: Sequence[str]) -> str:
    if result["model"] is None:
        return "gptkit pretrain"
    verb = "eval" if result["split"] is None else "finetune"
    return f"gptkit {verb} --task {{task}} --model {{model}}" + (" --data {data}" if result["data"] else "")


def _after_encode(result: Mapping[str, Any], words: Sequence[str]) -> str:
    few = " ".join(map(str, result["ids"][:32]))
    return f"gptkit tokenizer decode {few} --tokenizer {{tokenizer}}" if few else ""


COMMANDS = (
    Command(
        "pretrain",
        PretrainOptions,
        "gptkit.pretrain.command:run",
        (
            "gptkit pretrain                                  # on the embedded corpus, in 0.5 to 3 minutes",
            "gptkit pretrain book.txt --out runs/book         # rerun the same command to resume",
            "gptkit pretrain tinyshakespeare.txt --recipe shakespeare-char",
            "gptkit pretrain 'texts/*.jsonl' --model gpt2-small --dry-run",
        ),
        _after_pretrain,
        recipe_by="model",
        check="gptkit.pretrain.check:check",
    ),
    Command(
        "finetune",
        FinetuneOptions,
        "gptkit.cli.finetune:run",
        (
            "gptkit finetune --task demo-classification       # from the newest pretrain run under ./runs",
            "gptkit finetune --task rte --data glue/RTE --model runs/demo/model",
            "gptkit finetune --task demo-cloze --study ablation --seeds 5",
            "gptkit finetune --task rte --data glue/RTE --layer-decay 0.38 --unfreeze gradual --schedule slanted",
            "gptkit finetune --task rte --data glue/RTE --recipe ulmfit   # its language model is tuned first",
        ),
        _after_finetune,
        recipe_by="task",
        check="gptkit.finetune.check:check",
    ),
    Command(
        "tasks",
        TasksOptions,
        "gptkit.manage.tasks:run",
        ("gptkit tasks", "gptkit tasks --json"),
        lambda result, words: _once_trained("gptkit finetune --task demo-classification"),
    ),
    Command(
        "tasks show",
        TasksShowOptions,
        "gptkit.manage.tasks:run_show",
        (
            "gptkit tasks show demo-similarity                # as the newest run's model would read it",
            "gptkit tasks show rte --data glue/RTE --split dev --index 3 --model runs/demo",
            "gptkit tasks show demo-cloze/sum                 # what a protocol of eval scores",
        ),
        _after_show,
    ),
    Command(
        "generate",
        GenerateOptions,
        "gptkit.generate.command:run",
        (
            "gptkit generate --top-k 40                       # from the newest run under ./runs",
            'gptkit generate "The function returns" --num-samples 3 --temperature 0.8 --show-probs',
            "gptkit generate --interactive --top-k 40 --model runs/demo/model",
            "cat article.txt | gptkit generate - --recipe tldr --model runs/demo/model",
            "gptkit generate --prompts questions.txt --recipe question-answering --quantize int8",
        ),
        _after_generate,
    ),
    Command(
        "eval",
        EvalOptions,
        "gptkit.evaluate.command:run",
        (
            "gptkit eval                                      # the newest run under ./runs, on its own task",
            "gptkit eval --task lambada --data lambada_test.jsonl --output baseline.json",
            "gptkit eval --suite ci.yaml --baseline baseline.json --junit out.xml --summary out.md",
            "gptkit eval --task demo-cloze --all-checkpoints runs/demo",
        ),
        _after_eval,
    ),
    Command(
        "score",
        ScoreOptions,
        "gptkit.use.score:run",
        (
            'gptkit score "The function returns None." "The function return None."',
            'gptkit score "The function returns None." --tokens --model runs/demo/model',
            "cat article.txt | gptkit score -",
            "gptkit score --texts pairs.tsv > scores.jsonl    # minimal pairs: which text is preferred",
        ),
        _after_score,
    ),
    Command(
        "predict",
        PredictOptions,
        "gptkit.use.predict:run",
        (
            'gptkit predict "Return the list of message parts."     # by the newest finetune run under ./runs',
            'gptkit predict "It rains." "The street is wet." --model runs/entailment',
            "gptkit predict --inputs new.csv --output labelled.jsonl      # rerun the same command to resume",
        ),
        _after_predict,
    ),
    Command(
        "inspect",
        InspectOptions,
        "gptkit.inspect.command:run",
        (
            'gptkit inspect "The function returns a list"     # the newest run\'s model, as inspect.html',
            'gptkit inspect "The list is a list" --head 2.1 --out list.html --model runs/demo/model',
            'gptkit inspect "A man sleeps." "Nobody sleeps." --model runs/rte --out pair.html',
        ),
        _after_inspect,
    ),
    Command(
        "probe",
        ProbeOptions,
        "gptkit.probe.command:run",
        (
            "gptkit probe                                     # the newest run's model, on demo-classification",
            "gptkit probe --task sst2 --data glue/SST-2 --model runs/demo/model --out probe-sst2",
        ),
        _after_probe,
    ),
    Command(
        "convert",
        ConvertOptions,
        "gptkit.convert.command:run",
        (
            "gptkit convert runs/demo/model exported --to hf  # a directory that plain transformers loads",
            "gptkit convert ckpt.pt imported --tokenizer gpt2-files",
            "gptkit convert runs/demo/model merged --adapter lora   # weights that PEFT fine-tuned",
        ),
        _after_convert,
        check="gptkit.convert.check:check",
    ),
    Command(
        "tokenizer train",
        TokenizerTrainOptions,
        "gptkit.manage.tokenizer:run_train",
        (
            "gptkit tokenizer train --tokenizer bpe:8192 --out bpe-8192",
            "gptkit tokenizer train book.txt --tokenizer char --out book-characters",
        ),
        _after_tokenizer,
    ),
    Command(
        "tokenizer compare",
        TokenizerCompareOptions,
        "gptkit.manage.tokenizer:run_compare",
        (
            "gptkit tokenizer compare char bpe:4096",
            "gptkit tokenizer compare gpt2-files bpe-8192 book.txt",
        ),
        _after_tokenizer,
    ),
    Command(
        "tokenizer encode",
        TokenizerEncodeOptions,
        "gptkit.manage.tokenizer:run_encode",
        (
            'gptkit tokenizer encode "The function returns"   # with the newest run\'s tokenizer',
            "cat article.txt | gptkit tokenizer encode - --tokenizer gpt2-files",
        ),
        _after_encode,
    ),
    Command(
        "tokenizer decode",
        TokenizerDecodeOptions,
        "gptkit.manage.tokenizer:run_decode",
        ("gptkit tokenizer decode 464 2163 5860 --tokenizer gpt2-files",),
        "gptkit tokenizer compare {tokenizer} bpe:4096",
    ),
    Command(
        "runs ls",
        RunsListOptions,
        "gptkit.manage.runs:run_list",
        ("gptkit runs ls", "gptkit runs ls --root /scratch/runs --json"),
        _as_it_says,
    ),
    Command(
        "runs show",
        RunsShowOptions,
        "gptkit.cli.runs:run_show",
        ("gptkit runs show demo", "gptkit runs show demo --samples        # texts along the training"),
        _as_it_says,
    ),
    Command(
        "runs compare",
        RunsCompareOptions,
        "gptkit.manage.compare_runs:run",
        ("gptkit runs compare demo short", "gptkit runs compare runs/* --by tokens --out losses.png"),
        _as_it_says,
    ),
    Command(
        "runs rm",
        RunsRemoveOptions,
        "gptkit.manage.remove_runs:run_remove",
        ("gptkit runs rm first-try", "gptkit runs rm runs/pretrain-laptop-* --yes"),
        _as_it_says,
    ),
    Command(
        "runs prune",
        RunsPruneOptions,
        "gptkit.manage.remove_runs:run_prune",
        ("gptkit runs prune demo", "gptkit runs prune --yes                      # all finished runs"),
        _as_it_says,
    ),
    Command(
        "recipes ls",
        RecipesListOptions,
        "gptkit.cli.recipes:run_list",
        ("gptkit recipes ls",),
        "gptkit recipes show laptop",
    ),
    Command(
        "recipes show",
        RecipesShowOptions,
        "gptkit.cli.recipes:run_show",
        ("gptkit recipes show laptop", "gptkit recipes show models/gpt2-small"),
        lambda result, words: f"gptkit recipes cp {{kind}}/{{name}} {{free:{Path(result['path']).name}}}",
    ),
    Command(
        "recipes cp",
        RecipesCopyOptions,
        "gptkit.cli.recipes:run_copy",
        ("gptkit recipes cp laptop mine.yaml",),
        _after_copy,
    ),
    Command(
        "env",
        EnvOptions,
        "gptkit.manage.env:run",
        ("gptkit env", "gptkit env --json"),
        "gptkit pretrain",
    ),
)
GROUPS = {
    "": "Pre-train, fine-tune, sample from and evaluate GPT-1 and GPT-2.",
    "recipes": "List, show and copy model presets and recipes.",
    "runs": "List, show, compare and remove runs.",
    "tokenizer": "Train a tokenizer, compare two, encode and decode.",
}
