"""The dataset part: rendering, refusals, cap and fingerprint."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pydantic import ValidationError

from loraloop.dataset.builder import DatasetBuilder, fingerprint
from loraloop.dataset.split import hold_out
from loraloop.errors import ConfigError, DataError
from loraloop.records import Collection, Example, Provenance, Quarantined, Row

CONF = Path(__file__).parents[2] / "conf" / "dataset"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def example(number: int, instruction: str = "Double it.", **changes) -> Example:
    said = {"input": f"row {number}", "output": str(2 * number)} | changes
    return Example.one_turn(instruction=instruction, provenance=Provenance(source="test", index=number), **said)


def collection(count: int = 20) -> Collection:
    return Collection(tuple(example(number) for number in range(count)))


def tokenizer(chat_template: str | None, adds_start: bool = True):
    """A small real tokenizer, which puts ``<s>`` before any text like Llama's or not, like Qwen's."""
    from tokenizers import Tokenizer, models, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "?": 2}, unk_token="?"))  # noqa: S106
    if adds_start:
        words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>")  # noqa: S106
    made.chat_template = chat_template
    return made


def prompts(builder: DatasetBuilder, *examples: Example) -> list[str]:
    """The prompts of ``examples``, rendered among enough others to be split."""
    built = builder.build(Collection((*examples, *(example(number) for number in range(100, 110)))))
    by_example = {row.example: row.prompt for row in built.train + built.validation}
    return [by_example[made] for made in examples]


def test_rows_carry_prompt_completion_and_example():
    """A row is the rendered prompt, the output as completion, the rejected answer, and the example it came from."""
    made = example(1, rejected="3")
    built = DatasetBuilder().build(Collection((made, *collection().examples[2:])))
    assert Row("Double it.\nrow 1\n> ", "2", made, "3") in built.train + built.validation


def test_the_sides_are_80_to_20_and_keep_the_order():
    """By default a fifth is held out, and both sides keep the order of the collection."""
    built = DatasetBuilder().build(collection(100))
    assert (len(built.train), len(built.validation)) == (80, 20)
    for side in (built.train, built.validation):
        assert [row.example.provenance.index for row in side] == sorted(row.example.provenance.index for row in side)


def test_empty_parts_leave_no_stray_blank_line():
    """Lines of nothing but empty placeholders are left out, and text of the template stays."""
    builder = DatasetBuilder()
    assert prompts(builder, example(1, ""), example(2, input="")) == ["row 1\n> ", "Double it.\n> "]
    assert prompts(DatasetBuilder(template="Q: {instruction} {input}\nA: "), example(1, "")) == ["Q: row 1 \nA: "]


def test_the_alpaca_template_drops_the_paragraph_of_a_missing_input():
    """Alpaca's prompt has an input paragraph only where there is an input."""
    template = OmegaConf.load(CONF / "alpaca.yaml").template
    full, short = prompts(DatasetBuilder(template=template), example(1), example(2, input=""))
    assert full.endswith("### Instruction:\nDouble it.\n\n### Input:\nrow 1\n\n### Response:\n")
    assert short.endswith("### Instruction:\nDouble it.\n\n### Response:\n")


@given(st.text(min_size=1).filter(str.strip), st.text(min_size=1).filter(str.strip))
@settings(max_examples=50, deadline=None)
def test_any_text_is_rendered_as_it_is(instruction, input):
    """Braces, percent signs and line ends in an example's text are text, never placeholders."""
    rendered = prompts(DatasetBuilder(), example(1, instruction, input=input))
    assert rendered == [f"{instruction}\n{input}\n> "]


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{question}\n> ", "{question} is not one of the placeholders {instruction} and {input}"),
        ("{input.__class__}", "{input.__class__} is not one of"),
        ("{input!r}", "{input!r} is not one of"),
        ("{input:>9}", "{input:>9} is not one of"),
        ("{}", "{} is not one of"),
        ('{"q": {input}}', "not one of"),
        ("{input", "is not a format string"),
        ("> ", "has no placeholder: use {instruction} and {input}, or a chat template: chat"),
    ],
)
def test_an_unknown_placeholder_is_refused_on_construction(template, says):
    """A template that names anything but plain {instruction} and {input} is refused, and the known ones are listed."""
    with pytest.raises(ValidationError) as caught:
        DatasetBuilder(template=template)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"validation_share": 0}, "greater than 0"),
        ({"validation_share": 1.0}, "less than 1"),
        ({"min_rows": 1}, "greater than or equal to 2"),
        ({"min_rows": 10, "max_rows": 5}, "max_rows=5 is below min_rows=10"),
        ({"export": "data.xlsx"}, ".alpaca.jsonl, .alpaca.json, .jsonl, .json, .csv, .parquet, .toon, or none"),
    ],
)
def test_bad_values_are_refused_on_construction(changes, says):
    """Shares, bounds and suffixes out of range are refused with the rule."""
    with pytest.raises(ValidationError) as caught:
        DatasetBuilder(**changes)
    assert says in str(caught.value)


