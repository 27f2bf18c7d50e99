"""The nearest training conversations before what is asked."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from loraloop.core.rendering import Renderer
from loraloop.core.turns import turns
from loraloop.evaluation.evaluation import Evaluation
from loraloop.evaluation.few_shot import with_examples
from loraloop.records import Example, Message, Provenance


def conversation(*said: str, system: str = "", unlearned: str = "", **more) -> Example:
    """A conversation whose turns alternate from the user's."""
    roles = ("user", "assistant")
    messages = [Message(roles[place % 2], (text,), learned=text != unlearned) for place, text in enumerate(said)]
    first = [Message("system", (system,))] if system else []
    return Example(messages=(*first, *messages), provenance=Provenance(source="test"), **more)


def made(template, tokenizer, *said: str, **more):
    """The last row of a conversation."""
    return Renderer(template, tokenizer).rows(conversation(*said, **more))[-1]


def test_the_nearest_conversations_stand_before_the_question(tokenizer):
    """The two that share the most words are earlier turns, the nearest last, under the row's own system."""
    train = [
        made("chatml", tokenizer, "where is the red vault", "in the hall", system="Other."),
        made("chatml", tokenizer, "count these flips", "three"),
        made("chatml", tokenizer, "where is the old vault", "in the cellar"),
    ]
    asked = made("chatml", tokenizer, "where is the old door", "gone", "is the old vault here", "no", system="Own.")
    first, second = turns(asked, tokenizer.eos_token)
    for turn in (first, second):
        (shown,) = with_examples([turn], train, 2, tokenizer)
        assert shown.prompt.endswith(turn.prompt.partition("Own.")[2].partition("\n")[2])
        assert "flips" not in shown.prompt
        assert "Other." not in shown.prompt
        places = [
            shown.prompt.index(text) for text in ("Own.", "red vault", "in the hall", "old vault", "in the cellar")
        ]
        assert places == sorted(places)
        assert (shown.completion, shown.example) == (turn.completion, turn.example)


def test_before_a_format_string_stand_whole_rows(tokenizer):
    """A format string has no turns: the examples are rows with their answers."""
    train = [made("Q: {input}\nA: ", tokenizer, question, answer) for question, answer in (("a b", "1"), ("c d", "2"))]
    asked = made("Q: {input}\nA: ", tokenizer, "a c b", "3")
    (shown,) = with_examples([asked], train, 5, tokenizer)
    assert shown.prompt == "Q: c d\nA: 2\n\nQ: a b\nA: 1\n\nQ: a c b\nA: "


@pytest.mark.parametrize("template", ["chatml", "{input}\n> "])
def test_bad_examples_are_not_shown(tokenizer, template):
    """Neither an answer that is labelled bad, nor a conversation with a turn that no model is to learn, is shown."""
    train = [
        made(template, tokenizer, "where is the vault", "bad", label=False),
        made(
            template, tokenizer, "where is the vault", "failed", "where is the vault now", "there", unlearned="failed"
        ),
        made(template, tokenizer, "what else", "good", label=True),
    ]
    (shown,) = with_examples([made(template, tokenizer, "where is the vault", "x")], train, 3, tokenizer)
    assert "good" in shown.prompt
    assert not re.search("bad|failed", shown.prompt)


def test_one_turn_of_a_conversation_is_shown(tokenizer):
    """Where the turns of a conversation are rows, its nearest one takes one place of the examples, not several."""
    template = "{input}\n> "
    long = Renderer(template, tokenizer).rows(conversation("red vault", "1", "red vault code", "2", "red vault", "3"))
    other = made(template, tokenizer, "red flips", "4")
    (shown,) = with_examples([made(template, tokenizer, "red vault", "x")], [*long, other], 2, tokenizer)
    assert shown.prompt == "red flips\n> 4\n\nred vault\n> 1\n\nred vault\n> "


def test_examples_are_left_out_where_the_model_has_no_room(llama, loaded, tokenizer, caplog):
    """The farthest example goes first, then all of them; what the row asks stays whole, its system's words too."""
    train = [made("chatml", tokenizer, f"vault {name * 30}", name) for name in "abc"]
    asked = made("chatml", tokenizer, "vault", "x", system="Be brief.")
    whole = with_examples([asked], train, 2, tokenizer)[0].prompt
    needed = len(tokenizer(whole)["input_ids"])
    for longest, shown in ((needed, "ba"), (needed - 1, "a"), (len(asked.prompt), "")):
        (row,) = with_examples([asked], train, 2, tokenizer, [longest])
        assert [name for name in "cba" if name * 30 in row.prompt] == list(shown)
        assert "Be brief." in row.prompt
    assert "1 of 1 rows are asked with fewer than 2 examples" in caplog.text
    short = replace(loaded, model=llama(positions=len(asked.prompt) + 40))
    measure = Evaluation(cache=None, max_new_tokens=4, few_shot=2)
    score = measure.score_few_shot(short, [asked], train, lambda example, answer: True)
    assert score.generations[0].prompt == asked.prompt
    assert "without their beginning" not in caplog.text


def test_the_base_is_measured_with_examples_only_where_asked(loaded, rows):
    """few_shot=0 measures nothing, few_shot=1 the same expected answers after longer prompts."""
    right = lambda example, answer: answer == example.output  # noqa: E731
    assert Evaluation(cache=None).score_few_shot(loaded, rows[:3], rows[3:], right) is None
    plain = Evaluation(cache=None, max_new_tokens=4).score_base(loaded, rows[:3], right)
    shown = Evaluation(cache=None, max_new_tokens=4, few_shot=1).score_few_shot(loaded, rows[:3], rows[3:], right)
    assert [each.expected for each in shown.generations] == [each.expected for each in plain.generations]
    for one, other in zip(plain.generations, shown.generations, strict=True):
        assert other.prompt.endswith(one.prompt)
        assert len(other.prompt) > len(one.prompt)
    table = Evaluation(samples=3).table(plain, {"few_shot": shown, "none": None})
    answers = {each.expected: each.answer for each in shown.generations}
    assert all(cells["few_shot"] == answers[cells["expected"]] and "none" not in cells for cells in table)
