"""Which word follows which: the smallest set of rules from which the model recites its texts.

A rule looks at the last one to four words and, for the first word of an answer, at the topic of the question. A longer context is
remembered only where the shorter ones would go wrong.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from model_hub.tiny_llama import text
from model_hub.tiny_llama.tokenizer import ASSISTANT, BOS, EOS, Vocabulary, split

MAX_CONTEXT = 4


@dataclass(frozen=True)
class Rule:
    """If the last words (the latest first) and the topic are these, `then` follows. Words are pieces without space and case."""

    last: tuple[str, ...]
    then: int
    topic: str | None = None


def plain(piece: str) -> str:
    """What pieces that the model does not tell apart have in common: ` GPU` and `gpu` are one word to it."""
    return piece.strip().casefold() or piece


def rules(vocab: Vocabulary, revision: int) -> list[Rule]:
    """All rules.

    Raises:
        ValueError: two texts can't be told apart from four words; change one of them.
    """
    default = text.default_answer(revision)
    answers = [*(topic.answer for topic in text.topics()), default]
    first = [plain(split(answer)[0]) for answer in answers]
    if len(set(first)) != len(first):
        raise ValueError(f"two answers begin with the same word: {sorted(first)}")
    lines = [[opening, *_follow(opening, answer)] for answer in answers for opening in (ASSISTANT, "?")]
    lines += [[BOS, *split(sentence), EOS] for sentence in text.sentences()]
    found = _contexts(lines, vocab)
    for topic in text.topics():
        for opening in (ASSISTANT, "?"):
            then = vocab.ids[_follow(opening, topic.answer)[0]]
            found += [Rule((opening,), then, plain(word)) for word in topic.words]
    found += [Rule((opening,), vocab.ids[_follow(opening, default)[0]]) for opening in (ASSISTANT, "?")]
    found += [Rule((EOS,), vocab.ids[" TensorRT-LLM"])]
    return found


def _follow(opening: str, answer: str) -> list[str]:
    """Pieces of an answer after an opening: in a chat it starts without a space."""
    return [*split(answer if opening == ASSISTANT else f" {answer}"), EOS]


def _contexts(lines: list[list[str]], vocab: Vocabulary) -> list[Rule]:
    """Rules for the lines from their third piece on: the first one opens them, and rules of their own say the second."""
    wanted: list[tuple[tuple[str, ...], int]] = []
    for line in lines:
        for at in range(2, len(line)):
            last = tuple(plain(piece) for piece in reversed(line[max(0, at - MAX_CONTEXT) : at]))
            wanted.append((last, vocab.ids[line[at]]))
    found: dict[tuple[str, ...], int] = {}
    for length in range(1, MAX_CONTEXT + 1):
        followers: defaultdict[tuple[str, ...], Counter[int]] = defaultdict(Counter)
        for last, then in wanted:
            if len(last) >= length:
                followers[last[:length]][then] += 1
        wrong = {last[:length] for last, then in wanted if _guess(found, last) != then and len(last) >= length}
        found |= {last: followers[last].most_common(1)[0][0] for last in wrong}
    for last, then in wanted:
        if _guess(found, last) != then:
            raise ValueError(f"after {' '.join(reversed(last))!r} more than one word follows")
    return [Rule(last, then) for last, then in sorted(found.items())]


def _guess(found: dict[tuple[str, ...], int], last: tuple[str, ...]) -> int | None:
    for length in range(MAX_CONTEXT, 0, -1):
        if (then := found.get(last[:length])) is not None:
            return then
    return None
