"""Answers of the engine that are held to a grammar."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from llguidance import LLParserLimits

from loraloop.core.tool_calls import read
from loraloop.errors import GrammarError
from loraloop.model.tokenizer import byte_tokenizer
from loraloop.records import GenerationRequest, Grammar
from loraloop.serve import grammar
from loraloop.serve.engine.constraint import COMPILED, Constraints
from loraloop.serve.engine.generation import Generation
from loraloop.serve.local import LocalBackend

WIDTH, END = 272, 257
WHERE = {
    "type": "object",
    "properties": {"at": {"$ref": "#/$defs/at"}, "why": {"enum": ["é", "no"]}},
    "required": ["at", "why"],
    "additionalProperties": False,
    "$defs": {"at": {"type": "integer", "minimum": 0, "maximum": 99}},
}
LIST = {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4}
EMPTY = {"type": "object", "properties": {}, "additionalProperties": False}
CALLS = (("look", WHERE), ("wait", EMPTY))
WORDS = st.text(st.characters(codec="utf8", exclude_categories=["C"]), max_size=5)
LEAVES = st.one_of(
    st.sampled_from([{"type": kind} for kind in ("boolean", "null", "integer", "number", "string")]),
    st.builds(lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more}, st.integers(-99, 99),
              st.integers(0, 300)),
    st.builds(lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more}, st.integers(0, 3),
              st.integers(0, 4)),
    st.sampled_from([{"type": "string", "pattern": "^[a-c]{1,3}-[0-9]+$"}, {"type": "string", "format": "date"}]),
    st.lists(WORDS | st.integers(-9, 9) | st.none(), min_size=1, max_size=3).map(lambda some: {"enum": some}),
)  # fmt: skip
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda items, low: {"type": "array", "items": items, "minItems": low, "maxItems": low + 2}, inner,
                  st.integers(0, 2)),
        st.builds(
            lambda of, free: {"type": "object", "properties": of, "required": [*of][:1], "additionalProperties": free},
            st.dictionaries(WORDS, inner, max_size=3), st.booleans()),
        st.lists(inner, min_size=1, max_size=2).map(lambda some: {"anyOf": some}),
    ),
    max_leaves=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def constraints():
    """Those of the bundled base's tokenizer."""
    return Constraints(byte_tokenizer(), {END}, threading.Lock())


@pytest.fixture(scope="module")
def engine(base, versions):
    """An engine with an adapter."""
    engine = LocalBackend().attach(base)
    engine.start()
    engine.load("ocr@1", versions["ocr@1"])
    yield engine
    engine.close()


def ask(seed: int = 0, **changes) -> GenerationRequest:
    return GenerationRequest(**{"model": "base", "prompt": "x\n> ", "max_tokens": 200, "seed": seed} | changes)


def walked(constraint, text: str) -> str:
    """What of a text the masks allow, byte by byte; all of it with ``!`` where it may also end there."""
    for at, byte in enumerate(text.encode()):
        if not constraint.allowed(WIDTH)[byte]:
            return text.encode()[:at].decode(errors="replace")
        constraint.take(byte)
    return text + "!" * bool(constraint.allowed(WIDTH)[END])


def wandered(constraint, seed: int) -> str | None:
    """A random text under a constraint; what ends a value is preferred. ``None`` where it has no end in time."""
    rng, text = np.random.default_rng(seed), b""
    for _ in range(500):
        allowed = np.flatnonzero(constraint.allowed(WIDTH).numpy())
        ends = [token for token in allowed if token == END or bytes([token]) in (b'"', b"}", b"]")]
        token = int(rng.choice(ends if ends and rng.random() < 0.3 else allowed))
        if token == END:
            return text.decode()
        constraint.take(token)
        text += bytes([token])
        if constraint.complete:
            return text.decode()
    return None


