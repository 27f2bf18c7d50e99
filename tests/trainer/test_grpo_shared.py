"""Answers that share the pass over their prompt, drawn and learned."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import get_peft_model

from loraloop.lora import Lora
from loraloop.trainer import grpo_shared

END = 257
PROMPTS = ([1, 2, 3], [4, 5, 6, 7, 8, 9], [10])


@pytest.fixture(scope="module")
def adapted(kit):
    """A base with an adapter whose weights are not the zeros that it begins with."""
    torch.manual_seed(1)
    model = get_peft_model(kit.loaded().model, Lora(r=4, dropout=0.0).peft_config())
    for weight in model.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.2)
    return model


def batch(keep=5):
    """Four answers to each prompt in a drawn order: prompts padded on the left, answers on the right."""
    width, rng = max(map(len, PROMPTS)), np.random.default_rng(0)
    rows = [(prompt, rng.integers(0, 256, 1 + number % keep).tolist()) for number, prompt in enumerate(PROMPTS * 4)]
    ids = [[258] * (width - len(asked)) + asked + said + [258] * (keep - len(said)) for asked, said in rows]
    mask = [[0] * (width - len(asked)) + [1] * len(asked + said) + [0] * (keep - len(said)) for asked, said in rows]
    return torch.tensor(ids), torch.tensor(mask), keep


@pytest.mark.parametrize("tokens", [24, 1024])
def test_shared_prompts_give_the_probabilities_of_whole_rows(adapted, monkeypatch, tokens):
    """In one pass or several, log-probabilities, entropies and gradients are those of every row read as a whole."""
    monkeypatch.setattr(grpo_shared, "PASS_TOKENS", tokens)
    ids, mask, keep = batch()
    places = (mask.cumsum(1) - 1).clamp(min=0)
    logits = adapted(input_ids=ids, attention_mask=mask, position_ids=places).logits[:, -keep - 1 : -1] / 0.7
    wanted = logits.log_softmax(-1).gather(-1, ids[:, -keep:, None])[..., 0] * mask[:, -keep:]
    found, spread = grpo_shared.score(adapted, ids, mask, keep, 0.7)
    entropy = torch.distributions.Categorical(logits=logits).entropy() * mask[:, -keep:]
    assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.allclose(spread, entropy, atol=1e-5)
    weights = [weight for weight in adapted.parameters() if weight.requires_grad]
    pull = torch.linspace(-1, 1, found.numel()).reshape(found.shape)
    for one, other in zip(
        torch.autograd.grad((found * pull).sum(), weights),
        torch.autograd.grad((wanted * pull).sum(), weights),
        strict=True,
    ):
        assert torch.allclose(one, other, atol=1e-4)


def test_cold_draws_are_the_greedy_answers(adapted):
    """Near temperature 0 each prompt gets the greedy answer of transformers, until its end or the most tokens."""
    prompts = [prompt for prompt in PROMPTS for _ in range(3)]
    greedy = {}
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        said = adapted.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
        greedy[tuple(prompt)] = said[0, len(prompt) :].tolist()
    ends = {END, greedy[tuple(PROMPTS[0])][4]}
    found = grpo_shared.draw(adapted, prompts, ends, 12, 1e-6)
    for prompt, answer in zip(prompts, found, strict=True):
        wanted = greedy[tuple(prompt)]
        end = next((place for place, token in enumerate(wanted) if token in ends), 11)
        assert answer == wanted[: end + 1]
    assert len({len(answer) for answer in found}) > 1


def test_draws_follow_the_temperature(adapted):
    """Answers to one prompt differ at temperature 1."""
    torch.manual_seed(0)
    assert len({tuple(answer) for answer in grpo_shared.draw(adapted, [PROMPTS[0]] * 8, {END}, 6, 1.0)}) == 8


def test_groups_without_a_difference_are_left_out_of_the_loss():
    """Rows without an advantage reach no pass, unless the divergence from the reference weighs them too."""

    class Given:
        def _compute_loss(self, model, inputs):
            return inputs

    trainer = grpo_shared.sharing(Given)()
    inputs = {"advantages": torch.tensor([0.0, 1.0, -1.0, 0.0]), "ids": torch.arange(4), "count": torch.tensor(9)}
    for beta, left in ((0.0, [1, 2]), (0.1, [0, 1, 2, 3])):
        trainer.beta = beta
        assert trainer._compute_loss(None, inputs)["ids"].tolist() == left
    trainer.beta = 0.0
    assert trainer._compute_loss(None, inputs | {"advantages": torch.zeros(4)})["ids"].tolist() == [0]


@pytest.fixture(scope="module")
def step(adapted):
    """A step of two passes, in a drawn order, with an advantage for each answer; one group was rewarded alike."""
    ids, mask, keep = batch()
    advantages = torch.linspace(-1.5, 1.5, len(ids)).masked_fill(ids[:, -keep - 1] == PROMPTS[1][-1], 0.0)
    whole = {
        "prompt_ids": ids[:, :-keep],
        "prompt_mask": mask[:, :-keep],
        "completion_ids": ids[:, -keep:],
        "completion_mask": mask[:, -keep:],
        "advantages": advantages,
        "names": [str(row) for row in range(len(ids))],
        "num_items_in_batch": mask[:, -keep:].sum(),
    }
    drawn = torch.tensor(np.random.default_rng(2).permutation(len(ids)))
    return [grpo_shared._chosen_rows([whole], rows) for rows in drawn.chunk(2)]


def computed(trainer, model, passes):
    """The loss of a step and its gradients."""
    trainer.current_gradient_accumulation_steps = len(passes)
    loss = sum(trainer._compute_loss(model, inputs) for inputs in passes)
    return loss.item(), torch.autograd.grad(loss, [weight for weight in model.parameters() if weight.requires_grad])


def test_a_step_has_the_loss_and_the_gradients_of_trl(kit, adapted, step, tmp_path):
    """With answers left out and put together the loss and the gradients of a step are those of TRL's own trainer."""
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    def built(kind):
        arguments = GRPOConfig(
            str(tmp_path), num_generations=2, per_device_train_batch_size=6, gradient_accumulation_steps=2,
            loss_type="dapo", beta=0.0, use_cpu=True, bf16=False, report_to="none", temperature=0.7,
        )  # fmt: skip
        rows = Dataset.from_dict({"prompt": ["a"]})
        return kind(adapted, lambda **_: [0.0], arguments, rows, processing_class=kit.loaded().tokenizer)

    wanted, pull = computed(built(GRPOTrainer), adapted, step)
    found, own = computed(built(grpo_shared.sharing(GRPOTrainer)), adapted, grpo_shared.together(step))
    assert found == pytest.approx(wanted, abs=1e-5)
    assert abs(wanted) > 1e-3
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(own, pull, strict=True))


