"""Short answers against the accepted ones: SQuAD's normalisation, exact match, F1 over words, CoQA's several people."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(answer: str) -> str:
    """Return an answer in lower case without ASCII punctuation, articles and superfluous white space.

    SQuAD's rule (Rajpurkar et al. 2016, section 6.1), which CoQA and Natural Questions' open form took over.
    """
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(answer: str, accepted: str) -> float:
    """Return 1 where both are the same once normalised, else 0."""
    return float(normalised(answer) == normalised(accepted))


def word_f1(answer: str, accepted: str) -> float:
    """Return the harmonic mean of precision and recall of the normalised words; two empty answers agree."""
    given, wanted = normalised(answer).split(), normalised(accepted).split()
    if not given or not wanted:
        return float(given == wanted)
    same = sum((Counter(given) & Counter(wanted)).values())
    return 2 * same / (len(given) + len(wanted))


def best_of(score: Callable[[str, str], float], answer: str, accepted: Sequence[str]) -> float:
    """Return the score against the nearest accepted answer."""
    return max(score(answer, one) for one in accepted)


def leaving_one_out(score: Callable[[str, str], float], answer: str, people: Sequence[str]) -> float:
    """Return the score as CoQA's official script takes it: the mean, over people, of the best among all the others.

    So a model and a person, who cannot be compared with themselves, face equally many answers. An only answer counts
    as it is.
    """
    if len(people) == 1:
        return score(answer, people[0])
    scores = [score(answer, one) for one in people]
    others = (max(scores[:left] + scores[left + 1 :]) for left in range(len(scores)))
    return sum(others) / len(scores)
