"""`gptkit generate --interactive`: continue one typed prompt after another; commands begin with !."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptkit.console import Console
from gptkit.decoding.engines import choose_engine
from gptkit.decoding.text_model import TextModel
from gptkit.decoding.text_options import TextOptions, check_settings
from gptkit.errors import InputError, UsageError, suggest
from gptkit.generate.options import GenerateOptions
from gptkit.generate.show import print_samples, print_summary
from gptkit.options import fields_of
from gptkit.recipes import kinds_of, parse_value
from gptkit.system import signals
from gptkit.system.encodings import decode_text, encoding_of, without_marks
from gptkit.text.tokenizers.any_tokenizer import unknown_note

MARK = "> "
NONE = "none"
EXPECTED_REPLIES = 20  # in a dialogue, for --compile auto to weigh
SETTABLE = (*fields_of(TextOptions), "stream")
HELP = """!help            this list
!seed N          restart from seed N; without N, show the current seed
!set NAME VALUE  change an option: !set top_k 40; without NAME, list all
!save FILE       write the dialogue to a new file
Ctrl-C stops a reply, Ctrl-D ends"""


def converse(directory: Path, options: GenerateOptions, console: Console) -> None:
    """Continue each line of stdin; on a terminal, errors and Ctrl-C do not end the dialogue."""
    tokens = EXPECTED_REPLIES * options.max_new_tokens
    model = TextModel(directory, options, choose_engine(directory, options, tokens=tokens, say=console.say))
    dialogue = Dialogue(model, options, console)
    attended = sys.stdin.isatty()
    if attended:
        console.say("the model continues each line; !help lists the commands, Ctrl-D ends")
    with signals.default_interrupts() if attended else contextlib.nullcontext():
        for line in _typed_lines(console) if attended else _piped_lines():
            try:
                dialogue.handle(line)
            except KeyboardInterrupt:
                if not attended:
                    raise
                console.say("stopped")
            except (UsageError, InputError) as error:
                if not attended:
                    raise
                console.error(str(error))


def _typed_lines(console: Console) -> Iterator[str]:
    with contextlib.suppress(ImportError):  # gives input() a history; Windows has none
        import readline  # noqa: F401
    while True:
        try:
            if not console.is_watched:  # stdout is for replies only
                print(MARK, end="", file=sys.stderr, flush=True)
            line = input(MARK if console.is_watched else "")
            line.encode("utf-8")  # invalid bytes are surrogates here
            yield without_marks(line)
        except EOFError:
            console.say("")
            return
        except KeyboardInterrupt:
            console.say("\nCtrl-D ends")
        except UnicodeError:
            console.error("the line is not UTF-8")


def _piped_lines() -> Iterator[str]:
    first = sys.stdin.buffer.readline()
    parts: Iterator[bytes] = itertools.chain([first] * bool(first), sys.stdin.buffer)
    if encoding_of(first, "stdin").startswith(("utf-16", "utf-32")):  # in which the byte of LF ends no line
        parts = iter([b"".join(parts)])
    for number, part in enumerate(parts, start=1):
        yield from decode_text(part, "stdin", line=number).removesuffix("\n").split("\n")


class Dialogue:
    """The state of a dialogue: its options, the number of replies since the seed was set, and the transcript.

    The first reply under a seed is that of `gptkit generate PROMPT --seed N`; later ones use other random numbers.
    """

    def __init__(self, model: TextModel, options: GenerateOptions, console: Console) -> None:
        self.options = options
        self.transcript: list[str] = []
        self._model = model
        self._console = console
        self._replies = 0
        self._saved: set[Path] = set()

    def handle(self, line: str) -> None:
        """Reply to a prompt or run a !command; UsageError or InputError if that is impossible."""
        if not line.startswith("!"):
            if line:
                self._reply(line)
            return
        word, _, rest = line[1:].partition(" ")
        commands = {
            "help": lambda rest: self._console.say(HELP),
            "seed": self._seed,
            "set": self._set,
            "save": self._save,
        }
        if word not in commands:
            raise UsageError(f"unknown command {f'!{word}'!r}", where=line, fix=suggest(word, commands))
        commands[word](rest.strip())

    def _reply(self, text: str) -> None:
        options, count = self.options, self.options.num_samples
        prompt = self._model.read(text, options)
        if prompt.unknown:
            self._console.warn(unknown_note("the prompt", prompt.unknown, len(prompt.ids)))
        live = self._console.is_watched if options.stream is None else options.stream
        indices = range(self._replies * count, (self._replies + 1) * count)
        generation = self._model.generate([prompt] * count, indices, options, live=live)
        self._replies += 1
        try:
            print_samples(generation, "", self._console, live=live)
            print_summary(generation, self._model, self._console)
        finally:
            texts = [draft.continuation.text for draft in generation.drafts]
            self.transcript += [f"{MARK}{text}", *texts]

    def _seed(self, rest: str) -> None:
        if rest:
            self._change("seed", rest)
        else:
            self._console.say(f"seed {self.options.seed}, reply {self._replies + 1}")

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        name = name.replace("-", "_")
        if name and name not in SETTABLE:
            raise UsageError(f"{name!r} cannot be set in a dialogue", where="!set", fix=suggest(name, SETTABLE))
        if value:
            self._change(name, value.strip())
            return
        for option in [name] if name else SETTABLE:
            self._console.say(f"{option} {_shown(getattr(self.options, option))}")

    def _change(self, name: str, text: str) -> None:
        kind, field = kinds_of(GenerateOptions)[name], fields_of(GenerateOptions)[name]
        where = f"!set {name}"
        value: Any = () if kind.many else None
        if text != NONE or not (kind.many or kind.optional):
            try:
                words = shlex.split(text) if kind.many else [text]
            except ValueError:
                raise UsageError("unclosed quotes", where=where, fix="close them") from None
            values = tuple(parse_value(word, kind, field, where) for word in words)
            value = values if kind.many else values[0]
        options = dataclasses.replace(self.options, **{name: value})
        check_settings(options)
        self.options = options
        self.transcript.append(f"{MARK}!set {name} {text}")
        if name in ("seed", "num_samples"):
            self._replies = 0

    def _save(self, rest: str) -> None:
        if not rest:
            raise UsageError("no file name", where="!save", fix="write !save FILE")
        path = Path(rest).expanduser()
        if path.exists() and path not in self._saved:
            raise InputError("the file already exists", where=str(path), fix="choose another name")
        try:
            path.write_text("".join(f"{text}\n" for text in self.transcript), encoding="utf-8")
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise InputError(reason, where=str(path), fix="choose another file") from None
        self._saved.add(path)
        self._console.say(f"saved to {path}")


def _shown(value: object) -> str:
    """Return a value in the syntax of !set."""
    if isinstance(value, tuple):
        return " ".join(map(shlex.quote, value)) or NONE
    return NONE if value is None else str(value).lower() if isinstance(value, bool) else str(value)
