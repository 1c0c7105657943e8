"""Which fields of a run's files hold times: in those alone two runs of one command differ."""

from __future__ import annotations


def is_time(name: str) -> bool:
    return "second" in name or name in ("mfu", "finished_at")
