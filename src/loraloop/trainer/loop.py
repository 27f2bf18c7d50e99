"""TRL's trainers with length-grouped batches, a loss that must be finite, and less work per step on a CPU."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from loraloop.core.tokens import IGNORED
from loraloop.errors import TrainingError
from loraloop.trainer.sampler import LengthGrouped
from loraloop.trainer.scoring import entropies, scored_logits

ROUNDING = 1e-6  # of the epoch, which transformers counts in fractions


def guarded(base: type[Any]) -> type[Any]:
    """A subclass of a TRL trainer that any of our trainers runs."""
    import torch
    from transformers import PrinterCallback

    class Guarded(base):  # type: ignore[misc]
        evaluation_seconds = 0.0
        _step_loss: Any = 0.0

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.remove_callback(PrinterCallback)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            self._step_loss = self._step_loss + loss
            if self.accelerator.sync_gradients:  # once a step: to read a loss makes a GPU wait
                self._require_finite(self._step_loss.item())
                self._step_loss = 0.0
            return loss

        def _require_finite(self, loss: float) -> None:
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} at step {self.state.global_step + 1}: training stopped. Lower "
                    f"trainer.learning_rate (now {self.args.learning_rate:g}) or set trainer.max_grad_norm"
                )

        def evaluate(self, *args: Any, **kwargs: Any) -> Any:
            """Scores the validation rows; what is drawn later is what would have been drawn without."""
            start = time.perf_counter()
            with torch.random.fork_rng([self.args.device] if self.args.device.type == "cuda" else []):
                metrics = super().evaluate(*args, **kwargs)
            self.evaluation_seconds += time.perf_counter() - start
            return metrics

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """A checkpoint is for resuming and needs no model card."""

        def _send_telemetry(self) -> None:
            """Nothing about a run leaves the machine unasked."""

    return Guarded


def grouped(base: type[Any]) -> type[Any]:
    """A guarded trainer whose batches hold rows of similar length; set ``lengths`` on it before training."""
    from transformers import TrainerCallback

    class Order(TrainerCallback):
        """Tells the sampler its epoch: accelerate does not, in several processes that go on within an epoch."""

        def __init__(self, trainer: Any) -> None:
            self.trainer = trainer

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.trainer.sampler.set_epoch(int((state.epoch or 0) + ROUNDING))

    class Grouped(guarded(base)):  # type: ignore[misc]
        lengths: Sequence[int] = ()
        fillers = 0
        _operations_per_token = 0

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            """Counts tokens where a checkpoint keeps them, so that a resumed run goes on from there."""
            self._total_train_tokens = int(self.state.num_input_tokens_seen)
            loss = super().training_step(*args, **kwargs)
            self.state.num_input_tokens_seen = self._total_train_tokens
            return loss

        def _get_train_sampler(self, train_dataset: Any = None) -> LengthGrouped:
            args = self.args
            at_once = args.per_device_train_batch_size * args.world_size
            batch = at_once * args.gradient_accumulation_steps
            # Without fillers accelerate would repeat rows until all processes have as many.
            self.sampler = LengthGrouped(self.lengths, batch, args.seed, at_once if self.fillers else 1)
            if self.fillers:
                self.add_callback(Order(self))
            return self.sampler

        def floating_point_ops(self, inputs: Any) -> int:
            """As transformers counts, without counting the parameters again for every batch."""
            tokens = int(inputs["input_ids"].numel())
            self._operations_per_token = self._operations_per_token or super().floating_point_ops(inputs) // tokens
            return self._operations_per_token * tokens

    return Grouped


def preferring(base: type[Any]) -> type[Any]:
    """A grouped trainer whose rows are token ids already: TRL would take a prompt's last blank into the answer."""

    class Preferring(grouped(base)):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    return Preferring


def sft_trainer() -> type[Any]:
    """TRL's SFTTrainer with the same loss and metrics computed from the scored positions' logits alone on a CPU.

    TRL 1.16 projects every position through the LM head there, in chunks, twice; the loss only needs the completion.
    On a GPU its fused kernels do the same already, and are left alone.
    """
    import torch
    from torch.nn import functional
    from trl.trainer.sft_trainer import SFTTrainer

    class ScoredPositions(grouped(SFTTrainer)):  # type: ignore[misc]
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            if return_outputs or not self._scored_alone():
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            labels = functional.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED).flatten()
            positions = (labels != IGNORED).nonzero().squeeze(1)
            shown = {name: inputs[name] for name in ("input_ids", "attention_mask")}
            head = self.model.get_base_model().get_output_embeddings()
            log_probs = scored_logits(model, head, shown, positions).log_softmax(-1)
            targets = labels[positions]
            count = len(targets) if num_items_in_batch is None else num_items_in_batch
            self._note(log_probs.detach(), targets, inputs["attention_mask"])
            # The tokens of all processes are counted, and their gradients averaged.
            share = 1 if num_items_in_batch is None else self.accelerator.num_processes
            return -log_probs.gather(-1, targets.unsqueeze(-1)).sum() * share / torch.as_tensor(count).clamp(min=1)

        def _scored_alone(self) -> bool:
            base = self.model.get_base_model()
            return (
                self.args.device.type == "cpu"
                and not self.is_fsdp_enabled  # its layers gather their weights when the model calls them
                and not self.padding_free
                and not self.aux_loss_enabled
                and base.get_output_embeddings() is not None
            )

        def _note(self, log_probs: Any, targets: Any, attention_mask: Any) -> None:
            """TRL's metrics of a batch: entropy, token accuracy and the tokens seen so far."""
            mode = "train" if self.model.training else "eval"
            correct = (log_probs.argmax(-1) == targets).sum()
            sums = [entropies(log_probs).sum().double(), correct, torch.tensor(len(targets)), attention_mask.sum()]
            own = torch.stack([value.double() for value in sums])
            entropy, right, scored, seen = self.accelerator.reduce(own).tolist()
            self._metrics[mode]["entropy"].append(entropy / max(scored, 1))
            self._metrics[mode]["mean_token_accuracy"].append(right / max(scored, 1))
            if mode == "train":
                self._total_train_tokens += int(seen)
            self._metrics[mode]["num_tokens"] = [self._total_train_tokens]

    return ScoredPositions