@pytest.mark.parametrize(
    ("wanted", "text", "said"),
    [
        (Grammar(schema=WHERE), '{"at": 7, "why": "é"}', None),
        (Grammar(schema=WHERE), '{\n  "at":7,\n  "why":"no"\n}', None),
        (Grammar(schema=WHERE), '{"at": 123}', '{"at": 12'),
        (Grammar(schema=WHERE), '{"why": "no"}', '{"'),
        (Grammar(schema=WHERE), "7", ""),
        (Grammar(schema=LIST), "[true]", "[true"),
        (Grammar(tools=CALLS), '<tool_call>{"name": "look", "arguments": {"at": 1, "why": "no"}}</tool_call>', None),
        (Grammar(tools=CALLS), '<tool_call>\n{"name": "wait", "arguments": {}}\n</tool_call>', None),
        (Grammar(tools=CALLS), '<tool_call>{"name": "sing", ', '<tool_call>{"name": "'),
        (Grammar(tools=CALLS), '{"at": 1', ""),
        (Grammar(tools=CALLS, schema=WHERE), '{"at": 7, "why": "é"}', None),
        (Grammar(tools=CALLS, schema=WHERE), '<tool_call>{"name": "wait", "arguments": {}}</tool_call>', None),
        (Grammar(tools=CALLS, free=True), "a < b, {or} <tool_c", None),
        (Grammar(tools=CALLS, free=True), 'so:\n<tool_call>{"name": "wait", "arguments": {}}</tool_call> well', None),
        (Grammar(tools=CALLS, free=True), 'so <tool_call>{"name": "sing"', 'so <tool_call>{"name": "'),
        (Grammar(tools=CALLS, free=True), "so <tool_call> is", "so <tool_call>"),
    ],
)
def test_a_mask_allows_what_the_grammar_says(constraints, wanted, text, said):
    """Token by token, a text under the grammar is allowed to its end, and another one up to where it departs."""
    assert walked(constraints.make(wanted), text) == (f"{text}!" if said is None else said)


def test_several_calls_where_they_are_allowed(constraints):
    """A second call may follow, in the next line or at once, unless one is wanted: then the first ends the answer."""
    call = '<tool_call>{"name": "wait", "arguments": {}}</tool_call>'
    for both in (f"{call}\n{call}", call + call):
        assert walked(constraints.make(Grammar(tools=CALLS)), both) == f"{both}!"
        assert walked(constraints.make(Grammar(tools=CALLS, free=True)), both) == f"{both}!"
    for free in (False, True):
        one = constraints.make(Grammar(tools=CALLS, parallel=False, free=free))
        assert walked(one, call) == f"{call}!"
        assert one.complete


@settings(max_examples=60, deadline=None)
@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
def test_whatever_is_generated_obeys_its_schema(constraints, schema, seed):
    """A random text of allowed tokens is JSON that a validator finds valid, whatever the schema."""
    wanted = Grammar(schema=schema)
    grammar.check(wanted)
    text = wandered(constraints.make(wanted), seed)
    assume(text is not None)
    jsonschema.validate(json.loads(text), schema, format_checker=jsonschema.FormatChecker())


def test_answers_of_a_mixed_batch(engine, answer):
    """Free and held answers of base and adapter are in one batch what each is alone, and obey their grammars."""
    held = (Grammar(schema=WHERE), Grammar(schema=LIST), Grammar(tools=CALLS, parallel=False))
    models = ("ocr@1", "base", "ocr@1")
    asks = [ask(max_tokens=40), ask(model="ocr@1", max_tokens=40)]
    asks += [ask(model=model, grammar=each, temperature=0.5) for model, each in zip(models, held, strict=True)]
    mixed = answer(engine, asks)
    alone = answer(engine, asks, together=False)
    assert [(each.text, each.finish) for each in mixed] == [(each.text, each.finish) for each in alone]
    where, flags, called = mixed[2:]
    jsonschema.validate(json.loads(where.text), WHERE)
    jsonschema.validate(json.loads(flags.text), LIST)
    (call,) = read(called.text)
    jsonschema.validate(dict(call.arguments), dict(CALLS)[call.name])
    assert {where.finish, flags.finish, called.finish} == {"stop"}


