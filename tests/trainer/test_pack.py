"""Members of a pack against the same jobs trained alone."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from loraloop.lora import Lora
from loraloop.trainer.pack import PackedTrial, steps, train

MEMBERS = (
    ({"r": 4}, {"learning_rate": 1e-2}),
    ({"r": 16, "use_rslora": True, "alpha_over_r": 1}, {"learning_rate": 5e-3, "seed": 1, "warmup": 0.3}),
    ({"r": 8, "alpha": 6.0}, {"learning_rate": 2e-2, "warmup": 0.0, "weight_decay": 0.5}),
    ({"r": 4, "alpha_over_r": 4}, {"learning_rate": 1e-3, "seed": 2}),
)
"""Ranks, scalings, seeds, learning rates, warm-ups and decays that all differ somewhere."""

CASES = {
    "plain": ({"dropout": 0.0}, {"micro_batch": 4}),
    "dropout": ({"dropout": 0.2}, {"micro_batch": 4, "eval_steps": 3, "max_steps": 5, "log_steps": 2}),
    "all-linear": (
        {"dropout": 0.0, "targets": "all-linear", "init": "gaussian"},
        {"schedule": "cosine", "max_grad_norm": 0.0, "max_steps": 3, "eval_steps": 1, "eval_growth": 3},
    ),
}


def jobs(kit, case):
    """What the members of a case train."""
    lora, settings = CASES[case]
    return [(Lora(**lora | one), kit.settings(**settings | other)) for one, other in MEMBERS]


def together(kit, made, loaded, data, folder):
    """Train jobs in one pack; each member's training and the run that it logged to."""
    runs = [kit.Run() for _ in made]
    members = [
        PackedTrial(lora=lora, settings=settings, run=run, output=folder / str(index))
        for index, ((lora, settings), run) in enumerate(zip(made, runs, strict=True))
    ]
    return list(zip(train(loaded, members, data), runs, strict=True))


def alone(kit, made, load, data, folder):
    """Train jobs one by one, each on a base of its own; as for :func:`together`."""
    results = []
    for index, (lora, settings) in enumerate(made):
        run = kit.Run()
        _, training = settings.train(kit.job(load(), lora, data, run, folder / str(index)))
        results.append((training, run))
    return results


def tensors(training):
    """The saved weights by name, in float32."""
    from safetensors.torch import load_file

    return {
        name: value.float().numpy() for name, value in load_file(training.adapter / "adapter_model.safetensors").items()
    }


@pytest.fixture(scope="module")
def data(kit):
    """Rows whose last training and validation batches are uneven."""
    return kit.dataset(26, 19)


@pytest.fixture(scope="module", params=CASES)
def pairs(request, kit, data, tmp_path_factory):
    """Of each member: training and run in the pack, and alone."""
    made, folder = jobs(kit, request.param), tmp_path_factory.mktemp(request.param)
    packed = together(kit, made, kit.loaded(), data, folder / "pack")
    return list(zip(packed, alone(kit, made, kit.loaded, data, folder / "alone"), strict=True))


def logged(run):
    """Every metric but the speed, by step and name."""
    return {
        (step, name): value for step, values in run.logged for name, value in values.items() if "second" not in name
    }


def test_every_metric_is_that_of_the_solo_run(pairs):
    """Losses, gradient norms, learning rates and TRL's metrics are logged at the same steps and equal within 1e-5."""
    for (_, packed), (_, solo) in pairs:
        assert logged(packed).keys() == logged(solo).keys()
        assert logged(packed) == pytest.approx(logged(solo), abs=1e-5)
        assert packed.parameters == solo.parameters
        assert packed.values("train/loss")[-1] < packed.values("train/loss")[0]


def test_the_adapters_are_those_of_the_solo_runs(pairs):
    """Every weight is equal within 1e-5, and PEFT's configuration to the letter."""
    for (packed, _), (solo, _) in pairs:
        ours, theirs = tensors(packed), tensors(solo)
        assert ours.keys() == theirs.keys()
        assert max(np.abs(ours[name] - theirs[name]).max() for name in ours) < 1e-5
        configs = [json.loads((each.adapter / "adapter_config.json").read_text()) for each in (packed, solo)]
        for config in configs:
            config["target_modules"] = sorted(config["target_modules"])
        assert configs[0] == configs[1]


def test_the_records_are_those_of_the_solo_runs(pairs):
    """Steps, tokens, parameters and history of the training are what the solo run reports."""
    for (packed, _), (solo, _) in pairs:
        for name in ("steps", "tokens", "trainable_parameters", "total_parameters"):
            assert getattr(packed, name) == getattr(solo, name), name
        assert [entry.keys() for entry in packed.history] == [entry.keys() for entry in solo.history]
        assert packed.seconds > 0
        assert packed.peak_memory_bytes > 0


