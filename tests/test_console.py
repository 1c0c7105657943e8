"""What reaches a terminal, a pipe and a script."""

from __future__ import annotations

import errno
import io
import itertools
import json
import math
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console as RichConsole

from gptkit.console import Console, NoReader, Progress, Tally
from gptkit.system.terminal import safe_text
from gptkit.training.job import StepEvent

BIDI = "".join(map(chr, [0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]))
INVISIBLE = "".join(map(chr, [0x200B, *range(0x2060, 0x2065), 0xFEFF, *range(0xE0000, 0xE0080)]))
ATTACKS = [
    "\x1b[2J\x1b[H",
    "\x1b]0;title\x07",
    "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\",
    "\x1bP+q544e\x1b\\",
    "\x9b31m",
    "\x9d52;c;QQ==\x9c",
    "over\rwritten",
    "back\b\bspace",
    "\x7f\x00\x0b\x0c",
    "\u202egnp.exe",
    "\u2066hidden\u2069",
    "\udc9b1m",
    "[/b] [link=http://x]y[/link] [bold]z",
]


FIGURES = {"loss": "2.5000", "lr": "6.00e-04", "tokens/s": "12,346", "mfu": "n/a"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def console(
    *, live: bool = False, as_json: bool = False, **environment: str
) -> tuple[Console, io.StringIO, io.StringIO]:
    kind = Terminal if live else io.StringIO
    out, err = kind(), kind()
    facts = {"TERM": "xterm", "COLUMNS": "200", **environment}
    return Console(json=as_json, stdout=out, stderr=err, environment=facts), out, err


def is_harmless(text: str) -> bool:
    marks = BIDI + INVISIBLE
    return all(
        char in "\n\t" or (unicodedata.category(char) not in ("Cc", "Cs") and char not in marks) for char in text
    )


@given(
    st.text()
    | st.text(alphabet=st.characters(max_codepoint=0xFF))
    | st.text(alphabet=BIDI + INVISIBLE + "\x1b\x9b\ud800a")
)
def test_safe_text_lets_nothing_through_and_leaves_the_rest(text: str) -> None:
    shown = safe_text(text)
    assert is_harmless(shown)
    shown.encode("utf-8")
    if is_harmless(text):
        assert shown == text


def test_safe_text_shows_every_byte_it_takes_away() -> None:
    assert safe_text("\x1b[1m\x9b\u202e\ud800\r\n\t") == "\\x1b[1m\\x9b\\u202e\\ud800\\r\n\t"


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_reaches_a_terminal(attack: str) -> None:
    speaker, out, err = console(live=True)
    with speaker.progress(10) as progress:
        progress.step(1, {"loss": "1.0"})
        progress.evaluation(1, {"val_loss": 1.0}, sample=attack)
        progress.say(attack)
    speaker.say(attack)
    speaker.warn(attack)
    speaker.error(attack)
    speaker.result(attack)
    speaker.stream(attack)
    speaker.table(attack, [attack, "x"], [[attack, 1]])
    for text in (out.getvalue(), err.getvalue()):
        # Colours and the live display's cursor movements are our own; nothing else may begin with ESC.
        own = re.sub(r"\x1b\[(\?25[lh]|[\d;]*[mAKG])|\r", "", text)
        assert is_harmless(own)
    if "\x1b" not in attack and "[/b]" in attack:
        assert "[link=http://x]y[/link]" in out.getvalue()


@pytest.mark.parametrize(
    "environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"GITHUB_ACTIONS": "true"}, {"CI": "true"}]
)
def test_no_colour_where_none_is_wanted(environment: dict[str, str]) -> None:
    speaker, out, err = console(live=True, **environment)
    speaker.warn("careful")
    speaker.table("t", ["a"], [[1]])
    assert "\x1b" not in out.getvalue() + err.getvalue()


def test_a_narrow_terminal_gets_plain_lines_in_colour() -> None:
    speaker, _, err = console(live=True, COLUMNS="59")
    with speaker.progress(1) as progress:
        train(progress, 1, log_every=1, eval_every=1)
    assert not progress.live
    assert "\x1b[?25l" not in err.getvalue()
    speaker.warn("careful")
    assert "\x1b[1;33mwarning:" in err.getvalue()
    with console(live=True, COLUMNS="60")[0].progress(1) as progress:
        assert progress.live


def train(progress: Progress, steps: int, *, log_every: int, eval_every: int) -> None:
    for step in range(1, steps + 1):
        if step % eval_every == 0:
            progress.evaluation(step, {"val_loss": 2.0, "bits_per_byte": 1.5}, sample="To be,\nor not")
        if step in (1, steps) or step % log_every == 0:
            progress.step(step, FIGURES)
        if step % eval_every == 0:
            progress.checkpoint(step)


@pytest.mark.parametrize(("log_every", "eval_every"), [(10, 1000), (1, 10), (7, 3)])
def test_a_long_run_in_a_pipe_is_under_200_plain_lines(log_every: int, eval_every: int) -> None:
    speaker, out, err = console()
    with speaker.progress(10_000) as progress:
        train(progress, 10_000, log_every=log_every, eval_every=eval_every)
    lines = err.getvalue().splitlines()
    steps = [int(line.split()[1].split("/")[0]) for line in lines if line.startswith("step ")]
    assert 50 <= len(lines) <= 200
    assert min(after - before for before, after in itertools.pairwise(steps[:-1])) >= log_every
    assert steps[-1] == 10_000
    assert not re.search(r"[\x1b\r]", err.getvalue())
    assert out.getvalue() == ""


def test_a_plain_line_says_all_there_is() -> None:
    event = StepEvent(
        step=10,
        tokens=80,
        loss=2.34567,
        learning_rate=6e-4,
        grad_norm=1.0,
        tokens_per_second=12345.6,
        elapsed_seconds=1.0,
        data_seconds=0.0,
    )
    speaker, _, err = console()
    with speaker.progress(100) as progress:
        progress.step(event.step, event.figures() | {"mfu": "31.4%"})
        progress.evaluation(
            10, {"val_loss": 2.0, "bits_per_byte": 1.25, "val_perplexity": 1e300, "f1": math.nan}, sample="a\x1b\nb"
        )
    step, evaluation, sample = err.getvalue().splitlines()
    assert re.fullmatch(
        r"step 10/100  loss 2\.3457  lr 6\.00e-04  12,346 tokens/s  mfu 31\.4%  elapsed 0:00  eta -:--", step
    )
    assert evaluation == "eval 10/100  val loss 2.0000  bits/byte 1.2500  val perplexity 1e+300  f1 n/a"
    assert sample == 'sample  "a\\x1b\\nb"'


def test_eta_is_the_pace_since_the_first_logged_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("gptkit.console.time.monotonic", lambda: now)
    speaker, _, _ = console()
    with speaker.progress(101) as progress:
        now = 160.0  # a minute of compiling
        assert progress.eta(1) is None
        assert progress.eta(1, pace=2.0) == 200.0  # as the step measured itself
        now = 170.0
        assert progress.eta(11) == pytest.approx(90.0)


def test_the_live_display_shows_figures_and_keeps_the_log() -> None:
    speaker, out, err = console(live=True)
    with speaker.progress(20) as progress:
        train(progress, 20, log_every=10, eval_every=10)
        speaker.say("a line of the log")
    shown = err.getvalue()
    for part in (
        "step 20/20",
        "2.5000",
        "6.00e-04",
        "12,346",
        "n/a",
        "2.0000",
        "1.5000",
        "To be,\\nor not",
        "a line of the log",
    ):
        assert part in shown
    assert out.getvalue() == ""


def drawn(progress: Progress | Tally, width: int = 60) -> str:
    screen = RichConsole(file=io.StringIO(), width=width, color_system=None)
    screen.print(progress.render())
    return screen.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_resumed_run_starts_its_bar_where_it_is() -> None:
    speaker, _, _ = console(live=True)
    with speaker.progress(100, 60) as progress:
        assert "step 60/100" in drawn(progress)
        assert progress.eta(61) is None  # the pace is that of this process
        progress.checkpoint(67)  # an interrupt saves between two rows
    last = drawn(progress)
    assert "step 67/100" in last
    assert "elapsed" in last
    assert "eta" not in last


def test_all_figures_of_the_live_display_fit_60_columns() -> None:
    speaker, _, _ = console(live=True)
    with speaker.progress(1_000_000) as progress:
        progress.step(123_456, FIGURES)
        metrics = {"val_loss": 1.0, "val_perplexity": 123_456.5, "bits_per_byte": 1.5, "accuracy": 0.25, "f1": 0.125}
        progress.evaluation(123_456, metrics, sample="天地玄黄" * 100)
        progress.checkpoint(123_456)
        lines = drawn(progress).splitlines()
    with speaker.tally(1_000_000, 0, "examples") as tally:
        tally.reach(999_999)
        lines += drawn(tally).splitlines()
    assert max(map(cell_len, lines)) <= 60
    assert len(lines) < 18
    for figure in ("123456/1000000", "123456.5000", "0.1250", "12,346", "eta", "999,999/1,000,000"):
        assert figure in "\n".join(lines)
    assert "…" not in "\n".join(lines)


def test_generated_text_goes_into_a_pipe_as_it_is() -> None:
    speaker, out, _ = console()
    speaker.stream("a\x1b[1m")
    speaker.stream("\x07")
    assert out.getvalue() == "a\x1b[1m\x07"


def test_with_json_stdout_has_the_object_alone() -> None:
    speaker, out, err = console(as_json=True)
    speaker.result("text")
    speaker.stream("text")
    speaker.table("t", ["a"], [[1]])
    speaker.say("log")
    speaker.print_json({"loss": math.nan, "path": Path("a"), "text": "\x1b\u202e\x9b", "rows": ({"x": math.inf},)})
    assert json.loads(out.getvalue()) == {"loss": None, "path": "a", "text": "\x1b\u202e\x9b", "rows": [{"x": None}]}
    assert is_harmless(out.getvalue())
    assert err.getvalue() == "log\n"


def test_a_table_in_a_pipe_is_aligned_text() -> None:
    speaker, out, _ = console()
    speaker.table("figures", ["name", "value"], [["loss", "1.25"], ["tokens", "1,000"], ["mfu", None], ["a\nb", "5%"]])
    assert out.getvalue().splitlines() == [
        "figures",
        "name    value",
        "------  -----",
        "loss     1.25",
        "tokens  1,000",
        "mfu       n/a",
        "a\\nb       5%",
    ]


def test_wide_and_combining_letters_take_the_cells_that_they_fill() -> None:
    speaker, out, _ = console()
    names = ["评论", "e\u0301t\u00e9", "รีวิว", "👩🏽‍🚀"]
    speaker.table("", ["任务", "n"], [[name, "1"] for name in names])
    expected = ["任务  n", "----  -", "评论  1", "e\u0301t\u00e9   1", "รีวิว   1", "👩🏽‍🚀    1"]
    assert out.getvalue().splitlines() == expected


def test_escapes_for_an_encoding_are_counted() -> None:
    out = io.BytesIO()
    stream = io.TextIOWrapper(out, encoding="latin-1", errors="backslashreplace")
    Console(stdout=stream, environment={}).table("评", ["任务", "n"], [["é评", "1"], ["loss", "2"]])
    expected = ["\\u8bc4", "\\u4efb\\u52a1  n", "------------  -", "é\\u8bc4       1", "loss          2"]
    assert out.getvalue().decode("latin-1").splitlines() == expected


def test_neither_a_giant_number_nor_a_long_cell_widens_a_table_in_a_pipe() -> None:
    speaker, out, _ = console()
    speaker.table("", ["name", "n"], [["perplexity", f"{10**300:,}"], ["share", f"{10**40}%"], ["x" * 300, "1"]])
    _, rule, *rows, long = out.getvalue().splitlines()
    assert [row.split() for row in rows] == [["perplexity", "1.000e+300"], ["share", "1.000e+40%"]]
    assert max(map(len, [rule, *rows])) < 80
    assert long == "x" * 300 + "           1"


ROWS = [
    ["demo-classification", "multiple-choice", "accuracy", "549,367", "10,042", "", "91.3 to 93.4", "1.25e-05"],
    ["评论", "分类", "matthews", "12,345", "7", "", "n/a", "0.5"],
]


@pytest.mark.parametrize("columns", [200, 100, 80, 60, 40, 20, 1])
@pytest.mark.parametrize("no_colour", ["", "1"])
def test_no_figure_is_cut_on_a_narrow_terminal(columns: int, no_colour: str) -> None:
    speaker, out, _ = console(live=True, COLUMNS=str(columns), NO_COLOR=no_colour)
    speaker.table("a title", ["task", "format", "metric", "train", "dev", "test", "interval", "p"], ROWS)
    shown = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())
    assert max(map(cell_len, shown.splitlines())) <= max(columns, 2)
    if columns >= 20:
        for figure in ("549,367", "10,042", "12,345", "1.25e-05", "91.3", "93.4", "0.5", "评论", "matthews"):
            assert figure in shown
        assert ("test" in shown) == (columns == 200)


