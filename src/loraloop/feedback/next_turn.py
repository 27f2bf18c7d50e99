"""What the user's next turn says about the answer before it (``feedback.next_turn``): a rule of English words.

The rule looks at how the turn begins, in lower case and without what stands around words:

- ``corrects``: it begins with "no", "wrong", "that is wrong", "that's not right", "incorrect", "actually", "i meant",
  "i said", "not what i" and the like.
- ``again``: it says the same as the user's turn before, or begins with "again", "try again", "once more", "retry" and
  the like.
- ``thanks``: it begins with "thanks", "thank you", "thx" or "perfect", has at most twelve words, and neither "but" nor
  "not".

The first that holds is taken. Other turns, and turns in other languages, say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from loraloop.core.same_task import answer_key
from loraloop.records import Message

Signal = Literal["again", "corrects", "thanks"]
CORRECTS = re.compile(
    r"(no(?! (problem|worries|need|thank|more|other|one))|nope|wrong|incorrect|actually|i meant|i said|i asked for"
    r"|not what i|you misunderstood|(that|this|it)('s| is| was) (still )?(wrong|incorrect|not (right|correct|what i))"
    r"|(that|this|it) (isn't|wasn't) (right|correct|what i))\b"
)
AGAIN = re.compile(r"((please )?(try |do (it|that) )?again|once more|one more time|retry|redo|repeat (it|that|this))\b")
THANKS = re.compile(r"(many thanks|thanks|thank you|thx|perfect)\b")
RESERVED = re.compile(r"\b(but|not)\b|n't\b")
MOST_WORDS = 12


def signal(turns: Sequence[Message]) -> Signal | None:
    """What the last turn says about the assistant's turn before it; ``None``: nothing, or one of them is another's.

    Args:
        turns: What a request holds.
    """
    if len(turns) < 2 or (turns[-2].role, turns[-1].role) != ("assistant", "user"):
        return None
    text = answer_key(turns[-1].text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").lstrip(" .,!?\"'*-")
    before = next((turn.text for turn in reversed(turns[:-2]) if turn.role == "user"), None)
    if CORRECTS.match(text):
        return "corrects"
    if AGAIN.match(text) or (before is not None and answer_key(before) == answer_key(turns[-1].text)):
        return "again"
    if THANKS.match(text) and len(text.split()) <= MOST_WORDS and not RESERVED.search(text):
        return "thanks"
    return None