def test_members_differ(pairs):
    """No two members learn the same: each has its own initialisation, rows or speed."""
    losses = {tuple(run.values("train/loss")) for (_, run), _ in pairs}
    assert len(losses) == len(MEMBERS)


def test_a_saved_adapter_answers_as_in_the_pack(kit, tmp_path):
    """PEFT loads the folder to the validation loss that the pack saw last."""
    import torch
    from peft import PeftModel

    from loraloop.trainer.encode import encode

    data = kit.dataset(26, 12)
    rows = encode(data.validation, kit.tokenizer())
    for training, run in together(kit, jobs(kit, "plain"), kit.loaded(), data, tmp_path):
        model = PeftModel.from_pretrained(kit.llama(), training.adapter).eval()
        total = count = 0
        with torch.no_grad():
            for row in rows:
                scored = sum(label != -100 for label in row.labels[1:])
                loss = model(torch.tensor([row.input_ids]), labels=torch.tensor([row.labels])).loss
                total, count = total + float(loss) * scored, count + scored
        assert run.values("eval/loss")[-1] == pytest.approx(total / count, abs=1e-5)


def state(model):
    """Everything about a base that a pack could have changed."""
    modules = {
        name: (id(module), len(module._forward_hooks), len(module._forward_pre_hooks))
        for name, module in model.named_modules()
    }
    weights = {
        name: (value.data_ptr(), float(value.detach().double().sum()), value.requires_grad)
        for name, value in model.named_parameters()
    }
    return modules, weights, model.training, hasattr(model, "peft_config")


def test_the_base_is_left_as_it_was(kit, data, tmp_path):
    """Modules, hooks, weights, flags and mode are as before, and a second pack on the base repeats the first."""
    import torch

    loaded = kit.loaded()
    before = state(loaded.model)
    torch.manual_seed(7)
    random = torch.random.get_rng_state()
    first = together(kit, jobs(kit, "dropout"), loaded, data, tmp_path / "first")
    assert state(loaded.model) == before
    assert torch.equal(torch.random.get_rng_state(), random)
    second = together(kit, jobs(kit, "dropout"), loaded, data, tmp_path / "second")
    for (one, _), (other, _) in zip(first, second, strict=True):
        ours, theirs = tensors(one), tensors(other)
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_what_an_earlier_run_asked_of_the_base_does_not_matter(kit, data, tmp_path):
    """On a base that still recomputes activations, dropout is drawn once all the same, to the same adapters."""
    asked = kit.loaded()
    asked.model.gradient_checkpointing_enable()
    first = together(kit, jobs(kit, "dropout"), asked, data, tmp_path / "first")
    second = together(kit, jobs(kit, "dropout"), kit.loaded(), data, tmp_path / "second")
    assert [run.values("train/loss") for _, run in first] == [run.values("train/loss") for _, run in second]


def test_an_interrupt_leaves_the_base_as_it_was(kit, data, tmp_path):
    """Ctrl+C ends the pack at once, without an adapter and with the base as before."""

    def press(step):
        if step == 2:
            raise KeyboardInterrupt

    loaded = kit.loaded()
    before = state(loaded.model)
    lora, settings = jobs(kit, "plain")[0]
    members = [
        PackedTrial(lora=lora, settings=settings, run=kit.Run(press if index else None), output=tmp_path / str(index))
        for index in range(2)
    ]
    with pytest.raises(KeyboardInterrupt):
        train(loaded, members, data)
    assert state(loaded.model) == before
    assert not list(tmp_path.rglob("adapter"))


@pytest.fixture(scope="module")
def nf4(kit, tmp_path_factory):
    """Loads the tiny Llama in NF4."""
    import torch

    from loraloop.model.nf4 import keep_trainable
    from loraloop.records import LoadedModel

    folder = tmp_path_factory.mktemp("base")
    kit.llama().save_pretrained(folder)

    def load():
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        quantised = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
        )
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=quantised)
        keep_trainable(model)
        return LoadedModel(model, kit.tokenizer(), kit.base(quantization="nf4"))

    return load


