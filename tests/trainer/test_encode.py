"""Rows as tokens and labels."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.core.tokens import IGNORED
from loraloop.errors import TrainingError
from loraloop.trainer.encode import encode, trainable

TEXT = st.text(max_size=12)


@pytest.fixture(scope="module")
def words():
    """A tokenizer whose tokens merge across the boundary of prompt and completion."""
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    built = Tokenizer(BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=330, special_tokens=["<b>", "<e>"], initial_alphabet=alphabet, show_progress=False)
    built.train_from_iterator(["the cat sat on the mat", "that is the hat"] * 20, trainer)
    built.post_processor = processors.TemplateProcessing(single="<b> $A", special_tokens=[("<b>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=built, **{"bos_token": "<b>", "eos_token": "<e>"})


def by_trl(rows, tokenizer, max_length):
    """What TRL's own preparation makes of the rows; it drops those without a label."""
    from datasets import Dataset
    from trl.trainer.sft_trainer import SFTTrainer

    state = SimpleNamespace(_tokenizer=tokenizer, completion_only_loss=True, chat_template=None)
    args = SimpleNamespace(
        dataset_num_proc=None,
        dataset_text_field="text",
        assistant_only_loss=False,
        max_length=max_length,
        truncation_mode="keep_start",
        shuffle_dataset=False,
    )
    columns = {"prompt": [row.prompt for row in rows], "completion": [row.completion for row in rows]}
    made = SFTTrainer._prepare_dataset(state, Dataset.from_dict(columns), tokenizer, args, False, None, "train")
    return list(zip(made["input_ids"], made["labels"], strict=True))


@settings(max_examples=15, deadline=None)
@given(
    pairs=st.lists(st.tuples(TEXT, TEXT | st.just("hat<e>")), min_size=1, max_size=4),
    max_length=st.integers(8, 40),
)
def test_rows_become_what_trl_makes_of_them(kit, words, pairs, max_length):
    """Tokens and labels equal TRL's own preparation for any text, with merges across the boundary and cuts."""
    rows = [kit.row(prompt, completion) for prompt, completion in [*pairs, ("the ca", "t sat")]]
    ours = [(r.input_ids, r.labels) for r in encode(rows, words, max_length) if set(r.labels) != {IGNORED}]
    assert ours == by_trl(rows, words, max_length)


def test_loss_falls_on_the_completion_and_the_end_token(kit):
    """Labels are ignored over the prompt and equal the tokens over the completion and the end token."""
    (row,) = encode([kit.row("ab", "cd")], kit.tokenizer(), 64)
    assert row.input_ids == [256, 97, 98, 99, 100, 257]
    assert row.labels == [IGNORED, IGNORED, IGNORED, 99, 100, 257]
    assert (row.prompt, row.whole) == (3, 6)


def test_rows_without_a_trainable_token_stop_the_run(kit):
    """Prompts that fill max_length are refused with the rows, the rule and a max_length that would do."""
    rows = [kit.row("x" * 20, "y"), kit.row("x", "y"), kit.row("x" * 30, "y")]
    with pytest.raises(TrainingError, match=r"2 of 3 training rows \(rows 0, 2\).*max_length=16.*above 31"):
        trainable(encode(rows, kit.tokenizer(), 16), 16)


def test_one_masked_row_in_a_hundred_is_left_out(kit, caplog):
    """At most 1% of rows may have nothing to train on; they are left out with a warning."""
    rows = [kit.row("x", "y")] * 99 + [kit.row("x" * 30, "y")]
    assert trainable(encode(rows, kit.tokenizer(), 16), 16) == list(range(99))
    assert "1 are left out" in caplog.text


def test_no_rows_encode_to_nothing(kit):
    """An empty validation split is no error."""
    assert trainable(encode([], kit.tokenizer(), 16), 16) == []
