"""Training on single answers that are labelled good or bad."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from loraloop.errors import ConfigError, DataError
from loraloop.lora import Lora
from loraloop.trainer.kto import Kto, columns


def settings(**changes):
    return Kto(**({"epochs": 4, "accumulation": 2, "learning_rate": 1e-2, "max_length": 64, "log_steps": 1} | changes))


def labelled(rows):
    """The right answer of even rows, labelled good, and the worse one of odd rows, labelled bad."""
    return tuple(
        replace(
            row,
            completion=row.rejected if number % 2 else row.completion,
            rejected=None,
            example=replace(row.example, label=not number % 2),
        )
        for number, row in enumerate(rows)
    )


def dataset(kit, train=16, validation=4):
    made = kit.dataset(train, validation, rejected=True)
    return replace(made, train=labelled(made.train), validation=labelled(made.validation))


def train(kit, output, run=None, part=None, data=None, lora=None):
    job = kit.job(kit.loaded(), lora or Lora(r=4), data or dataset(kit), run or kit.Run(), output)
    return (part or settings()).train(job)


@pytest.fixture(scope="module")
def finished(kit, tmp_path_factory):
    """A run of eight steps and what it left."""
    run, output = kit.Run(), tmp_path_factory.mktemp("kto")
    return train(kit, output, run)[1], run, output


def test_training_begins_at_the_reference_and_leaves_it(finished):
    """The first loss is 1/2, since the untrained adapter is its own reference; then the margin grows."""
    training, run, _ = finished
    losses, margins = run.values("train/loss"), run.values("train/rewards/margins")
    assert losses[0] == pytest.approx(0.5, abs=1e-4)
    assert losses[-1] < losses[0]
    assert margins[-1] > 0 == pytest.approx(margins[0], abs=1e-5)
    assert training.steps == 8


def test_an_adapter_that_changes_its_reference_is_refused(kit, tmp_path):
    """An init that moves the base is refused before training, by a message that says what to write instead."""
    with pytest.raises(ConfigError, match=r"changes the base, and trainer=kto .* use lora\.init=default"):
        train(kit, tmp_path, lora=Lora(r=4, init="pissa"))


@pytest.mark.parametrize(("label", "good", "bad"), [(True, 16, 0), (False, 0, 16)])
def test_data_with_one_label_is_refused(kit, tmp_path, label, good, bad):
    """Without one of the labels the error counts both and says where to find them."""
    made = dataset(kit)
    rows, held_out = (
        tuple(replace(row, example=replace(row.example, label=label)) for row in side)
        for side in (made.train, made.validation)
    )
    with pytest.raises(DataError, match=rf"of 16 training rows {good} are good and {bad} bad: .*source=ratings"):
        train(kit, tmp_path, data=replace(made, train=rows, validation=held_out))


@pytest.mark.parametrize(("label", "word"), [(True, "2 bad"), (False, "2 good")])
def test_answers_that_are_held_out_are_told(kit, label, word):
    """Where the split held out the only answers of one kind, the error says so and how to hold out others."""
    made = dataset(kit)
    rows = tuple(replace(row, example=replace(row.example, label=label)) for row in made.train)
    said = rf"{word} answers of the source are among the 4 held-out rows: .*dataset\.validation_share=0\.1"
    with pytest.raises(DataError, match=said):
        settings().estimate(kit.loaded(), Lora(r=4), replace(made, train=rows))


def test_held_out_rows_without_labels_are_no_loss_of_data(kit, tmp_path, caplog):
    """Golden rows have no label: no warning says that they are left out."""
    caplog.set_level("INFO")
    made = dataset(kit)
    golden = tuple(replace(row, example=replace(row.example, label=None)) for row in made.validation)
    train(kit, tmp_path, part=settings(max_steps=1), data=replace(made, validation=golden))
    assert "left out" not in caplog.text
    assert "the held-out rows have no label: they are scored" in caplog.text


def test_rows_without_a_label_are_left_out_and_named(kit, tmp_path, caplog):
    """Rows without a label are counted, and only labelled ones are trained on."""
    made = dataset(kit)
    extra = tuple(replace(row, example=replace(row.example, label=None)) for row in made.train[:3])
    training = train(kit, tmp_path, part=settings(epochs=1), data=replace(made, train=(*extra, *made.train)))[1]
    assert training.tokens == settings(epochs=1).estimate(kit.loaded(), Lora(r=4), made).tokens
    assert "3 training rows are left out, the first is" in caplog.text
    assert "no label" in caplog.text


@pytest.mark.parametrize(("own", "good"), [({}, 3.0), ({"good_weight": 1.5}, 1.5)])
def test_the_rarer_label_weighs_as_much_as_the_other(kit, tmp_path, caplog, own, good):
    """With 4 good and 12 bad answers a good one weighs three times as much, or what is asked, in the first loss too."""
    made, run = dataset(kit), kit.Run()
    rows = tuple(replace(row, example=replace(row.example, label=number < 4)) for number, row in enumerate(made.train))
    with caplog.at_level("INFO"):
        train(kit, tmp_path, run, settings(max_steps=1, batch_size=8, **own), replace(made, train=rows))
    assert f"4 good answers of weight {good:g}, 12 bad ones of weight 1" in caplog.text
    assert run.values("train/loss")[0] == pytest.approx(0.5 * (4 * good + 12) / 16, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"micro_batch": 1}, "micro_batch=auto"),
        ({"packing": True}, "packing=auto"),
        ({"loss_on": "all"}, "loss_on=last"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, said):
    """What the loss cannot do is refused, with what to write instead."""
    with pytest.raises(ValueError, match=said):
        settings(**change)


def test_the_token_ids_are_those_of_trl(kit):
    """Where no token reaches over the boundary TRL prepares the same columns."""
    from datasets import Dataset
    from trl.trainer.kto_trainer import KTOTrainer

    tokenizer = kit.loaded().tokenizer
    fitting = settings().fitting(dataset(kit, 10).train, tokenizer, "training")
    texts = [{"prompt": r.prompt, "completion": r.completion, "label": r.example.label} for r in fitting.rows]
    state = SimpleNamespace(_tokenizer=tokenizer, calculate_KL=False)
    args = SimpleNamespace(dataset_num_proc=None, max_length=None)
    theirs = KTOTrainer._prepare_dataset(state, Dataset.from_list(texts), tokenizer, args, "eval")
    ours = columns(fitting)
    assert all(ours[name] == theirs[name] for name in ("prompt_ids", "completion_ids", "label"))


@pytest.mark.parametrize(
    ("asked", "others"), [("AABC", "BBCA"), ("ABAA", "BABB"), ("ABBA", "BAAB"), ("AB", "BA"), ("AAA", "AAA")]
)
def test_the_divergence_is_taken_of_answers_to_other_questions(kit, asked, others):
    """A row's mismatched answer is that of the next row with another prompt, going round, and its own without one."""
    row = dataset(kit).train[0]
    rows = [replace(row, prompt=each, completion=each.lower()) for each in asked]
    found = columns(settings().fitting(rows, kit.loaded().tokenizer, "training"))
    texts = kit.loaded().tokenizer.batch_decode(list(found["KL_completion_ids"]), skip_special_tokens=True)
    assert "".join(texts) == others.lower()
