"""Scores of small models, which depend on rows and weights alone."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, replace

import pytest
from pydantic import ValidationError

from loraloop.core.tokens import encode_rows
from loraloop.errors import DataError
from loraloop.evaluation.evaluation import Evaluation
from loraloop.records import Example, Generation, Score


def solved(example: Example, answer: str) -> bool:
    return answer.startswith(example.output[:1])


def part(**changes) -> Evaluation:
    return Evaluation(**{"cache": None, "max_new_tokens": 16, **changes})


def test_the_loss_equals_that_of_one_row_at_a_time(llama, tokenizer, rows):
    """Loss over padded batches is the mean over completion tokens that transformers computes row by row."""
    import torch

    model = llama().eval()
    total, tokens = 0.0, 0
    for row in rows:
        ((ids, length),) = encode_rows(tokenizer, [(row.prompt, row.completion)])
        labels = torch.tensor([[-100] * length + ids[length:]])
        with torch.no_grad():
            total += float(model(input_ids=torch.tensor([ids]), labels=labels).loss) * (len(ids) - length)
        tokens += len(ids) - length
    score = part().score(model, tokenizer, rows, solved)
    assert score["loss"] == pytest.approx(total / tokens, abs=1e-5)
    assert score["perplexity"] == pytest.approx(math.exp(total / tokens), rel=1e-4)
    assert tokens == sum(len(row.completion.encode()) + 1 for row in rows)


def texts(score):
    """Prompts and answers, without the losses, which batches of another size round differently."""
    return [(each.prompt, each.expected, each.answer, each.correct) for each in score.generations]


def test_batching_changes_nothing(llama, tokenizer, rows):
    """One row at a time and all rows at once give the same answers and, to rounding, the same loss."""
    model = llama()
    single = part(batch_tokens=1).score(model, tokenizer, rows, solved)
    together = part(batch_tokens=100_000).score(model, tokenizer, rows, solved)
    assert texts(single) == texts(together)
    assert [each.nll for each in single.generations] == pytest.approx(
        [each.nll for each in together.generations], abs=1e-4
    )
    assert single["loss"] == pytest.approx(together["loss"], abs=1e-5)
    lengths = {len(each.answer) for each in single.generations}
    assert len(lengths) > 3, "answers of one length would prove nothing about stopping"


def test_answers_follow_the_greedy_choice(llama, tokenizer, rows):
    """An answer is the most likely token after each prefix, computed without a cache, up to the end token."""
    import torch

    model = llama().eval()
    score = part(max_new_tokens=6).score(model, tokenizer, rows[:6], solved)
    for row, found in zip(rows[:6], score.generations, strict=True):
        ids = tokenizer(row.prompt)["input_ids"]
        start = len(ids)
        while len(ids) < start + 6 and ids[-1] != tokenizer.eos_token_id:
            with torch.no_grad():
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert found.answer == tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_a_sampling_generation_config_is_overruled(llama, tokenizer, rows):
    """A model that samples and penalises repetition by its own settings is still scored greedily."""
    plain = part().score(llama(), tokenizer, rows, solved)
    model = llama()
    model.generation_config.update(do_sample=True, temperature=3.0, top_p=0.5, repetition_penalty=1.8, top_k=7)
    assert part().score(model, tokenizer, rows, solved) == plain


def test_the_model_is_left_as_it_was(llama, tokenizer, rows):
    """Scoring keeps the training mode, the weights and the ability to compute gradients."""
    import torch

    model = llama()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    part().score(model, tokenizer, rows[:4], solved)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model(input_ids=torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
    assert model.lm_head.weight.grad is not None


def test_scoring_a_quantised_base_does_not_change_its_training(quantised, adapt, tokenizer, rows):
    """Gradients of an adapter on an NF4 base are the same whether or not the base was scored before.

    bitsandbytes repacks such weights in a forward without gradients, and then cuts the gradient at every layer.
    """
    import torch

    def gradients(scored: bool):
        model = quantised()
        if scored:
            part().score(model, tokenizer, rows[:2], solved)
        adapted = adapt(model)
        ids = torch.tensor([list(range(97, 120))])
        adapted.train()(input_ids=ids, labels=ids).loss.backward()
        return {name: p.grad for name, p in adapted.named_parameters() if p.grad is not None and "lora_B" in name}

    fresh, after = gradients(False), gradients(True)
    assert fresh
    assert all(torch.equal(fresh[name], after[name]) for name in fresh)


def test_slices_hold_their_rows_and_weigh_up_to_the_whole(llama, tokenizer, rows):
    """Slices partition the rows, and their token-weighted losses add up to the loss."""
    score = part().score(llama(), tokenizer, rows, solved)
    assert set(score.slices) == {"head", "tail"}
    assert sum(each.rows for each in score.slices.values()) == len(rows)
    tokens = {
        task: sum(len(r.completion.encode()) + 1 for r in rows if r.example.task == task) for task in score.slices
    }
    weighted = sum(score.slices[task]["loss"] * count for task, count in tokens.items()) / sum(tokens.values())
    assert weighted == pytest.approx(score["loss"], rel=1e-9)


def test_preference_accuracy_is_the_share_of_likelier_completions(llama, tokenizer, rows):
    """Swapping completion and rejected answer turns the preference accuracy of a slice into its complement."""
    pairs = [row for row in rows if row.rejected is not None]
    swapped = [replace(row, completion=row.rejected, rejected=row.completion) for row in pairs]
    ahead = part().score(llama(), tokenizer, pairs, solved).slices["head"]["preference_accuracy"]
    behind = part().score(llama(), tokenizer, swapped, solved).slices["head"]["preference_accuracy"]
    assert 0 < ahead < 1
    assert ahead + behind == pytest.approx(1)


def test_slices_without_rejected_answers_have_no_preference_accuracy(llama, tokenizer, rows):
    """The metric appears only where it is defined."""
    score = part().score(llama(), tokenizer, rows, solved)
    assert "preference_accuracy" in score.slices["head"].values
    assert "preference_accuracy" not in score.slices["tail"].values


def test_max_rows_draws_the_same_rows_for_base_and_adapter(llama, tokenizer, rows):
    """The seeded sample keeps the order of the rows and depends on the seed alone."""
    model = llama()
    first = part(max_rows=9, seed=1).score(model, tokenizer, rows, solved)
    again = part(max_rows=9, seed=1, batch_tokens=64).score(model, tokenizer, rows, solved)
    other = part(max_rows=9, seed=2).score(model, tokenizer, rows, solved)
    assert first.rows == 9
    assert texts(first) == texts(again) != texts(other)
    prompts = [row.prompt for row in rows]
    places = [prompts.index(each.prompt) for each in first.generations]
    assert places == sorted(places)


def test_prompts_beyond_the_positions_lose_their_beginning_and_are_counted(llama, tokenizer, rows, caplog):
    """A row longer than the model's positions is scored on what fits, with a warning that says how many."""
    long = replace(rows[0], prompt="z" * 100 + rows[0].prompt)
    model = llama(positions=64)
    with caplog.at_level(logging.WARNING):
        score = part(max_new_tokens=8).score(model, tokenizer, [long, rows[1]], solved)
    assert "1 of 2 rows are longer than the model's 64 positions" in caplog.text
    assert math.isfinite(score["loss"])


