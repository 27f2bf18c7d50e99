"""A training run, whatever its loss: start or resume, train, check, save the adapter."""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core import adapter_files, atomic
from loraloop.core.hashing import sha256
from loraloop.errors import TrainingError
from loraloop.records import Training
from loraloop.trainer import checkpoints, estimate, memory, sharding
from loraloop.trainer.choices import Choices, choose
from loraloop.trainer.member import member
from loraloop.trainer.monitor import Monitor
from loraloop.trainer.settings import EPOCHS, Settings

if TYPE_CHECKING:
    from peft import PeftModel

    from loraloop.protocols import TrainingJob

log = logging.getLogger(__name__)

EVAL_BATCH = 4  # times the rows of a training pass: nothing is kept for a backward pass


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run begins; ``epochs`` are those that ``auto`` came to."""

    choices: Choices
    epochs: int
    monitor: Monitor
    checkpoint: Path | None


def arguments(settings: Settings, start: Start, model: Any, output: Path, *, validates: bool) -> dict[str, Any]:
    """Arguments that the configurations of TRL's trainers share."""
    choices = start.choices
    return {
        "output_dir": str(output / "checkpoints"),
        "num_train_epochs": start.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": choices.micro_batch,
        "per_device_eval_batch_size": choices.micro_batch * EVAL_BATCH,
        "gradient_accumulation_steps": choices.accumulation,
        "learning_rate": settings.learning_rate,
        "warmup_steps": settings.warmup,
        "lr_scheduler_type": settings.schedule if settings.schedule != "constant" else "constant_with_warmup",
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "max_length": settings.max_length,
        "bf16": choices.bf16,
        "gradient_checkpointing": choices.gradient_checkpointing,
        "eval_strategy": _every(settings.eval_steps) if validates and settings.eval_growth == 1 else "no",
        "eval_steps": settings.eval_steps,
        "save_strategy": _every(settings.save_steps),
        "save_steps": settings.save_steps or 500,
        "save_total_limit": settings.keep_checkpoints,
        "logging_steps": settings.log_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "use_cpu": model.device.type == "cpu",
        "ddp_find_unused_parameters": False,
        "disable_tqdm": True,
        "report_to": "none",
        **sharding.arguments(settings, choices),
    }


def adapted(job: TrainingJob) -> dict[str, Any]:
    """What a TRL trainer is given of base and adapter: a new adapter's configuration, or a model that carries one.

    TRL keeps a frozen copy of an adapter that is there, as the reference of the trainers that have one.

    Raises:
        ModelError: The adapter is damaged, or its shapes do not fit the base.
    """
    if job.begin_from is None:
        return {"model": job.loaded.model, "peft_config": job.lora.peft_config()}
    from peft import PeftModel

    base, config = job.loaded.model, job.lora.peft_config()
    with adapter_files.reading(job.begin_from), adapter_files.plain(job.begin_from) as read:
        begun = PeftModel.from_pretrained(base, str(read), is_trainable=True, config=config, use_safetensors=True)
    return {"model": begun}


def inputs(settings: Settings, job: TrainingJob, choices: Choices, epochs: int) -> Mapping[str, Any]:
    """What decides the trained weights; a checkpoint resumes under equal ones only."""
    return {
        checkpoints.METHOD: type(settings).__name__.lower(),
        "trainer": {**settings.decisive(), "epochs": epochs},
        "lora": vars(job.lora),
        "base": job.loaded.base.sha256,
        "quantization": job.loaded.base.quantization,
        "dataset": job.data.fingerprint,
        "choices": asdict(choices),
        **({checkpoints.BEGUN: sha256(adapter_files.weights(job.begin_from))} if job.begin_from else {}),
    }


def prepare(output: Path, resume: Path | None, deciding: Mapping[str, Any]) -> Path | None:
    """Find the checkpoint to go on from, if one is asked for, and refuse to mix two runs in one folder.

    Raises:
        TrainingError: ``output`` holds another run, or ``resume`` no checkpoint that verifies.
    """
    prepare_folder(output, resume)
    return checkpoints.newest(resume, deciding) if resume is not None else None


def prepare_folder(output: Path, resume: Path | None) -> None:
    """Refuse to mix two runs in one folder.

    Raises:
        TrainingError: ``output`` holds another run.
    """
    if (output / "adapter").exists():
        raise TrainingError(f"{output} holds a finished adapter already: choose another output folder")
    if resume is None and any(output.glob("checkpoints/checkpoint-*")):
        raise TrainingError(
            f"{output} holds checkpoints of an earlier run: resume it with resume={output}, or choose another folder"
        )


def begin(settings: Settings, job: TrainingJob, rows: estimate.Rows) -> Start:
    """Decide what is open, log it with the expected cost, and find the checkpoint to go on from."""
    choices = choose(settings, job.loaded.model, rows.lengths)
    sequences = settings.sequences(rows.lengths)
    epochs = settings.passes(sequences)
    deciding = inputs(settings, job, choices, epochs)
    checkpoint = prepare(job.output, job.resume, deciding)
    values = {f"trainer.chosen.{name}": value for name, value in asdict(choices).items()}
    log.info("chosen: %s", ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in values.items()))
    if epochs > EPOCHS and settings.epochs == "auto" and settings.max_steps is None:
        log.info(
            "%d rows: %d epochs for %d steps, because they are few; trainer.epochs=N takes N",
            len(rows.lengths),
            epochs,
            settings.steps(sequences),
        )
    job.run.params(values | {"trainer.chosen.epochs": epochs})
    price = settings.cost_per_hour / 3600
    expected = estimate.seconds(settings, choices, job.loaded, job.lora, rows) if price else 0.0
    job.run.metrics({"estimate/cost": price * expected})
    return Start(choices, epochs, Monitor(job.run, deciding, job.on_evaluation), checkpoint)


