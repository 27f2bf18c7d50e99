"""Rows as tokens and labels."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.core.tokens import IGNORED
from loraloop.errors import TrainingError
from loraloop.trainer.encode import encode, fit_rows, row_name, warn

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


def by_trl(rows, tokenizer):
    """What TRL's own preparation makes of the rows."""
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
    columns = {"prompt": [row.prompt for row in rows], "completion": [row.completion for row in rows]}
    made = SFTTrainer._prepare_dataset(state, Dataset.from_dict(columns), tokenizer, args, False, None, "train")
    return list(zip(made["input_ids"], made["labels"], strict=True))


@settings(max_examples=15, deadline=None)
@given(pairs=st.lists(st.tuples(TEXT, TEXT | st.just("hat<e>")), min_size=1, max_size=4))
def test_rows_become_what_trl_makes_of_them(kit, words, pairs):
    """Tokens and labels equal TRL's own preparation for any text, with merges across the boundary."""
    rows = [kit.row(prompt, completion) for prompt, completion in [*pairs, ("the ca", "t sat")]]
    assert [(row.input_ids, row.labels) for row in encode(rows, words)] == by_trl(rows, words)


def test_loss_falls_on_the_completion_and_the_end_token(kit):
    """Labels are ignored over the prompt and equal the tokens over the completion and the end token."""
    (row,) = encode([kit.row("ab", "cd")], kit.tokenizer())
    assert row.input_ids == [256, 97, 98, 99, 100, 257]
    assert row.labels == [IGNORED, IGNORED, IGNORED, 99, 100, 257]


def fitting(kit, rows, max_length=16):
    return fit_rows(rows, [encode(rows, kit.tokenizer())], max_length, "training")


def test_a_setting_that_most_rows_do_not_fit_stops_the_run(kit):
    """Rows that mostly exceed max_length are refused with their count, the rule and a max_length that would do."""
    rows = [kit.row("x" * 20, "y"), kit.row("x", "y"), kit.row("x" * 30, "y")]
    with pytest.raises(TrainingError, match=r"2 of 3 training rows .*max_length=16.*\(33 takes all of them\)"):
        fitting(kit, rows)


def test_an_answer_is_never_cut(kit, caplog):
    """A row that does not fit whole is left out and named, and those that fit keep their end token."""
    long = kit.row("x" * 10, "y" * 10)
    found = fitting(kit, [kit.row("x", "y"), long, kit.row("x" * 12, "y")])
    assert [row.labels[-1] for row in found.sides[0]] == [257, 257]
    assert found.lengths() == [4, 15]
    assert [(each.item, each.reason) for each in found.left_out] == [
        (row_name(long), "more tokens than trainer.max_length=16")
    ]
    warn(found, "training")
    assert "1 training rows are left out, the first is " in caplog.text


def test_no_rows_encode_to_nothing(kit):
    """An empty validation split is no error."""
    assert fitting(kit, []).rows == []
