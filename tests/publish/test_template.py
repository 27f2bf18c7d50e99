"""The chat template that travels with an export."""

from types import SimpleNamespace

import pytest

from loraloop.core.chat_templates import BUILT_IN
from loraloop.publish import template


def tokenizer(first):
    """A tokenizer whose start token is 1, and that begins every text with the tokens ``first``."""

    class Tokenizer:
        bos_token_id = 1

        def __call__(self, text):
            return SimpleNamespace(input_ids=list(first))

    return Tokenizer()


@pytest.mark.parametrize(("first", "start"), [((1,), template.START), ((), ""), ((5,), "")])
def test_a_start_token_is_written_where_the_tokenizer_adds_one(first, start):
    """Programs that render a conversation add no start token, so the template does; elsewhere it adds none."""
    made = template.travelling(SimpleNamespace(template="chatml"), lambda: tokenizer(first))
    assert made == start + template.of_training(SimpleNamespace(template="chatml"))


def test_the_tokenizer_is_not_asked_for_another_template():
    """Where the base's own template or a format string was used, nothing travels, and no base is needed."""
    assert "chat" not in BUILT_IN
    for name in ("chat", "{input}"):
        assert template.travelling(SimpleNamespace(template=name), None) is None
