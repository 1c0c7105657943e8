"""The texts that a command is given as arguments: one by one, or as the fields of a fine-tuned model's format."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gptkit.errors import UsageError
from gptkit.system.reading import given_text
from gptkit.tasks.task import FORMAT_FIELDS, Task
from gptkit.text.examples import Example


def given_texts(arguments: Sequence[str], names: Sequence[str], say: Callable[[str], None]) -> list[str]:
    """Return the texts of arguments, of which one may be `-` for stdin; UsageError, with its name, for an empty one."""
    if arguments.count("-") > 1:
        raise UsageError("stdin has only one text", where=" ".join(arguments), fix="write - once")
    texts = [given_text(text, "the text", name, say) for text, name in zip(arguments, names, strict=True)]
    for text, name in zip(texts, names, strict=True):
        if not text or text.isspace():
            raise UsageError("the text is empty", where=name, fix="write some text")
    return texts


def example_of(task: Task, texts: Sequence[str], say: Callable[[str], None]) -> Example:
    """Return the example whose fields are given in order; UsageError for too few or too many."""
    fields = FORMAT_FIELDS[task.format]
    if task.format != "multiple-choice":
        if len(texts) != len(fields):
            fix = f"pass {' '.join(field.upper() for field in fields)}, each as one argument in quotes"
            message = f"the model reads {' and '.join(fields)}, not {len(texts)} texts"
            raise UsageError(message, where="TEXT", fix=fix)
        return Example(tuple(given_texts(texts, [field.upper() for field in fields], say)), None, "TEXT", "")
    count = len(texts) - 2
    if count < 2 or (task.choices or count) != count:
        choices = " ".join(f"CHOICE{number}" for number in range(1, 1 + (task.choices or 2)))
        fix = f"pass CONTEXT QUESTION {choices}{' ...' * (not task.choices)}, with '' for no question"
        message = f"the model reads {', '.join(fields)}, not {len(texts)} texts"
        raise UsageError(message, where="TEXT", fix=fix)
    names = ["CONTEXT", "QUESTION", *(f"CHOICE{number}" for number in range(1, count + 1))]
    has_question = bool(texts[1])
    kept = [number for number in range(len(texts)) if number != 1 or has_question]
    context, *rest = given_texts([texts[number] for number in kept], [names[number] for number in kept], say)
    question = rest.pop(0) if has_question else ""
    return Example((context, question, tuple(rest)), None, "TEXT", "")
