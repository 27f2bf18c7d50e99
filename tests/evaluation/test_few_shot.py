"""The nearest training conversations before what is asked."""

from __future__ import annotations

from loraloop.core.rendering import Renderer
from loraloop.core.turns import turns
from loraloop.evaluation.evaluation import Evaluation
from loraloop.evaluation.few_shot import with_examples
from loraloop.records import Example, Message, Provenance


def made(template, tokenizer, *said: str, system: str = ""):
    """A row of a conversation whose turns alternate from the user's."""
    roles = ("user", "assistant")
    messages = [Message(roles[place % 2], (text,)) for place, text in enumerate(said)]
    first = [Message("system", (system,))] if system else []
    example = Example(messages=(*first, *messages), provenance=Provenance(source="test"))
    return Renderer(template, tokenizer).rows(example)[-1]


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
