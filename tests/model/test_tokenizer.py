"""The byte-level tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloop.model import identity
from loraloop.model.tokenizer import SPECIAL, byte_tokenizer

SETTINGS = {"padding": True, "truncation": True, "max_length": 3}
plain = st.text().filter(lambda text: not any(token in text for token in SPECIAL.values()))


@given(text=plain)
def test_any_text_is_its_bytes_and_comes_back(bundled, text):
    """Token ids are the start token and the UTF-8 bytes of the text, and decode to the same text."""
    ids = bundled.tokenizer(text)["input_ids"]
    assert ids == [256, *text.encode()]
    assert bundled.tokenizer.decode(ids, skip_special_tokens=True) == text


def test_special_tokens(bundled):
    """Start, end and padding are three tokens after the bytes; the end is one, since training appends its text."""
    tokenizer = bundled.tokenizer
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (256, 257, 258)
    assert tokenizer("A<eos>")["input_ids"] == [256, 65, 257]
    assert len(tokenizer) == bundled.model.config.vocab_size == 259


def test_the_chat_template_ends_answers(bundled):
    """A conversation is its lines, each answer closed by the end token, with room for the next one."""
    turns = [{"role": "user", "content": "tally"}, {"role": "assistant", "content": "1/2"}]
    render = bundled.tokenizer.apply_chat_template
    assert render(turns, tokenize=False) == "<bos>tally\n1/2\n<eos>"
    assert render(turns[:1], tokenize=False, add_generation_prompt=True) == "<bos>tally\n> "


def test_the_shipped_files_are_what_the_code_builds(bundled):
    """The tokenizer in the package is the one that :func:`byte_tokenizer` builds."""
    built = byte_tokenizer()
    assert identity.tokenizer(built) == identity.tokenizer(bundled.tokenizer)
    assert built.chat_template == bundled.tokenizer.chat_template


def test_using_a_tokenizer_does_not_change_its_identity(tmp_path):
    """Padding and truncating a batch, and saving after it, leave the tokenizer's hash as it was."""
    from transformers import AutoTokenizer

    tokenizer = byte_tokenizer()
    before = identity.tokenizer(tokenizer)
    tokenizer(["a", "bcde"], **SETTINGS)
    tokenizer.save_pretrained(tmp_path)
    assert identity.tokenizer(tokenizer) == identity.tokenizer(AutoTokenizer.from_pretrained(tmp_path)) == before


@pytest.mark.parametrize("change", [{"eos_token": "<pad>"}, {"additional_special_tokens": ["<tool>"]}])
def test_another_special_token_is_another_tokenizer(change):
    """Special tokens are part of the tokenizer's identity."""
    tokenizer = byte_tokenizer()
    before = identity.tokenizer(tokenizer)
    tokenizer.add_special_tokens(change)
    assert identity.tokenizer(tokenizer) != before
