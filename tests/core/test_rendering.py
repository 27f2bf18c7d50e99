"""Conversations as rows: what is asked, what is learned, and what templates do to both."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloop.core import prompts
from loraloop.core.chat_templates import BUILT_IN
from loraloop.core.messages import read_all, write
from loraloop.core.rendering import Renderer
from loraloop.errors import ModelError
from loraloop.model.tokenizer import byte_tokenizer
from loraloop.records import Example, Message, Provenance, ToolCall
from loraloop.trainer.encode import encode

TEXT = st.text(st.characters(codec="utf8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(str.strip)
CALL = st.builds(ToolCall, st.sampled_from(["look", "open"]), st.dictionaries(TEXT, TEXT | st.integers(), max_size=2))
TOOLS = tuple(
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("look", "open")
)
ROLES = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token if m.role == 'assistant' else '' }}{% endfor %}"
)
ASKS = "{% if add_generation_prompt %}<assistant>{% endif %}"
FORGETS = (  # shows what an assistant thought in its last turn only
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}"
    "{{ m.content if loop.last else m.content.split('/')[-1] }}{{ eos_token }}{% else %}{{ m.content }}{% endif %}"
    "{% endfor %}" + ASKS
)
ENDLESS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}" + ASKS
ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}" + ROLES + ASKS
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    """A system prompt or none, and exchanges with or without a call and its result."""
    said = [Message("system", (draw(TEXT),))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        said.append(Message("user", (draw(TEXT),)))
        if draw(st.booleans()):
            calls = draw(st.lists(CALL, min_size=1, max_size=2))
            said.append(Message("assistant", (draw(TEXT),) if draw(st.booleans()) else (), tuple(calls)))
            said.append(Message("tool", (draw(TEXT),)))
        said.append(Message("assistant", (draw(TEXT),), learned=draw(st.booleans())))
    said[-1] = Message("assistant", said[-1].parts)
    return tuple(said)


def example(messages, **more) -> Example:
    return Example(messages=tuple(messages), provenance=Provenance(source="test"), **more)


def chat(*turns: str) -> Example:
    """User and assistant in turn."""
    return example(Message(("user", "assistant")[place % 2], (text,)) for place, text in enumerate(turns))


def tokenizer(template: str | None = None):
    made = byte_tokenizer()
    made.chat_template = template or made.chat_template
    return made


@pytest.mark.parametrize("template", BUILT_IN)
@given(messages=conversations())
def test_the_beginning_of_a_conversation_is_rendered_as_the_beginning(template, messages):
    """In every built-in template the first turns of a conversation are a prefix of all of it, tools and calls too."""
    made = tokenizer()
    whole = prompts.chat(template, made, messages, TOOLS, ask=False)
    for place, message in enumerate(messages, 1):
        if message.role == "assistant":
            assert whole.startswith(prompts.chat(template, made, messages[:place], TOOLS, ask=False))
            assert whole.startswith(prompts.chat(template, made, messages[: place - 1], TOOLS, ask=True))


@pytest.mark.parametrize("template", BUILT_IN)
@given(messages=conversations())
def test_the_loss_falls_on_what_the_assistant_says_and_its_end(template, messages):
    """Labels hold the learned turns of the assistant, calls and end tokens included, and nothing else."""
    made = tokenizer()
    (row,) = Renderer(template, made).rows(example(messages, tools=TOOLS))
    (encoded,) = encode([row], made, "assistant")
    learned = [run.removesuffix("<eos>") for run in decoded(encoded, made)]
    said = [message for message in messages if message.is_target]
    assert len(learned) == len(said)
    for run, message in zip(learned, said, strict=True):
        assert message.text.strip() in run
        assert all(f'"name": {json.dumps(call.name)}' in run for call in message.tool_calls)
        assert len(run) <= len(message.text) + 1 + sum(len(shown(call)) + 1 for call in message.tool_calls)
        assert run.strip()[-1] in (message.text.strip()[-1:], ">")


def shown(call: ToolCall) -> str:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    return f'<tool_call>{{"name": {json.dumps(call.name)}, "arguments": {arguments}}}</tool_call>'


def decoded(encoded, made) -> list[str]:
    """The text of each run of labelled tokens."""
    runs, open_run = [], []
    for label in [*encoded.labels, -100]:
        if label != -100:
            open_run.append(label)
        elif open_run:
            runs.append(made.decode(open_run))
            open_run = []
    return runs


def test_last_and_all_learn_less_and_more():
    """``last`` labels the last turn alone, ``all`` every token, the user's and the headers too."""
    made = tokenizer()
    (row,) = Renderer("chatml", made).rows(chat("hi", "ho", "he", "hu"))
    scored = {kind: decoded(encode([row], made, kind)[0], made) for kind in ("assistant", "last", "all")}
    assert scored["assistant"] == ["ho<eos>", "hu<eos>"]
    assert scored["last"] == ["hu<eos>"]
    assert scored["all"] == [made.decode(encode([row], made, "all")[0].input_ids)]