def test_an_nf4_base_packs_too(kit, nf4, data, tmp_path):
    """On NF4, where adapters train in bf16, losses equal the solo runs' within 1e-4 and the records are the same."""
    made = [(Lora(r=r, dropout=0.0), kit.settings(learning_rate=rate)) for r, rate in ((4, 2e-3), (8, 1e-3), (4, 5e-4))]
    packed = together(kit, made, nf4(), data, tmp_path / "pack")
    solo = alone(kit, made, nf4, data, tmp_path / "alone")
    for (ours, one), (theirs, other) in zip(packed, solo, strict=True):
        for name in ("train/loss", "eval/loss"):
            assert one.values(name) == pytest.approx(other.values(name), abs=1e-4)
        assert (ours.total_parameters, ours.tokens) == (theirs.total_parameters, theirs.tokens)
        assert {value.dtype for value in tensors(ours).values()} == {value.dtype for value in tensors(theirs).values()}


def test_bf16_packs_too(kit, data, tmp_path):
    """Under autocast losses equal the solo runs' to bf16's rounding, and not those of fp32."""
    made = [(Lora(r=r, dropout=0.0), kit.settings(bf16=True, epochs=1)) for r in (4, 8)]
    plain = [(Lora(r=r, dropout=0.0), kit.settings(bf16=False, epochs=1)) for r in (4, 8)]
    packed = together(kit, made, kit.loaded(), data, tmp_path / "pack")
    solo = alone(kit, made, kit.loaded, data, tmp_path / "alone")
    exact = together(kit, plain, kit.loaded(), data, tmp_path / "exact")
    for (_, one), (_, other), (_, third) in zip(packed, solo, exact, strict=True):
        assert one.values("train/loss") == pytest.approx(other.values("train/loss"), abs=2e-3)
        assert one.values("train/loss") != third.values("train/loss")


def test_without_validation_the_rest_is_logged_as_trl_does(kit, tmp_path):
    """With no validation rows the steps after the last logged one leave TRL's means, as they do alone."""
    made = [(Lora(r=4, dropout=0.0), kit.settings(log_steps=4)), (Lora(r=8, dropout=0.0), kit.settings(log_steps=4))]
    data = kit.dataset(24, 0)
    packed = together(kit, made, kit.loaded(), data, tmp_path / "pack")
    for (_, one), (_, other) in zip(packed, alone(kit, made, kit.loaded, data, tmp_path / "alone"), strict=True):
        assert logged(one) == pytest.approx(logged(other), abs=1e-5)


def test_the_time_is_shared(kit, data, tmp_path):
    """Members' seconds add up to no more than the pack took."""
    began = time.perf_counter()
    packed = together(kit, jobs(kit, "plain"), kit.loaded(), data, tmp_path)
    whole = time.perf_counter() - began
    shares = [training.seconds for training, _ in packed]
    assert 0 < sum(shares) <= whole
    assert len(set(shares)) == 1


@pytest.mark.parametrize("packed", [True, False])
def test_when_a_trial_validates_changes_nothing_that_it_learns(kit, tmp_path, packed):
    """With a validation at every step and with none, dropout included, losses and weights are equal to the last bit."""
    found = []
    for name, data in (("often", kit.dataset(24, 6)), ("never", kit.dataset(24, 0))):
        made = [(Lora(r=4, dropout=0.2), kit.settings(seed=seed, eval_steps=1, max_steps=4)) for seed in (0, 1)]
        if packed:
            results = together(kit, made, kit.loaded(), data, tmp_path / name)
        else:
            results = alone(kit, made[:1], kit.loaded, data, tmp_path / name)
        found.append([(run.values("train/loss"), tensors(training)) for training, run in results])
    for (often, theirs), (never, ours) in zip(*found, strict=True):
        assert often == never
        assert all(np.array_equal(theirs[key], ours[key]) for key in ours)


def test_many_logits_are_passed_in_parts(kit, data, tmp_path, monkeypatch):
    """Validation rows whose logits would take much memory are passed as a training step is, with the same result."""
    made, found, passes = jobs(kit, "plain")[:2], [], []
    run = steps.PackSteps._run
    monkeypatch.setattr(steps.PackSteps, "_run", lambda self, batch: passes.append(len(batch.ids)) or run(self, batch))
    for few in (steps.FEW_LOGITS, 0):
        monkeypatch.setattr(steps, "FEW_LOGITS", few)
        once = [(lora, replace(settings, max_steps=1)) for lora, settings in made]
        found.append([logged(run) for _, run in together(kit, once, kit.loaded(), data, tmp_path / str(few))])
        passes.append("end")
    assert max(passes[: passes.index("end")]) == 2 * 16
    assert max(passes[passes.index("end") + 1 : -1]) == 2 * 4
    assert found[0] == [pytest.approx(each, abs=1e-5) for each in found[1]]
