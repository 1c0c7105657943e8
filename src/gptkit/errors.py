"""Errors shown to the user on one line: what is wrong, where, and how to fix it; their exit codes.

GptkitError                 1    a bug, when raised bare
  UsageError                2    a flag, key or value that cannot be used
  InputError                2    a file or directory that cannot be used
  GateFailed                3    quality regressed
  NothingComparable         4    the gate had nothing to compare
  Diverged                  5    a loss or gradient stopped being finite
  OutOfResources            6    disk space, memory or another resource ran out
  Interrupted    128 + signal    a signal stopped the command
  OtherRankFailed             1    another process of the run failed, and reports it itself
  Reported          as reported    an error from another process
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

AGAIN = "rerun the same command"  # shown as the command that resumes the run, where there is one
MAX_LENGTH = 1000  # characters of a message or fix, which may quote a whole file


class GptkitError(Exception):
    """What is wrong (`message`), where (`where`: file:line, flag or key) and how to fix it (`fix`).

    `result` is the command's result if it has one nevertheless, which --json prints beside the error.
    """

    kind = "internal"
    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        fix: str | None = None,
        result: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = _shortened(message)
        self.where = where
        self.fix = None if fix is None else _shortened(fix)
        self.result = result or {}

    def __str__(self) -> str:
        where = f" ({self.where})" if self.where else ""
        fix = f" - {self.fix}" if self.fix else ""
        return " ".join(f"{self.message}{where}{fix}".split())

    def as_json(self) -> dict[str, object]:
        """Return the object that `--json` prints on stdout."""
        keys = ("kind", "exit_code", "message", "where", "fix")
        return {**self.result, "error": {key: getattr(self, key) for key in keys}}


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 3] + "..."


class UsageError(GptkitError):
    kind = "usage"
    exit_code = 2


class InputError(GptkitError):
    kind = "input"
    exit_code = 2


class GateFailed(GptkitError):
    """Quality regressed."""

    kind = "gate"
    exit_code = 3


class NothingComparable(GptkitError):
    kind = "nothing_comparable"
    exit_code = 4


class Diverged(GptkitError):
    """A loss, gradient or weight stopped being finite, first at `step`."""

    step = 0
    kind = "diverged"
    exit_code = 5


class OutOfResources(GptkitError):
    kind = "resources"
    exit_code = 6


class OtherRankFailed(GptkitError):
    """Another process of the run failed, and reports it itself."""


class Reported(GptkitError):
    """An error that another process reported; that process has also written the log."""

    def __init__(self, kind: str, exit_code: int, message: str, where: str | None, fix: str | None) -> None:
        super().__init__(message, where=where, fix=fix)
        self.kind, self.exit_code = kind, exit_code


class Interrupted(GptkitError):
    """A signal stopped the process; the exit code is 128 + `signal_number`, as in a shell."""

    kind = "interrupted"

    def __init__(self, message: str, *, signal_number: int, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(message, where=where, fix=fix)
        self.exit_code = 128 + signal_number


def suggest(word: str, known: Iterable[str]) -> str:
    """Return the fix for a misspelt `word`: the nearest known word, or the list of all."""
    choices = sorted(known)
    near = nearest(word, choices)
    return f"did you mean {near!r}?" if near else f"choose one of {', '.join(choices)}"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that a misspelt `word` most likely means, or None if none is close."""
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return near[0] if near else None
