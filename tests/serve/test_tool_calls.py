"""Tool calls in the text of a stream."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loraloop.serve.tool_calls import OPENS, Held

TEXT = st.text(st.characters(codec="utf8", exclude_characters="<>"), max_size=12)


@given(pieces=st.lists(TEXT | st.sampled_from(["<", "<tool", "_call>", OPENS, "</tool_call>"]), max_size=8))
def test_a_stream_shows_nothing_of_a_call(pieces):
    """Whatever the pieces, what was shown and what is held are the text, and nothing shown begins a call."""
    held = Held()
    shown = "".join(held.take(piece) for piece in pieces)
    assert shown + held.text == "".join(pieces)
    assert OPENS not in shown
    assert not held.text or OPENS.startswith(held.text) or held.text.startswith(OPENS)