def test_the_chat_template_of_the_tokenizer_is_used():
    """``chat`` puts instruction and input into one user message and leaves out a start token that would come twice."""
    builder = DatasetBuilder(template="chat")
    for adds_start, start in ((True, ""), (False, "<s>")):
        built = builder.build(collection(), tokenizer(CHAT_TEMPLATE, adds_start))
        assert f"{start}<user>Double it.\nrow 1<assistant>" in {row.prompt for row in built.train + built.validation}


def test_the_chat_template_needs_a_tokenizer_that_has_one():
    """``chat`` without a tokenizer, or with one without a chat template, is refused with what to write instead."""
    builder = DatasetBuilder(template="chat")
    with pytest.raises(ConfigError, match=r"needs a model's tokenizer .* write dataset\.template='\{instruction\}"):
        builder.build(collection())
    with pytest.raises(ConfigError, match=r"has no chat template: write dataset\.template=chatml or"):
        builder.build(collection(), tokenizer(None))


def test_too_few_rows_are_refused_with_the_numbers():
    """Fewer usable rows than ``min_rows`` raise an error with the counts and the reasons of what was set aside."""
    blank = example(3, "", input=" ")
    aside = (Quarantined("a.png", "unreadable"), Quarantined("b.png", "unreadable"))
    with pytest.raises(DataError) as caught:
        DatasetBuilder(min_rows=4).build(Collection((*collection(3).examples, blank), aside))
    assert "3 usable rows, at least 4 are needed (dataset.min_rows); 3 were set aside" in str(caught.value)
    assert "2 x unreadable; 1 x nothing is asked" in str(caught.value)


def test_unusable_examples_are_set_aside_and_counted():
    """Examples without a question, without an answer or with half a surrogate pair are quarantined with the reason."""
    broken = (example(1, "", input=""), example(2, output=" "), example(3, output="\ud83d"))
    built = DatasetBuilder().build(Collection((*collection().examples, *broken), (Quarantined("x", "y"),)))
    assert [item.item for item in built.quarantined] == ["x", *(f"test example {number}" for number in (21, 22, 23))]
    starts = ("y", "nothing is asked", "the output is empty", "half of a surrogate pair")
    assert all(item.reason.startswith(start) for item, start in zip(built.quarantined, starts, strict=True))
    assert len(built.train + built.validation) == 20


def test_max_rows_is_a_seeded_choice_in_order():
    """``max_rows`` keeps that many rows, the same for a seed whatever the order, spread over the whole collection."""
    whole = collection(200)

    def kept(examples, seed=0):
        built = DatasetBuilder(max_rows=50, seed=seed).build(Collection(examples))
        return {row.example for row in built.train + built.validation}

    assert len(kept(whole.examples)) == 50
    assert kept(whole.examples) == kept(whole.examples[::-1]) != kept(whole.examples, seed=1)
    assert max(made.provenance.index for made in kept(whole.examples)) > 150


changes = st.sampled_from(["prompt", "completion", "rejected", "task", "drop", "swap", "side", "seed"])