def fit(build: Callable[[Any], Any], settings: Settings, job: TrainingJob, start: Start) -> tuple[PeftModel, Training]:
    """Train with the trainer that ``build`` makes for a callback, and save the adapter in ``job.output/adapter``.

    Raises:
        TrainingError: The loss or the adapter is not finite; no adapter is kept.
        KeyboardInterrupt: After Ctrl+C or SIGTERM, once the step in progress is saved as a checkpoint.
    """
    trainer = _quiet(build, start.monitor.callback())
    _epochs_bound_steps(trainer, settings, start.epochs)
    _own_dropout(settings)
    _validate_rarely(trainer, settings)
    with tempfile.TemporaryDirectory() as initial:
        if job.lora.mutates_base:
            trainer.model.save_pretrained(initial)
        seconds = _train(trainer, start)
        _require_finite(trainer.model)
        whole = sharding.trained(settings, trainer.model)
        adapter = _keep(trainer, job.output, initial if job.lora.mutates_base else None, whole)
    model: PeftModel = trainer.model.eval()
    for reference in model.peft_config.keys() - {"default"}:
        model.delete_adapter(reference)  # it has served, and is no part of what was trained
    trainable, total = model.get_nb_trainable_parameters()
    training = Training(
        adapter=adapter,
        trainable_parameters=trainable,
        total_parameters=total,
        steps=trainer.state.global_step,
        seconds=seconds,
        tokens=int(trainer.state.num_input_tokens_seen),
        peak_memory_bytes=memory.peak(trainer.args.device),
        history=tuple(start.monitor.history),
        resumed_tokens=start.monitor.tokens_before,
    )
    job.run.metrics({"final/cost": settings.cost_per_hour * seconds / 3600}, step=training.steps)
    return model, training


def _epochs_bound_steps(trainer: Any, settings: Settings, epochs: int) -> None:
    """``max_steps`` only ever shortens a run; transformers would go round the rows again to reach it."""
    if trainer.args.max_steps > epochs * _steps_per_epoch(trainer, settings):
        trainer.args.max_steps = -1


def _steps_per_epoch(trainer: Any, settings: Settings) -> int:
    return settings.steps_per_pass((len(trainer.train_dataset) - getattr(trainer, "fillers", 0)) * settings.repeats)


def _validate_rarely(trainer: Any, settings: Settings) -> None:
    """Score the validation rows ever less often, which transformers' Trainer does not know."""
    if settings.eval_growth == 1 or trainer.eval_dataset is None:
        return
    from transformers import TrainerCallback

    per_epoch = _steps_per_epoch(trainer, settings)

    class Rarely(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_evaluate = settings.validates(state.global_step, state.max_steps, per_epoch)

    trainer.add_callback(Rarely())


def _own_dropout(settings: Settings) -> None:
    """Let each of several processes draw dropout masks of its own; equal seeds would draw the same for other rows."""
    own = member()
    if own is not None:
        import torch

        torch.manual_seed(settings.seed + own.rank)


def _train(trainer: Any, start: Start) -> float:
    """Train to the end and return the seconds it took without evaluation."""
    memory.reset_peak(trainer.args.device)
    began = time.perf_counter()
    with start.monitor.watching():
        try:
            _quiet(trainer.train, resume_from_checkpoint=str(start.checkpoint) if start.checkpoint else None)
        except RuntimeError:  # to draw answers fails without a word on weights that are not finite
            _require_finite(trainer.model)
            raise
    start.monitor.raise_interruption()
    return float(time.perf_counter() - began - trainer.evaluation_seconds)


def _keep(trainer: Any, output: Path, initial: str | None, whole: Mapping[str, Any] | None) -> Path:
    """Save the adapter in PEFT's layout; with its ``initial`` state given, as the difference to it.

    ``whole`` is the trained weights, where the model itself holds a share of them.
    """
    adapter = output / "adapter"
    if trainer.is_world_process_zero():
        with atomic.folder(adapter) as folder:
            trainer.model.save_pretrained(
                str(folder),
                state_dict=whole,
                selected_adapters=["default"],
                path_initial_model_for_weight_conversion=initial,
            )
    return adapter


def _quiet(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call without the notes that transformers 5 writes about argument names that TRL 1.16 still uses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return call(*args, **kwargs)


def _every(steps: float | None) -> str:
    return "epoch" if steps is None else "steps"


def _require_finite(model: PeftModel) -> None:
    import torch

    bad = [name for name, value in model.named_parameters() if value.requires_grad and not torch.isfinite(value).all()]
    if bad:
        raise TrainingError(
            f"{len(bad)} trained weights are not finite, such as {bad[0]}: no adapter was kept. "
            "Lower trainer.learning_rate or set trainer.max_grad_norm"
        )