@pytest.mark.parametrize("side", ["completion", "rejected"])
def test_an_answer_beyond_the_positions_is_left_out_and_counted(llama, tokenizer, rows, caplog, side):
    """A row whose answer alone exceeds the positions is not scored, with a warning; the others are."""
    long = replace(rows[1], **{side: "y" * 70})
    score = part(max_new_tokens=4).score(llama(positions=64), tokenizer, [rows[0], long, rows[2]], solved)
    assert [each.prompt for each in score.generations] == [rows[0].prompt, rows[2].prompt]
    assert "1 of 3 held-out rows are not scored, the first is row" in caplog.text
    assert "an answer of more tokens than the model's 64 positions" in caplog.text
    with pytest.raises(DataError, match="none of the 1 held-out rows can be scored"):
        part().score(llama(positions=64), tokenizer, [long], solved)


def test_expected_answers_beyond_the_limit_are_counted(llama, tokenizer, rows, caplog):
    """Answers that max_new_tokens makes unreachable are reported, not silently wrong."""
    with caplog.at_level(logging.WARNING):
        part(max_new_tokens=2).score(llama(), tokenizer, rows, solved)
    long = sum(len(row.completion.encode()) > 2 for row in rows)
    assert f"{long} of 40 expected answers are longer than evaluation.max_new_tokens=2" in caplog.text


def test_no_rows_is_an_error(llama, tokenizer):
    """An empty held-out part is refused before any work."""
    with pytest.raises(DataError, match="no held-out rows"):
        part().score(llama(), tokenizer, [], solved)


def test_an_empty_completion_scores_its_end_token(llama, tokenizer, rows):
    """A row that expects silence is scored on the end token alone."""
    score = part().score(llama(), tokenizer, [replace(rows[0], completion="", rejected=None)], solved)
    assert math.isfinite(score["loss"])


def test_the_base_is_measured_once(loaded, rows, tmp_path, monkeypatch):
    """A second call reads the cache, gives an equal score and never runs the model."""
    evaluation = part(cache=tmp_path / "scores")
    first = evaluation.score_base(loaded, rows, solved)
    monkeypatch.setattr(type(loaded.model), "forward", None)
    assert evaluation.score_base(loaded, rows, solved) == first
    assert len(list((tmp_path / "scores").iterdir())) == 1


