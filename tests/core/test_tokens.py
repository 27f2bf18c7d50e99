"""Prompt and completion become the token ids that they are trained on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from loraloop.core.tokens import IGNORED, encode_prompt, encode_rows
from loraloop.errors import DataError
from loraloop.model.tokenizer import byte_tokenizer


def merging_tokenizer():
    """A BPE tokenizer without a start token, which merges a trailing blank of the prompt with an ``a``."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {character: i for i, character in enumerate("abcde> \n:")}
    vocabulary |= {" a": 9, "</s>": 10, "<pad>": 11, "<unk>": 12}
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    model = models.BPE(vocab=vocabulary, merges=[(" ", "a")], unk_token=special["unk_token"])
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


TEXTS = [("abc\n> ", "abc"), ("b: ", "bad"), ("", "cab"), ("ab", ""), ("é\n> ", "a\nb</s>"), ("x> ", "a<eos>")]


MERGED = [(prompt, text) for prompt, text in TEXTS if prompt.endswith(" ") and text.startswith("a")]
"""Texts in which a blank and an ``a`` merge over the boundary."""


def prepared_by_trl(tokenizer, texts):
    """Token ids and labels as TRL's SFTTrainer prepares the texts."""
    from datasets import Dataset
    from trl.trainer.sft_trainer import SFTTrainer

    state = SimpleNamespace(_tokenizer=tokenizer, completion_only_loss=True, chat_template=None)
    args = SimpleNamespace(
        dataset_num_proc=None,
        dataset_text_field="text",
        assistant_only_loss=False,
        max_length=None,
        truncation_mode="keep_start",
        shuffle_dataset=False,
    )
    data = Dataset.from_list([{"prompt": prompt, "completion": completion} for prompt, completion in texts])
    made = SFTTrainer._prepare_dataset(state, data, tokenizer, args, False, None, "train")
    return list(zip(made["input_ids"], made["labels"], strict=True))


@pytest.mark.parametrize("make", [byte_tokenizer, merging_tokenizer])
def test_ids_and_labels_are_those_of_trl(make):
    """Where no token reaches over the boundary SFTTrainer prepares the same ids, and trains on the same positions."""
    tokenizer = make()
    texts = TEXTS if make is byte_tokenizer else [pair for pair in TEXTS if pair not in MERGED]
    encoded = encode_rows(tokenizer, texts)
    assert [(ids, [IGNORED] * prompt + ids[prompt:]) for ids, prompt in encoded] == prepared_by_trl(tokenizer, texts)


@pytest.mark.parametrize("make", [byte_tokenizer, merging_tokenizer])
def test_a_row_begins_with_what_the_model_is_asked_with(make):
    """The prompt's own tokens begin each row, also where its last blank would merge with the answer's first letter."""
    tokenizer = make()
    for (prompt, completion), (ids, length) in zip(TEXTS, encode_rows(tokenizer, TEXTS), strict=True):
        assert ids[:length] == encode_prompt(tokenizer, prompt)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        whole = tokenizer.decode(tokenizer(prompt + completion)["input_ids"], skip_special_tokens=True)
        assert text == whole


def test_a_tokenizer_that_would_add_a_blank_keeps_the_text():
    """Where tokenising apart puts a blank before the answer, the ids of the whole text are kept."""
    from tokenizers import normalizers

    tokenizer = merging_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Prepend(" ")
    ((ids, length),) = encode_rows(tokenizer, [("x> ", "a")])
    assert ids[:-1] == tokenizer("x> a")["input_ids"]
    assert length == len(ids) - 2


@pytest.mark.parametrize("make", [byte_tokenizer, merging_tokenizer])
def test_a_row_does_not_depend_on_the_rows_beside_it(make):
    """Rows that are encoded together are neither padded nor cut."""
    tokenizer = make()
    assert encode_rows(tokenizer, TEXTS) == [encode_rows(tokenizer, [pair])[0] for pair in TEXTS]


def test_a_tokenizer_without_an_end_token_is_refused():
    """Without an end token a completion has no end to learn."""
    endless = merging_tokenizer()
    endless.eos_token = None
    with pytest.raises(DataError, match="no end token"):
        encode_rows(endless, [("a", "b")])
