"""What is trained on is asked as it is served."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloop.core import session_file
from loraloop.core.chat_templates import BUILT_IN, CHAT
from loraloop.core.messages import read_all
from loraloop.core.prompts import ask
from loraloop.core.rendering import Renderer
from loraloop.records import Session
from loraloop.source.sessions import Sessions

FORMATS = (
    "{instruction}\n{input}\n> ",
    "Below is a task.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n> ",
    "Q: {input}\nA: ",
)
TEMPLATES = (*FORMATS, CHAT, *BUILT_IN)
TEXT = st.text(st.characters(codec="utf8", exclude_categories=["Cs", "Cc"]) | st.just("\n"), min_size=1).filter(
    str.strip
)
TURNS = st.lists(st.tuples(TEXT, TEXT), max_size=2)


@pytest.fixture(scope="module")
def tokenizer():
    from loraloop.model.tokenizer import byte_tokenizer

    return byte_tokenizer()


@pytest.mark.parametrize("stored", [False, True], ids=["from the database", "from session.json"])
@pytest.mark.parametrize("template", TEMPLATES)
@given(system=st.none() | TEXT, before=TURNS, question=TEXT, correction=TEXT)
def test_a_corrected_chat_is_trained_with_the_tokens_that_it_was_served_with(
    tokenizer, template, stored, system, before, question, correction
):
    """In every template, with a system prompt and earlier turns or without, prompts of both have the same tokens."""
    said = [("system", system)] if system else []
    said += [turn for asked, told in before for turn in (("user", asked), ("assistant", told))]
    messages = [{"role": role, "content": text} for role, text in (*said, ("user", question))]
    served = ask(template, tokenizer, read_all(messages))
    example = learned(Session(id="s", prompt=messages, correction=correction), stored)
    row = Renderer(template, tokenizer).rows(example)[-1]
    assert tokenizer(row.prompt).input_ids == tokenizer(served).input_ids


@pytest.mark.parametrize("stored", [False, True], ids=["from the database", "from session.json"])
@pytest.mark.parametrize("template", TEMPLATES)
@given(prompt=TEXT, correction=TEXT)
def test_a_corrected_completion_is_trained_with_the_text_that_was_sent(tokenizer, template, stored, prompt, correction):
    """A prompt of /v1/completions is trained as it is, its last space included, whatever the template."""
    example = learned(Session(id="s", prompt=prompt, correction=correction), stored)
    (row,) = Renderer(template, tokenizer).rows(example)
    assert row.prompt == prompt


def learned(session, stored):
    """The example of a session that was rated and corrected."""
    from dataclasses import replace

    from loraloop.records import Rating

    rated = replace(session, rating=Rating(stars=1), answer="no")
    if stored:
        rated = session_file.parse(session_file.SessionFile.of(rated).encode()).session("s")
    (labelled,) = Sessions(min_corrective=0).judge({"s": rated})
    (example,) = labelled.examples
    return example
