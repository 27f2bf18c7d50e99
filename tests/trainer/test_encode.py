"""Rows as tokens and labels."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.core.rendering import Renderer
from loraloop.core.row_name import row_name
from loraloop.core.tokens import IGNORED
from loraloop.errors import DataError, TrainingError
from loraloop.records import Example, Message, Provenance
from loraloop.trainer.encode import counted, encode, fit_rows, shorten, warn
from loraloop.trainer.sft import BAD

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
    with pytest.raises(
        TrainingError, match=r"2 of 3 training rows .*max_length=16.*write trainer\.max_length=33, which takes all"
    ):
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


def test_a_token_that_begins_before_a_turn_belongs_to_what_stands_before(kit, words):
    """Where a merge straddles the beginning of an earlier turn, its token is not learned; the turn's others are."""
    prompt = "the cat sat on the hat<e>that is"
    begins = prompt.index("at sat")
    row = kit.row(prompt, "the mat", earlier=((begins, prompt.index("that")),))
    (encoded,) = encode([row], words, "assistant")
    learned = [token for token, label in zip(encoded.input_ids, encoded.labels, strict=True) if label != IGNORED]
    offsets = words(prompt, return_offsets_mapping=True)["offset_mapping"]
    assert any(begin < begins < end for begin, end in offsets), "no token straddles: the test proves nothing"
    assert "".join(words.convert_ids_to_tokens(learned)).replace("Ġ", " ") == " sat on the hat<e>the mat<e>"


def test_an_end_token_that_is_read_as_text_is_refused(kit):
    """A tokenizer that reads the text of its end token as other tokens would never learn to end an answer."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    known = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))  # noqa: S106
    built = PreTrainedTokenizerFast(tokenizer_object=known)
    built._special_tokens_map["eos_token"] = "</s>"  # noqa: S105
    with pytest.raises(DataError, match=r"is not read as the token .* no answer would learn to end"):
        encode([kit.row("a", "a")], built)


def conversation(exchanges):
    """A system prompt and questions with answers."""
    said = [Message("system", ("Count.",))]
    for number in range(exchanges):
        said += [Message("user", (f"question {number}",)), Message("assistant", (f"answer {number}",))]
    return Example(messages=tuple(said), provenance=Provenance(source="test"))


@pytest.mark.parametrize("template", ["chatml", "plain", "{instruction}\n{input}\n> "])
def test_the_oldest_turns_make_room_and_an_answer_is_never_cut(kit, template):
    """A long conversation loses whole turns from its beginning until it fits; the system prompt and the end stay."""
    tokenizer = kit.loaded().tokenizer
    renderer = Renderer(template, tokenizer)
    rows = [renderer.rows(conversation(count))[-1] for count in (1, 8)]
    whole = [len(each.input_ids) for each in encode(rows, tokenizer)]
    limit = whole[0] + (whole[1] - whole[0]) // 2
    short = shorten(rows, tokenizer, limit)
    assert short[0] is rows[0]
    assert len(encode(short, tokenizer)[1].input_ids) <= limit < whole[1]
    kept = short[1].example.messages
    assert (kept[0].text, kept[1].role, kept[-1].text) == ("Count.", "user", "answer 7")
    assert short[1].prompt.startswith(renderer.rows(conversation(1))[0].prompt.split("question")[0])
    one_more = Example(
        messages=(kept[0], *conversation(8).messages[-len(kept) - 1 :]), provenance=Provenance(source="t")
    )
    assert len(encode(renderer.rows(one_more)[-1:], tokenizer)[0].input_ids) > limit
    assert counted(fit_rows(short, [encode(short, tokenizer)], limit, "training"), rows).shortened == 1


def test_a_last_exchange_that_does_not_fit_is_left_as_it_is(kit):
    """Where the last question and answer alone are too long, the row stays whole, to be left out and counted."""
    tokenizer = kit.loaded().tokenizer
    rows = Renderer("chatml", tokenizer).rows(conversation(3))
    assert shorten(rows, tokenizer, 20) == rows


def test_answers_that_are_labelled_bad_are_left_out(kit):
    """A row that a person labelled bad is neither trained on nor validated with, and is counted with the reason."""
    good, bad = kit.rows(2)
    bad = replace(bad, example=replace(bad.example, label=False))
    fitting = kit.settings().fitting((good, bad), kit.loaded().tokenizer, "training")
    assert fitting.rows == [good]
    assert [each.reason for each in fitting.left_out] == [BAD]
    with pytest.raises(
        DataError, match=r"all 2 training rows are labelled bad.*: add rows whose label is true or empty"
    ):
        kit.settings().fitting((bad, bad), kit.loaded().tokenizer, "training")