def test_the_cache_knows_base_rows_and_settings(loaded, rows, tmp_path):
    """Another quantisation, another row or another answer limit is measured anew; another batch size is not."""
    evaluation = part(cache=tmp_path)
    evaluation.score_base(loaded, rows[:3], solved)
    replace_base = replace(loaded, base=replace(loaded.base, quantization="nf4"))
    evaluation.score_base(replace_base, rows[:3], solved)
    evaluation.score_base(loaded, rows[:2], solved)
    part(cache=tmp_path, max_new_tokens=5).score_base(loaded, rows[:3], solved)
    part(cache=tmp_path, batch_tokens=1).score_base(loaded, rows[:3], solved)
    assert len(list(tmp_path.iterdir())) == 4


def test_the_rule_is_applied_to_cached_answers(loaded, rows, tmp_path):
    """The cache holds answers, not marks: a new rule counts at once."""
    evaluation = part(cache=tmp_path)
    assert evaluation.score_base(loaded, rows, lambda *_: False)["task_accuracy"] == 0
    assert evaluation.score_base(loaded, rows, lambda *_: True)["task_accuracy"] == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"nll": [1], "tokens": [1], "answers": ["a"]}'])
def test_a_damaged_cache_is_measured_again(loaded, rows, tmp_path, caplog, damage):
    """A cache file that cannot be read is warned about, replaced, and never stops the run."""
    evaluation = part(cache=tmp_path)
    first = evaluation.score_base(loaded, rows[:4], solved)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage)
    assert evaluation.score_base(loaded, rows[:4], solved) == first
    assert "is damaged" in caplog.text
    assert file.read_bytes() == whole


def test_random_weights_are_never_cached(loaded, rows, tmp_path):
    """Two bases with random weights share an identity, so neither is remembered."""
    base = replace(loaded.base, weights="random")
    part(cache=tmp_path / "none").score_base(replace(loaded, base=base), rows[:2], solved)
    assert not (tmp_path / "none").exists()


def test_an_adapter_is_scored_with_the_base_untouched(llama, adapt, tokenizer, rows):
    """A PEFT model is scored like any other, and with its adapter disabled it scores like the base."""
    base = part().score(llama(), tokenizer, rows, solved)
    adapted = adapt(llama())
    assert part().score(adapted, tokenizer, rows, solved)["loss"] != pytest.approx(base["loss"], abs=1e-3)
    with adapted.disable_adapter():
        assert part().score(adapted, tokenizer, rows, solved)["loss"] == pytest.approx(base["loss"], abs=1e-6)


def _score(marks: list[tuple[bool, str]]) -> Score:
    found = tuple(Generation("t", f"p{i}", "abcdef", answer, correct) for i, (correct, answer) in enumerate(marks))
    return Score(rows=len(found), values={}, generations=found)


def test_the_table_shows_best_worst_and_others_once_each():
    """Best holds the right answers, worst the farthest ones, and no row stands in two groups."""
    score = _score([(True, "abcdef")] * 4 + [(False, "abcxyz")] * 30 + [(False, "?")] * 4)
    table = Evaluation(samples=12).table(score)
    groups = [row["group"] for row in table]
    assert groups == ["best"] * 4 + ["worst"] * 4 + ["random"] * 4
    assert {row["answer"] for row in table if row["group"] == "best"} == {"abcdef"}
    assert {row["answer"] for row in table if row["group"] == "worst"} == {"?"}
    assert len({row["prompt"] for row in table}) == 12


@pytest.mark.parametrize(("rows", "samples"), [(0, 24), (1, 24), (2, 24), (5, 24), (40, 0), (40, 1), (40, 25)])
def test_the_table_has_as_many_rows_as_there_are(rows, samples):
    """Few rows or few samples never repeat a row and never exceed what was asked."""
    table = Evaluation(samples=samples).table(_score([(False, str(i)) for i in range(rows)]))
    assert len(table) == len({row["prompt"] for row in table}) == min(rows, samples)


@pytest.mark.parametrize("wrong", [{"batch_tokens": 0}, {"max_rows": 0}, {"samples": -1}, {"batch_size": 4}])
def test_wrong_settings_are_refused(wrong):
    """Values out of range and unknown keys fail on construction."""
    with pytest.raises(ValidationError):
        Evaluation(**wrong)


def test_scores_repeat_exactly(llama, tokenizer, rows):
    """The same model and rows give the same score to the last bit."""
    first, second = (asdict(part().score(llama(), tokenizer, rows, solved)) for _ in range(2))
    assert first == second
