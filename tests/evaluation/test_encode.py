"""Rows become the token ids that they are trained on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.errors import DataError
from loraloop.evaluation.encode import encode, fit, grouped, shorten


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


@pytest.mark.parametrize("kind", ["bytes", "merging"])
def test_ids_and_masks_are_those_of_trl(kind, tokenizer, llama, tmp_path):
    """SFTTrainer prepares the same ids for every text, and trains on the same positions."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    chosen = tokenizer if kind == "bytes" else merging_tokenizer()
    data = Dataset.from_list([{"prompt": prompt, "completion": completion} for prompt, completion in TEXTS])
    args = SFTConfig(output_dir=str(tmp_path), max_length=None, bf16=False, report_to="none", use_cpu=True)
    prepared = SFTTrainer(llama(), args, train_dataset=data, processing_class=chosen).train_dataset
    for row, (prompt, completion) in zip(prepared, TEXTS, strict=True):
        ids, length = encode(chosen, prompt, completion)
        assert ids == row["input_ids"]
        assert [-100] * length + ids[length:] == row["labels"]


def test_a_tokenizer_without_an_end_token_is_refused(tokenizer):
    """Without an end token a completion has no end to learn."""
    endless = merging_tokenizer()
    endless.eos_token = None
    with pytest.raises(DataError, match="no end token"):
        encode(endless, "a", "b")


def test_shortening_keeps_the_start_token_and_the_end_of_the_prompt():
    """What goes is the beginning after the start token."""
    assert shorten([9, 1, 2, 3, 4], 3, 9) == [9, 3, 4]
    assert shorten([1, 2, 3, 4], 3, 9) == [2, 3, 4]
    assert shorten([1, 2], 3, 9) == [1, 2]
    assert shorten([9, 1, 2], 1, 9) == [2]


@given(st.integers(0, 30), st.integers(1, 9), st.integers(10, 40))
@settings(max_examples=50, deadline=None)
def test_fitted_rows_keep_their_completion(prompt, completion, positions):
    """However long the prompt, the row fits and its completion is whole."""
    row = list(range(100, 100 + prompt)) + list(range(completion))
    ((ids, length),) = fit([(row, prompt)], positions, 100)
    assert len(ids) <= positions
    assert ids[length:] == list(range(completion))


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_batches_hold_every_row_once_within_the_budget(widths, budget):
    """Batches partition the rows and pad to at most the budget, unless one row alone exceeds it."""
    batches = list(grouped(len(widths), lambda i: widths[i], lambda i: (-widths[i],), budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(widths)))
    assert all(len(batch) == 1 or len(batch) * max(widths[i] for i in batch) <= budget for batch in batches)
