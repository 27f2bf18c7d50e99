"""Rows of conversations, recognised by their columns and read as examples."""

import json

import pytest

from loraloop.core import messages
from loraloop.errors import DataError
from loraloop.records import Provenance
from loraloop.source import columns
from loraloop.source.columns import Columns

TOOL = {"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {"at": {}}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "panel"}'}}


def read(*rows, instruction="", **mapped):
    records = ((f"row {index}", row, Provenance(source="files")) for index, row in enumerate(rows))
    return columns.read("rows", records, Columns(**mapped), instruction, [])


def one(row, **options):
    collection, _ = read(row, **options)
    (example,) = collection.examples
    return example


def turns(example):
    return [(message.role, message.text or [call.name for call in message.tool_calls]) for message in example.messages]


ASKED = {"role": "user", "content": "q"}
SAID = {"role": "assistant", "content": "a"}
WORSE = {"role": "assistant", "content": "w"}
TALK = [("user", "q"), ("assistant", "a")]

FORMS = {
    "openai": ({"messages": [ASKED, SAID]}, TALK),
    "openai as text": ({"messages": json.dumps([ASKED, SAID])}, TALK),
    "sharegpt": ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, TALK),
    "sharegpt with a system": (
        {"system": "s", "conversations": [{"role": "user", "value": "q"}, {"from": "assistant", "content": "a"}]},
        [("system", "s"), *TALK],
    ),
    "sharegpt with calls": (
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": json.dumps({"name": "look", "arguments": {"at": "panel"}})},
                {"from": "observation", "value": "lit"},
                {"from": "gpt", "value": "a"},
            ],
            "tools": json.dumps([TOOL]),
        },
        [("user", "q"), ("assistant", ["look"]), ("tool", "lit"), ("assistant", "a")],
    ),
    "alpaca with history": (
        {"instruction": "q", "input": "", "output": "a", "system": "s", "history": [["q0", "a0"]]},
        [("system", "s"), ("user", "q0"), ("assistant", "a0"), *TALK],
    ),
    "prompt and completion": ({"prompt": "q", "completion": "a"}, TALK),
    "prompt and completion as messages": ({"prompt": [ASKED], "completion": [SAID]}, TALK),
    "plain text": ({"text": "a"}, [("assistant", "a")]),
    "a mapped list": ({"talk": {"turns": [ASKED, SAID]}}, TALK),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_recognised_by_its_columns(name):
    """Each form gives the turns that its row says, without a mapping but where the list has a name of its own."""
    row, said = FORMS[name]
    example = one(row, messages="talk.turns" if name == "a mapped list" else None)
    assert turns(example) == said
    assert example.raw == (name == "plain text")