@given(changes, st.integers(0, 15), st.text(max_size=5))
@settings(max_examples=100, deadline=None)
def test_the_fingerprint_changes_with_any_row_the_order_and_the_sides(change, place, text):
    """Changing, dropping, swapping or moving one row changes the fingerprint, and so does another seed's split."""
    built = DatasetBuilder().build(collection())
    train, validation = list(built.train), built.validation
    row = train[place]
    if change == "seed":
        other = DatasetBuilder(seed=1).build(collection())
        assert other.fingerprint != built.fingerprint
        return
    if change == "drop":
        del train[place]
    elif change == "swap":
        train[place], train[place - 1] = train[place - 1], train[place]
    elif change == "side":
        validation = (train.pop(), *validation)
    elif change == "task":
        train[place] = replace(row, example=replace(row.example, task=f"other{text}"))
    else:
        train[place] = replace(row, **{change: (getattr(row, change) or "") + "x" + text})
    assert fingerprint(train, validation) != built.fingerprint


def test_the_fingerprint_ignores_provenance():
    """The same rows read from another folder have the same fingerprint, and so does a second build."""
    moved = Collection(
        tuple(
            replace(made, provenance=Provenance(source="test", image_path=f"/elsewhere/{number}.png"))
            for number, made in enumerate(collection().examples)
        )
    )
    assert DatasetBuilder().build(moved).fingerprint == DatasetBuilder().build(collection()).fingerprint


def test_the_fingerprint_tells_labels_apart():
    """A row that is labelled good, one that is labelled bad and one without a label are three different data sets."""
    rows = DatasetBuilder().build(collection()).train
    good, bad = (
        (replace(rows[0], example=replace(rows[0].example, label=label)), *rows[1:]) for label in (True, False)
    )
    assert len({fingerprint(each, ()) for each in (rows, good, bad)}) == 3
    assert fingerprint(rows[:1], ()).startswith("25fecbc2abde915e"), "data without labels keeps its fingerprint"


def test_the_split_is_the_documented_one():
    """The builder holds out exactly what :func:`hold_out` names."""
    rows = collection(40).examples
    held_out = {rows[place] for place in hold_out(rows, 0.3, 7)}
    built = DatasetBuilder(validation_share=0.3, seed=7).build(Collection(rows))
    assert {row.example for row in built.validation} == held_out


def test_an_existing_export_folder_is_refused_before_any_work(tmp_path):
    """``check`` refuses to overwrite a folder and lets a file be replaced."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data.csv").touch()
    with pytest.raises(ConfigError, match=r"dataset\.export=.*data exists already: remove it or name another folder"):
        DatasetBuilder(export=tmp_path / "data").check()
    DatasetBuilder(export=tmp_path / "data.csv").check()


def test_saving_without_an_export_path_writes_nothing(tmp_path, monkeypatch):
    """``save`` does nothing without ``export`` and otherwise returns the path that it wrote."""
    monkeypatch.chdir(tmp_path)
    assert DatasetBuilder().save(DatasetBuilder().build(collection())) is None
    assert list(tmp_path.iterdir()) == []
    builder = DatasetBuilder(export="data.jsonl")
    assert builder.save(builder.build(collection())) == Path("data.jsonl")
    assert len(Path("data.jsonl").read_bytes().splitlines()) == 20


def test_the_defaults_are_those_of_the_yaml_file():
    """``conf/dataset/default.yaml`` holds every field with its default."""
    written = OmegaConf.to_container(OmegaConf.load(CONF / "default.yaml"), resolve=False)
    assert written.pop("_target_") == "loraloop.dataset.builder.DatasetBuilder"
    assert written.pop("seed") == "${seed}"
    assert DatasetBuilder(**written) == DatasetBuilder()
    assert {*written, "seed"} == set(DatasetBuilder.__dataclass_fields__)


def test_building_needs_no_heavy_import():
    """Importing, constructing and building the default dataset loads neither torch nor a table library."""
    import subprocess

    code = (
        "import sys; from loraloop.dataset.builder import DatasetBuilder;"
        "from loraloop.records import Collection, Example, Provenance as P;"
        "made = [Example.one_turn(input=str(n), output='x', provenance=P(source='t')) for n in range(9)];"
        "DatasetBuilder().build(Collection(tuple(made)));"
        "heavy = {'torch', 'transformers', 'datasets', 'pyarrow', 'pandas', 'toon_format'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
