"""Any rows at the reader."""

from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.records import Provenance
from loraloop.source import columns
from loraloop.source.columns import Columns

NAMES = [
    "messages", "conversations", "system", "tools", "chosen", "rejected", "prompt", "completion", "label", "text",
    "instruction", "input", "output", "history", "kto_tag", "role", "from", "content", "value", "tool_calls",
    "function", "name", "arguments", "id", "tool_call_id", "weight",
]  # fmt: skip
WORDS = ["user", "assistant", "human", "gpt", "tool", "observation", "function_call", "", "a", "{}", "[{", "\ud800"]
LEAF = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(WORDS), st.text(max_size=5))
VALUE = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(WORDS[:8]), "content": st.sampled_from(WORDS) | VALUE},
    optional={"tool_calls": VALUE, "tool_call_id": VALUE, "weight": st.sampled_from([0, 1, 2])},
)
ROW = st.dictionaries(st.sampled_from(NAMES), VALUE | st.lists(TURN, max_size=4), max_size=5)


@settings(max_examples=150, deadline=None)
@given(st.lists(ROW, max_size=4))
def test_every_row_is_an_example_or_set_aside(rows):
    """Whatever JSON a row holds, it becomes one example or one quarantined item; nothing is lost and nothing raised."""
    good = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    records = ((str(index), row, Provenance(source="files")) for index, row in enumerate([good, *rows]))
    collection, tally = columns.read("rows", records, Columns(), "", [])
    assert len(collection.examples) + len(collection.quarantined) == len(rows) + 1
    assert tally.counts["conversations"] <= sum(tally.rows.values()) <= len(rows) + 1