PAIRS = {
    "texts": ({"prompt": "q", "chosen": "a", "rejected": "w"}, TALK),
    "texts of an Alpaca row": ({"instruction": "q", "input": "", "chosen": "a", "rejected": "w"}, TALK),
    "messages": ({"conversations": [ASKED], "chosen": SAID, "rejected": WORSE}, TALK),
    "whole conversations": ({"prompt": "q", "chosen": [ASKED, SAID], "rejected": [ASKED, WORSE]}, TALK),
    "transcripts": ({"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: w"}, TALK),
    "texts that begin alike": (
        {"chosen": "q a", "rejected": "q w"},
        [("user", "q "), ("assistant", "a")],
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_has_one_past_and_a_worse_last_turn(name):
    """Chosen and rejected answers get one past, from columns of their own or from what both begin with."""
    row, said = PAIRS[name]
    example = one(row)
    assert (turns(example), example.rejected.text) == (said, "w")
    assert example.raw == (name == "texts that begin alike")


@pytest.mark.parametrize(("label", "good"), [(True, True), ("false", False), (0, False)])
@pytest.mark.parametrize("row", [{"messages": [ASKED, SAID]}, {"prompt": "q", "completion": "a"}])
def test_a_label_says_whether_the_last_turn_is_good(row, label, good):
    """KTO's label is read beside messages and beside prompt and completion, as a boolean, a text or a number."""
    assert one(row | {"label": label}).label is good


@pytest.mark.parametrize("labels", [(0, 1, 2), ("1", "0", "-1"), ("spam", "ham", True), (0.0, 1.0, 2.0)])
def test_a_label_that_judges_nothing_is_any_other_column(labels, caplog):
    """Classes by number, or mostly other words than true and false, label no row, and a warning says so."""
    collection, tally = read(*({"prompt": "q", "completion": "a", "label": label} for label in labels))
    assert [example.label for example in collection.examples] == [None] * 3
    assert (len(collection.quarantined), tally.counts["conversations"]) == (0, 3)
    assert "rows: label is no judgement, such as" in caplog.text
    assert "by label" not in tally.line()


TURN = {"instruction": "i", "input": "q", "output": "a"}


@pytest.mark.parametrize("row", [TURN, {"input": "q", "output": "a"}, TURN | {"system": "s"}])
@pytest.mark.parametrize("said", [(True, False), ("true", "false"), ("good", "bad"), (1, 0), ("1", "0")])
def test_a_label_beside_a_question_and_its_answer_judges_the_answer(row, said):
    """A table of questions and answers with a column label is KTO's form too, and the line counts good and bad ones."""
    collection, tally = read(*(row | {"label": label} for label in said))
    assert [(each.input, each.output, each.label) for each in collection.examples] == [
        (one(row).input, "a", True),
        (one(row).input, "a", False),
    ]
    assert tally.line().endswith("1 good and 1 bad answers by label")


def test_a_file_of_labelled_answers_says_how_many_are_bad(caplog):
    """Reading a plain table logs how many of its answers the column label calls bad."""
    caplog.set_level("INFO")
    records = ((f"row {at}", TURN | {"label": at > 0}, Provenance(source="files")) for at in range(3))
    columns.collect("my.csv", records, Columns(), "", [])
    assert "my.csv: recognised 2 good and 1 bad answers by label" in caplog.text


@pytest.mark.parametrize("label", ["billing", 2, "1.5"])
def test_a_class_beside_a_question_and_its_answer_judges_nothing(label, caplog):
    """A label that is a class leaves the answers of a plain table as they are, and a warning says so."""
    collection, tally = read(TURN | {"label": label}, TURN | {"label": label, "output": "b"})
    assert [(each.output, each.label, each.is_one_turn) for each in collection.examples] == [
        ("a", None, True),
        ("b", None, True),
    ]
    assert "rows: label is no judgement, such as" in caplog.text
    assert tally.line() == ""
    assert not any(tally.counts.values())


def test_one_odd_label_of_a_table_is_set_aside():
    """A single label that is neither true nor false sets its row aside and leaves the others labelled."""
    quarantined = []
    records = ((said, TURN | {"label": said}, Provenance(source="files")) for said in ("true", "flase", "false"))
    collection, tally = columns.read("rows", records, Columns(), "", quarantined)
    assert [each.label for each in collection.examples] == [True, False]
    assert [each.reason for each in quarantined] == ["label 'flase' is neither true nor false"]
    assert not tally.counts["conversations"]


@pytest.mark.parametrize(
    ("row", "mapped", "label"),
    [
        ({"q": "x", "a": "y", "label": False}, {"input": "q", "output": "a"}, False),
        ({"q": "x", "a": "y", "label": 0}, {"input": "q", "output": "a"}, None),
        ({"q": "x", "label": "good"}, {"input": "q", "output": "label"}, None),
        (TURN | {"label": False}, {"task": "label"}, None),
        ({"prompt": "x", "completion": "y", "label": False}, {"task": "label"}, None),
        (TURN | {"label": False, "rejected": "b"}, {}, None),
    ],
)
def test_a_label_judges_only_where_it_means_nothing_else(row, mapped, label):
    """Beside mapped columns 0 and 1 number classes; a label that fills a field, or beside a pair, judges nothing."""
    assert one(row, **mapped).label is label


JSON_ANSWERS = ('[{"name": "Bob", "age": 3}]', '{"role": "admin"}', '[{"from": "2020", "to": "2021"}]', "[{", "[1, 2]")


@pytest.mark.parametrize("answer", JSON_ANSWERS)
def test_an_answer_that_is_json_is_an_answer(answer):
    """JSON beside a prompt, as text or as values, is what is learned, unless it is a list of messages."""
    assert one({"prompt": answer, "completion": answer}).output == answer
    pair = one({"prompt": "q", "chosen": answer, "rejected": "[]"})
    assert (pair.output, pair.rejected.text) == (answer, "[]")
    if answer != "[{":
        value = json.loads(answer)
        assert json.loads(one({"prompt": "q", "completion": value}).output) == value
    assert turns(one({"prompt": json.dumps([ASKED]), "completion": json.dumps([SAID])})) == TALK


@pytest.mark.parametrize(
    "others",
    [
        {"conversation": "chat-17"},
        {"conversations": 5, "label": "spam"},
        {"messages": "[3, 4]"},
        {"history": "none of note"},
    ],
)
def test_a_plain_table_may_have_columns_of_any_name(others):
    """A question and its answer are read as such beside columns that are named like conversations and hold none."""
    row = {"input": "q", "output": "a", "instruction": "i"} | others
    collection, tally = read(row)
    assert [(each.instruction, each.input, each.output, each.label) for each in collection.examples] == [
        ("i", "q", "a", None)
    ]
    assert not tally.rows
    assert turns(one({"prompt": "q", "completion": "a"} | others | {"label": True})) == TALK
    assert turns(one(row | {"messages": [ASKED, SAID]})) == TALK


def test_a_history_stands_before_the_question_of_a_pair():
    """The turns of a history precede the prompt, after what the system says, and only once."""
    before = [["q0", "a0"]]
    long = [("system", "s"), ("user", "q0"), ("assistant", "a0"), *TALK]
    answers = {"chosen": "a", "rejected": "w", "history": before, "system": "s"}
    assert turns(one({"instruction": "q"} | answers)) == long
    assert turns(one({"prompt": [{"role": "system", "content": "s"}, ASKED]} | answers)) == long
    said = [{"role": "user", "content": "q0"}, {"role": "assistant", "content": "a0"}, ASKED]
    assert turns(one(answers | {"chosen": [*said, SAID], "rejected": [*said, WORSE]})) == long


@pytest.mark.parametrize(
    ("value", "raw"), [(True, True), ("true", True), ("false", False), (None, False), ("x", False)]
)
def test_a_text_may_say_that_a_conversation_is_raw(value, raw):
    """A CSV, whose cells are all texts, says of a conversation that it is raw as JSON does."""
    assert one({"messages": [ASKED, SAID], "raw": value}).raw is raw


def test_tools_get_the_form_of_openai():
    """Bare schemas, wrapped ones, the column of functions and JSON text all become tools of one form."""
    wrapped = {"type": "function", "function": TOOL}
    for held in ({"tools": [TOOL]}, {"tools": [wrapped]}, {"functions": [TOOL]}, {"tools": json.dumps(TOOL)}):
        assert one({"messages": [ASKED, SAID]} | held).tools == (wrapped,)


def test_what_was_recognised_is_told_in_one_line():
    """The line names each form with its rows, the conversations, the learned turns and the repairs."""
    rows = [{"messages": [ASKED, ASKED, SAID, ASKED]}, {"text": "x"}, {"messages": [ASKED]}]
    collection, tally = read(*rows)
    assert tally.line() == (
        "OpenAI messages in 2 rows, plain text in 1 rows: 2 conversations, 2 learned turns; 1 turns of the user in a "
        "row were merged, 1 last turns of the user, which no answer follows, were left out"
    )
    assert [(one.item, one.reason) for one in collection.quarantined] == [("row 2", "no turn of the assistant")]
    _, judged = read(*({"messages": [ASKED, SAID], "label": label} for label in (True, False, True)))
    assert judged.line().endswith("3 learned turns; 2 good and 1 bad answers by label")


def test_a_mapping_wins_over_what_is_recognised():
    """Rows whose question and answer are mapped are read so, whatever other columns they have."""
    row = {"messages": [ASKED, SAID], "frage": "f", "antwort": "g"}
    assert turns(one(row, input="frage", output="antwort")) == [("user", "f"), ("assistant", "g")]


def test_texts_with_a_class_are_no_plain_texts():
    """A text beside a column that may be its answer is not learned as a plain text: the answer has to be mapped."""
    with pytest.raises(DataError, match=r"no column 'output'.*it has text, category"):
        read({"text": "q", "category": "c"})


def test_a_conversation_in_a_column_of_another_name_is_named():
    """Where no column is mapped, one that holds conversations is the way out, and not a name that is spelt alike."""
    with pytest.raises(DataError, match=r"the column 'traj' holds conversations: set source.columns.messages=traj$"):
        read({"task_id": 0, "outlet": "x", "traj": [ASKED, SAID]})


def test_an_instruction_of_the_source_is_the_first_word():
    """A lone question gets it as its first part; a longer conversation gets it as the system's words."""
    assert one({"prompt": "q", "completion": "a"}, instruction="I").instruction == "I"
    long = one({"messages": [ASKED, SAID, ASKED, SAID]}, instruction="I")
    assert turns(long)[0] == ("system", "I")


REFUSED = {
    "a role": ({"messages": [{"role": "wizard", "content": "q"}, SAID]}, "message 1: unknown role 'wizard'"),
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, SAID]},
        "message 1: a part of the type 'image_url' is no text",
    ),
    "images": ({"messages": [ASKED, SAID], "images": ["a.png"]}, "images belong to the conversation"),
    "tools": ({"messages": [ASKED, SAID], "tools": [{"name": "x", "parameters": [1]}]}, "tool 1 (x): parameters is no"),
    "tools as text": ({"messages": [ASKED, SAID], "tools": "look"}, "tools is no JSON"),
    "two lists": ({"messages": [ASKED, SAID], "conversations": [ASKED, SAID]}, "messages and conversations both"),
    "a surrogate": ({"messages": [{"role": "user", "content": "\ud800"}, SAID]}, "half of a surrogate pair"),
    "a surrogate in one turn": ({"input": "\ud800", "output": "x"}, "half of a surrogate pair"),
    "many turns": ({"messages": [ASKED, SAID] * 5_000}, "10,000 messages, more than 1,000"),
    "a long turn": ({"messages": [ASKED, {"role": "assistant", "content": "x" * 2**20}]}, "1,048,576 characters"),
    "a long text": ({"text": "x" * 2**20}, "1,048,576 characters"),
    "a label": ({"messages": [ASKED, SAID], "label": "flase"}, "label 'flase' is neither true nor false"),
    "a weight": (
        {"messages": [ASKED, SAID | {"weight": 0.5}]},
        "message 2: weight 0.5: a turn is learned (1) or not (0)",
    ),
    "a tag": ({"instruction": "q", "output": "a", "kto_tag": "spam"}, "kto_tag 'spam' is neither true nor false"),
    "a conversation": ({"conversation": "chat-17", "id": 3}, "the list of messages is no JSON"),
    "equal answers": ({"prompt": "q", "chosen": "a", "rejected": "a"}, "chosen and rejected are equal"),
    "no prompt": ({"chosen": "a", "rejected": "w"}, "have no prompt"),
    "a history": ({"instruction": "q", "output": "a", "history": [["q0"]]}, "turn 1 of the history"),
    "a row of no form": ({"other": 1}, "the output is empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_set_aside_with_its_reason(name):
    """A row that holds no conversation to learn is quarantined with the reason, and the row beside it is kept."""
    row, reason = REFUSED[name]
    collection, tally = read({"messages": [ASKED, SAID], "label": True}, row)
    assert len(collection.examples) == 1
    assert tally.counts["learned"] == 1
    (aside,) = collection.quarantined
    assert aside.item == "row 1"
    assert reason in aside.reason


def test_what_is_written_in_openais_form_is_read_back():
    """A conversation with a call, its result and a turn that is not learned is equal after writing and reading."""
    example = one(
        {
            "messages": [
                ASKED,
                {"role": "assistant", "content": "a0", "weight": 0},
                ASKED,
                {"role": "assistant", "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": "lit"},
                SAID,
            ]
        }
    )
    assert one({"messages": [messages.write(each) for each in example.messages]}) == example
