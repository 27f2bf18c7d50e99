"""What is trained on from a served session is asked as it was served."""

from __future__ import annotations

import pytest

from loraloop.core import session_file
from loraloop.dataset.template import format_renderer
from loraloop.records import Session
from loraloop.serve.engine import prompt
from loraloop.source.sessions.text import situation

TEMPLATES = (
    "{instruction}\n{input}\n> ",
    "Below is a task.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n> ",
)
CONVERSATIONS = (
    [("system", "Count the heads and tails."), ("user", "HHTT\nHTHT")],
    [("system", "a"), ("system", "b"), ("user", "c  d"), ("assistant", "e"), ("user", "f")],
)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("turns", CONVERSATIONS)
def test_training_asks_as_serving_did(template: str, turns: list[tuple[str, str]]) -> None:
    """An example of a served conversation is trained with the very prompt that the server made of it."""
    messages = [{"role": role, "content": content} for role, content in turns]
    served = Session(id="s", prompt=messages)
    session = session_file.parse(session_file.SessionFile.of(served).encode()).session("s")
    render = format_renderer(template)
    assert render(session.instruction, situation(session)) == prompt.instruction(render, template, messages)
