"""Messages of other forms."""

from collections import Counter

import pytest

from loraloop.source.forms import turns

BARE = {"role": "assistant", "tool_calls": [{"name": "look", "arguments": {"at": 1}}]}
OLD = {"role": "assistant", "function_call": {"name": "look", "arguments": '{"at": 1}'}}
SHAREGPT = {"from": "function_call", "value": '[{"name": "look", "arguments": {"at": 1}}]'}


@pytest.mark.parametrize("message", [BARE, OLD, SHAREGPT])
def test_calls_are_read_however_they_are_wrapped(message):
    """A bare call, OpenAI's earlier one and ShareGPT's are the same call, and each may say that it is not learned."""
    (read, unlearned) = turns.read([message, message | {"weight": 0}], Counter())
    assert [(call.name, call.arguments) for call in read.tool_calls] == [("look", {"at": 1})]
    assert (read.learned, unlearned.learned) == (True, False)


def test_arguments_in_pythons_notation_are_read_and_counted():
    """Arguments that are a Python literal of an object are read and counted; other texts are refused."""
    repaired: Counter[str] = Counter()
    call = {"name": "look", "arguments": "{'at': True}"}
    (read,) = turns.read([{"role": "assistant", "tool_calls": [call]}], repaired)
    assert (read.tool_calls[0].arguments, sum(repaired.values())) == ({"at": True}, 1)
    with pytest.raises(ValueError, match="message 1: the arguments of look are not JSON"):
        turns.read([{"role": "assistant", "tool_calls": [{"name": "look", "arguments": "{at: }"}]}], repaired)


def test_a_result_that_is_an_object_becomes_its_json():
    """What a tool gives back as an object is written as JSON text."""
    (read,) = turns.read([{"from": "observation", "value": {"at": 1}}], Counter())
    assert (read.role, read.text) == ("tool", '{"at":1}')