def test_a_turn_that_is_not_learned_is_only_context():
    """A turn with weight 0 stays in the prompt without a label."""
    made = tokenizer()
    messages = read_all(
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", "weight": 0},
            {"role": "user", "content": "c"},
            {"role": "assistant", "content": "d"},
        ]
    )
    (row,) = Renderer("chatml", made).rows(example(messages))
    assert decoded(encode([row], made, "assistant")[0], made) == ["d<eos>"]
    assert "b<eos>" in row.prompt
    assert [write(message) for message in messages][1]["weight"] == 0


@pytest.mark.parametrize(
    ("template", "own"), [("{instruction}\n{input}\n> ", None), ("chat", FORGETS), ("chat", ENDLESS)]
)
def test_a_template_that_forgets_gives_each_answer_its_own_row(template, own):
    """Where earlier answers are rendered otherwise or without an end, each is a row as it is asked and served."""
    made = tokenizer(own)
    rows = Renderer(template, made).rows(chat("hi", "x/ho", "he", "y/hu"))
    assert [row.completion for row in rows] == ["x/ho", "y/hu"]
    assert [row.example.output for row in rows] == ["x/ho", "y/hu"]
    served = [prompts.ask(template, made, row.example.past) for row in rows]
    assert [row.prompt for row in rows] == served
    assert len({row.example.origin for row in rows} - {""}) == 1
    assert [decoded(each, made) for each in encode(rows, made, "assistant")] == [["x/ho<eos>"], ["y/hu<eos>"]]


def test_a_template_that_refuses_a_conversation_says_why():
    """What the template raises reaches the person, with the rule."""
    said = [Message("user", ("a",)), Message("user", ("b",)), Message("assistant", ("c",))]
    with pytest.raises(ModelError, match="refuses the conversation: roles must alternate"):
        Renderer("chat", tokenizer(ALTERNATES)).rows(example(said))


@pytest.mark.parametrize("template", ["chat", "{instruction}\n{input}\n> "])
@pytest.mark.parametrize("missing", ["tools", "calls"])
def test_tools_that_a_template_does_not_show_are_refused(template, missing):
    """Tools or calls that the model would not see are an error that names the templates that show them."""
    call = Message("assistant", (), (ToolCall("look"),))
    said = [Message("user", ("a",)), call if missing == "calls" else Message("assistant", ("b",))]
    made = example(said, tools=TOOLS if missing == "tools" else ())
    with pytest.raises((ModelError, ValueError), match=r"shows (no|neither) .*: dataset\.template=chatml does"):
        Renderer(template, tokenizer(ROLES + ASKS)).rows(made)


NAMES_ONLY = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ c.function.name }}"
    "{% endfor %}{{ eos_token if m.role == 'assistant' else '' }}{% endfor %}"
)


@pytest.mark.parametrize("own", [ROLES, NAMES_ONLY])
@pytest.mark.parametrize("words", [(), ("I look",)])
@pytest.mark.parametrize("learned", [True, False])
def test_an_earlier_call_that_a_template_does_not_show_is_refused(own, words, learned):
    """Without tools too, no model learns an empty turn, or a call without its arguments, in place of a call."""
    said = [
        Message("user", ("a",)),
        Message("assistant", words, (ToolCall("look", {"at": "the door"}),), learned=learned),
        Message("tool", ("b",)),
        Message("assistant", ("c",)),
    ]
    with pytest.raises(ValueError, match=r"shows no calls of tools, or not their arguments: dataset\.template=chatml"):
        Renderer("chat", tokenizer(own + ASKS)).rows(example(said))


def test_a_conversation_without_anything_to_learn_or_without_end_is_refused():
    """No learned turn, or more turns than can be rendered one by one, is an error with the number."""
    renderer = Renderer("chatml", tokenizer())
    with pytest.raises(ValueError, match="no turn of an assistant is learned"):
        renderer.rows(example([Message("user", ("a",))]))
    with pytest.raises(ValueError, match="10000 turns are more than 1000"):
        renderer.rows(chat(*["a"] * 10_000))