def test_a_wide_letter_at_the_end_of_a_line_is_not_cut() -> None:
    speaker, out, _ = console(live=True, COLUMNS="40", NO_COLOR="1")
    speaker.table("", ["a", "b", "c"], [["x" * 20, "y" * 20, "0" * 34 + "は 0.004"]])
    assert "は" in out.getvalue()


CELLS = st.text(max_size=30) | st.integers().map(str) | st.floats().map(str) | st.none()


@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), min_size=1)))
def test_any_table_fits_any_terminal(rows: list[list[str | None]]) -> None:
    for columns in (30, 60):
        speaker, out, _ = console(live=True, COLUMNS=str(columns), NO_COLOR="1")
        speaker.table("t", [str(cell) for cell in rows[0]], rows)
        assert max(map(cell_len, out.getvalue().split("\n"))) <= columns


def test_right_to_left_letters_leave_the_cells_beside_them() -> None:
    speaker, out, _ = console(live=True, NO_COLOR="1")
    speaker.table("", ["task", "%"], [["مراجعة", "91.3"]])
    assert "\u2068مراجعة\u2069" in out.getvalue()
    speaker, out, _ = console()
    speaker.table("", ["task", "%"], [["مراجعة", "91.3"]])
    assert out.getvalue().splitlines()[-1] == "مراجعة  91.3"  # no marks in a pipe