def test_an_answer_that_is_cut(engine, answer):
    """At ``max_tokens`` and at a stop text an answer ends as it is, and its log-probabilities are the model's own."""
    wanted = Grammar(schema=WHERE)
    cut, stopped, whole, free = answer(engine, [
        ask(grammar=wanted, max_tokens=8), ask(grammar=wanted, stop=("why",)), ask(grammar=wanted, logprobs=0),
        ask(max_tokens=2, logprobs=WIDTH),
    ])  # fmt: skip
    assert (len(cut.text), cut.finish) == (8, "length")
    assert whole.text.startswith(cut.text)
    assert (stopped.text, stopped.finish) == (whole.text.partition("why")[0], "stop")
    assert whole.logprobs[0][:2] == ("{", pytest.approx(free.logprobs[0][2]["{"], abs=1e-4))


def test_a_grammar_that_takes_too_much(engine, answer, monkeypatch):
    """A grammar above the limits is an error of its own request, before or within the answer; the others go on."""
    free = answer(engine, [ask()])
    for limits in ({"max_grammar_size": 2}, {"step_max_items": 3}):
        monkeypatch.setattr(grammar, "limits", lambda limits=limits: LLParserLimits(**limits))
        with pytest.raises(GrammarError, match="response_format: the grammar takes too much work") as caught:
            answer(engine, [ask(), ask(grammar=Grammar(schema=WHERE | {"title": f"{limits}"}))])
        assert caught.value.param == "response_format"
    assert answer(engine, [ask()]) == free
    assert engine.stats()["active"] == 0


def test_a_grammar_is_compiled_once(constraints, monkeypatch):
    """Answers under one grammar share its compiled form, and none moves another; few grammars are kept."""
    made: list[str] = []
    compiled = Constraints._compile
    monkeypatch.setattr(
        Constraints, "_compile", lambda own, text, wanted: made.append(text) or compiled(own, text, wanted)
    )
    wanted = Grammar(schema={"enum": ["once", "only"]})
    first, second = constraints.make(wanted), constraints.make(wanted)
    assert walked(first, '"once"') == '"once"!'
    assert walked(second, '"only"') == walked(constraints.make(wanted), '"only"') == '"only"!'
    assert len(made) == 1
    for number in range(COMPILED):
        constraints.make(Grammar(schema={"const": number}))
    constraints.make(wanted)
    assert len(made) == 1 + COMPILED + 1


def test_an_end_after_a_mask_failed(constraints, monkeypatch):
    """Where the next tokens cannot be computed, an end token that is drawn then makes an error, no finished answer."""

    async def drawn(constraint):
        generation = Generation(ask(), [1], 9, None, byte_tokenizer(), time.monotonic() + 60, constraint)
        generation.take(ord("["), torch.zeros(WIDTH), frozenset({END}))
        assert constraint.allowed(WIDTH).all()
        return generation.take(END, torch.zeros(WIDTH), frozenset({END}))

    wanted = Grammar(schema={"type": "array", "items": {"type": "string", "pattern": "^(foo|bar[0-9]{4,9}){1,9}$"}})
    with monkeypatch.context() as small:
        small.setattr(grammar, "limits", lambda: LLParserLimits(max_lexer_states=10, verbose_errors=False))
        assert isinstance(asyncio.run(drawn(constraints.make(wanted))), GrammarError)
    assert walked(constraints.make(wanted), '["foo"]') == '["foo"]!'  # what failed is compiled anew


def test_a_tokenizer_whose_tokens_are_not_known(base):
    """A base without a fast tokenizer answers freely, and says why it can be held to nothing."""
    with pytest.raises(GrammarError, match="tokenizers library"):
        Constraints(object(), {END}, threading.Lock()).make(Grammar(schema=WHERE))
