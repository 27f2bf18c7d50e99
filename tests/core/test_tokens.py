"""Prompt and completion become the token ids that they are trained on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from loraloop.core.tokens import IGNORED, encode_prompt, encode_rows
from loraloop.errors import DataError
from loraloop.model.tokenizer import byte_tokenizer


def merging_tokenizer():
    """A BPE tokenizer without a start token, which merges a trailing blank of the prompt with an ``a``."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {character: i for i, character in enumerate("abcde> \n:")}
    vocabulary |= {" a": 9, "</s>": 10, "<pad>": 11, "<unk>": 12}
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    model = models.BPE(vocab=vocabulary, merges=[(" ", "a")], unk_token=special["unk_token"])
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), **special)


TEXTS = [("abc\n> ", "abc"), ("b: ", "bad"), ("", "cab"), ("ab", ""), ("é\n> ", "a\nb</s>"), ("x> ", "a<eos>")]


def prepared_by_trl(tokenizer):
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
    data = Dataset.from_list([{"prompt": prompt, "completion": completion} for prompt, completion in TEXTS])
    made = SFTTrainer._prepare_dataset(state, data, tokenizer, args, False, None, "train")
    return list(zip(made["input_ids"], made["labels"], strict=True))


@pytest.mark.parametrize("make", [byte_tokenizer, merging_tokenizer])
def test_ids_and_labels_are_those_of_trl(make):
    """SFTTrainer prepares the same ids for every text, and trains on the same positions."""
    tokenizer = make()
    encoded = encode_rows(tokenizer, TEXTS)
    assert [(ids, [IGNORED] * prompt + ids[prompt:]) for ids, prompt in encoded] == prepared_by_trl(tokenizer)


@pytest.mark.parametrize("make", [byte_tokenizer, merging_tokenizer])
def test_a_row_does_not_depend_on_the_rows_beside_it(make):
    """Rows that are encoded together are neither padded nor cut."""
    tokenizer = make()
    assert encode_rows(tokenizer, TEXTS) == [encode_rows(tokenizer, [pair])[0] for pair in TEXTS]


def test_a_served_prompt_is_the_beginning_that_was_trained_on():
    """A prompt alone has the ids with which the trained row begins."""
    tokenizer = byte_tokenizer()
    ((ids, length),) = encode_rows(tokenizer, [("abc: ", "d")])
    assert encode_prompt(tokenizer, "abc: ") == ids[:length]


def test_a_tokenizer_without_an_end_token_is_refused():
    """Without an end token a completion has no end to learn."""
    endless = merging_tokenizer()
    endless.eos_token = None
    with pytest.raises(DataError, match="no end token"):
        encode_rows(endless, [("a", "b")])