def test_other_ranks_are_silent_but_for_errors() -> None:
    speaker, out, err = console(RANK="1")
    speaker.say("x")
    speaker.warn("x")
    speaker.result("x")
    with speaker.progress(1) as progress:
        progress.step(1, {"loss": "1.0"})
    speaker.error("out of\nmemory")
    assert out.getvalue() == ""
    assert err.getvalue() == "error: out of memory\n"


def test_output_that_nobody_reads_ends_no_work_but_a_stream() -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    speaker = Console(stdout=Closed(), stderr=Closed(), environment={})
    speaker.say("x")
    speaker.result("x")
    speaker.table("", ["a"], [["b"]])
    speaker.print_json({})
    with pytest.raises(NoReader):  # text that is generated only to be read
        speaker.stream("x")


def test_a_terminal_that_was_closed_ends_no_run() -> None:
    class Gone(io.StringIO):
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            if self.is_gone:
                raise OSError(errno.EIO, "Input/output error")
            return super().write(text)

        is_gone = False

    terminal = Gone()
    speaker = Console(stderr=terminal, environment={"COLUMNS": "100"})
    with speaker.progress(2) as progress:
        terminal.is_gone = True
        progress.step(1, {"loss": "1.0"})
        speaker.say("x")


def test_an_error_of_stdout_names_it() -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    speaker = Console(stdout=Full(), environment={})
    for speak in (lambda: speaker.result("x"), lambda: speaker.print_json({}), lambda: speaker.table("", ["x"], [[1]])):
        with pytest.raises(OSError, match="stdout"):
            speak()


def test_a_tally_is_some_lines_in_a_pipe_and_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptkit.console.time.monotonic", itertools.count(0.0, 0.1).__next__)
    speaker, out, err = console()
    with speaker.tally(1000, 400) as tally:
        for _ in range(600):
            tally.add(5)
    lines = err.getvalue().splitlines()
    assert 5 <= len(lines) <= 20
    assert re.fullmatch(r"samples 1,000/1,000  [\d,]+ tokens/s  elapsed [\d:]+  eta 0:00", lines[-1])
    assert tally.tokens == 3000
    speaker, out, err = console(live=True)
    with speaker.tally(3, 1) as tally:
        tally.add(7)
        speaker.say("a line of the log")
    assert tally.live
    assert "samples 2/3" in err.getvalue()
    assert "a line of the log" in err.getvalue()
    assert out.getvalue() == ""


def test_rows_are_coloured_on_a_terminal_alone() -> None:
    for live in (True, False):
        speaker, out, _ = console(live=live)
        speaker.table("", ["token", "p"], [["a", "0.9"], ["b", "0.1"]], colours=["green", "red"])
        assert ("\x1b[32m" in out.getvalue()) == ("\x1b[31m" in out.getvalue()) == live
