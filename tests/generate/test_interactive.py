"""`gptkit generate --interactive`: each line is continued; on a terminal Ctrl-C stops the reply, not the dialogue."""

from __future__ import annotations

import io
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gptkit.console import Console
from gptkit.errors import InputError, UsageError
from gptkit.generate.command import run
from gptkit.generate.interactive import HELP
from gptkit.generate.options import GenerateOptions

BASE: dict[str, Any] = {"device": "cpu", "max_new_tokens": 12, "temperature": 2.0}


def held(
    model: Path, monkeypatch: pytest.MonkeyPatch, *lines: str, encoding: str = "utf-8", **options: Any
) -> tuple[list[str], str]:
    """Return the replies of a dialogue whose lines are piped, and stderr."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode(encoding))))
    out, err = io.StringIO(), io.StringIO()
    console = Console(stdout=out, stderr=err, environment={})
    run(GenerateOptions(model=str(model), interactive=True, **{**BASE, "stop": (r"\n",), **options}), console)
    return out.getvalue().splitlines(), err.getvalue()


def reply(model: Path, prompt: str, **options: Any) -> str:
    console = Console(stdout=io.StringIO(), stderr=io.StringIO(), environment={})
    asked = GenerateOptions(model=str(model), prompt=prompt, **{**BASE, "stop": (r"\n",), **options})
    return str(run(asked, console)["samples"][0]["text"])


def test_marks_and_line_ends_do_not_reach_the_model(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replies, _ = held(model_folder, monkeypatch, "\ufeffhear\r", "me\rhe\r")
    assert replies == held(model_folder, monkeypatch, "hear", "me", "he")[0]
    assert replies[0] == reply(model_folder, "hear")


def test_lines_may_be_utf16(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replies, _ = held(model_folder, monkeypatch, "hear\r", "me\r", encoding="utf-16")
    assert replies == held(model_folder, monkeypatch, "hear", "me")[0]


def test_a_dialogue_gives_the_texts_of_the_command(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (
        "hear",
        "hear",
        "",
        "!seed 0",
        "hear",
        "!seed 7",
        "hear",
        "!set max-new-tokens 5",
        "!set temperature 0",
        "!set greedy on",
        "me",
    )
    replies, _ = held(model_folder, monkeypatch, *lines)
    assert replies[0] == replies[2] == reply(model_folder, "hear")
    assert replies[1] != replies[0]  # the same prompt again gets another text, the same seed again the same
    assert replies[3] == reply(model_folder, "hear", seed=7)
    assert replies[4] == reply(model_folder, "me", greedy=True, temperature=0.0, max_new_tokens=5)


def test_settings_are_checked_like_the_flags(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for line, message in (
        ("!set top_k -1", "out of range"),
        ("!set temperature 1e39", "between 0 and 1e+38"),
        ("!set top_p 0", "out of range"),
        ("!set greedy on", "--greedy, --temperature"),
        ("!set topk 3", "did you mean 'top_k'"),
        ("!set quantize int8", "cannot be set in a dialogue"),
        ("!set stop 'a", "unclosed quotes"),
        ("!seed x", "not a whole number"),
        ("!sed 3", "did you mean 'seed'"),
        ("!save", "no file name"),
        (f"!save {model_folder}", "already exists"),
        ("!save nowhere/at/all", "no such file"),
        ("h" * 99, "learned positions end"),
    ):
        with pytest.raises((UsageError, InputError)) as caught:
            held(model_folder, monkeypatch, line)
        assert message in str(caught.value)
        assert " - " in str(caught.value)


def test_commands_tell_and_save(model_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    saved = tmp_path / "said.txt"
    lines = (
        "!help", "!set", "!seed", "!set stop", "!set stop a \"b c\"", "!set stop", "!set stop none", "!set top_k 5",
        "!set top_k", "hear", f"!save {saved}", "me", f"!save {saved}",
    )  # fmt: skip
    replies, err = held(model_folder, monkeypatch, *lines, temperature=0.5)
    assert HELP in err
    for line in ("seed 0, reply 1", r"stop '\n'", "stop a 'b c'", "top_k 5", "temperature 0.5", "template none"):
        assert f"{line}\n" in err
    text = saved.read_text()
    assert text.startswith('> !set stop a "b c"\n> !set stop none\n> !set top_k 5\n> hear\n')
    assert text.endswith("\n")
    assert "> me\n" in text
    assert "".join(replies) in text.replace("> me\n", "").replace("\n", "")


class Terminal:
    """The other end of a pseudo-terminal; what it showed and nobody has read yet is kept."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.unread = b""

    def type(self, keys: bytes) -> None:
        os.write(self.descriptor, keys)

    def read_until(self, *ends: bytes, again: bytes = b"") -> bytes:
        """Return what is shown up to the first of `ends`; `again` is typed every second until then."""
        until = time.monotonic() + 60
        while not (found := [self.unread.find(end) + len(end) for end in ends if end in self.unread]):
            assert time.monotonic() < until, self.unread
            if select.select([self.descriptor], [], [], 1)[0]:
                self.unread += os.read(self.descriptor, 4096)
            elif again:
                self.type(again)
        shown, self.unread = self.unread[: min(found)], self.unread[min(found) :]
        return shown


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_on_a_terminal_control_c_stops_the_reply_alone(model_folder: Path, tmp_path: Path) -> None:
    import pty

    arguments = ["generate", "--interactive", "--model", str(model_folder), "--max-new-tokens", "1000000"]
    process, descriptor = pty.fork()
    if process == 0:
        os.chdir(tmp_path)
        os.environ["TERM"] = "dumb"
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # what a shell starts in the background ignores Ctrl-C
        os.execv(sys.executable, [sys.executable, "-m", "gptkit", *arguments, "--temperature", "3", "--ignore-eos"])
    terminal = Terminal(descriptor)
    try:
        terminal.read_until(b"> ")
        terminal.type(b"hear\n")
        shown = terminal.read_until(b"\\x1b", b"\x1b[1m")  # cleaned of the escape characters that the model says
        assert b"\x1b[1m" not in shown
        terminal.type(b"\x03")
        terminal.read_until(b"stopped")
        terminal.read_until(b"> ")
        terminal.type(b"!sav\n")
        terminal.read_until(b"did you mean 'save'")
        terminal.type(b"!save said.txt\n")
        terminal.read_until(b"saved to said.txt")
        # A key is lost while the terminal changes its mode, and a signal is seen late between two system calls.
        terminal.read_until(b"Ctrl-D ends", again=b"\x03")
        terminal.read_until(b"next: gptkit convert", again=b"\x04")
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
        process = 0
    finally:
        if process:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        os.close(descriptor)
    assert (tmp_path / "said.txt").read_text().startswith("> hear\n")