def test_a_pass_holds_all_answers_to_its_prompts(step):
    """What was drawn apart comes together: each row once, whole and unchanged, in passes of as many rows."""
    passes = grpo_shared.together(step)
    assert [len(each["names"]) for each in passes] == [6, 6]
    prompts = [{tuple(row) for row in each["prompt_ids"].tolist()} for each in passes]
    assert [len(each) for each in prompts] == [2, 2]
    assert len(prompts[0] & prompts[1]) == 1
    before, after = ({name: row for each in given for name, row in _rows(each)} for given in (step, passes))
    assert before == after


def _rows(each):
    values = [each[name].tolist() for name in ("prompt_ids", "completion_ids", "completion_mask", "advantages")]
    return [(name, row) for name, *row in zip(each["names"], *values, strict=True)]


@pytest.mark.parametrize(
    ("changes", "shared"),
    [({}, True), ({"sliding_window": 8}, False), ({"layer_types": ["linear_attention"]}, False)],
)
def test_only_models_that_keep_all_tokens_share(kit, changes, shared):
    """A model whose layers forget tokens is read as a whole for every answer."""
    model = kit.loaded().model
    config = SimpleNamespace(_attn_implementation="sdpa", **changes)
    other = SimpleNamespace(device=model.device, is_gradient_checkpointing=False, config=config)
    config.get_text_config = lambda: config
    assert grpo_shared.shares(other) is shared
    assert grpo_shared.shares(model)


@pytest.mark.parametrize("setting", grpo_shared.AFTER_HEAD)
def test_a_model_that_changes_logits_after_its_head_is_left_to_trl(adapted, monkeypatch, setting):
    """What is learned would be of another distribution than the one that answers are drawn from."""
    model = adapted.get_base_model()
    assert grpo_shared.shares(model)
    monkeypatch.setattr(model.config, setting, 8.0, raising=False)
    assert not grpo_shared.shares(model)
