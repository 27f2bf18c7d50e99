"""A tiny random Llama with a byte-level tokenizer, rows to train it on, and a run that remembers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from loraloop.model.tokenizer import byte_tokenizer
from loraloop.protocols import TrainingJob
from loraloop.records import Base, Dataset, Example, LoadedModel, Provenance, Row
from loraloop.trainer.sft import Sft

HIDDEN = 32


def llama(seed=0):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=259,
                hidden_size=HIDDEN,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                max_position_embeddings=128,
                tie_word_embeddings=True,
                bos_token_id=256,
                eos_token_id=257,
                pad_token_id=258,
            )
        )


def base(**changes):
    fields = {"name": "test", "revision": None, "sha256": "0" * 64, "tokenizer_sha256": "0" * 64}
    fields |= {"chat_template_sha256": None, "quantization": "none", "dtype": "float32"} | changes
    return Base(**fields)


def loaded(seed=0):
    return LoadedModel(llama(seed), byte_tokenizer(), base())


def row(prompt, completion, rejected=None, earlier=()):
    example = Example.one_turn(input=prompt, output=completion, provenance=Provenance(source="test"))
    return Row(prompt, completion, example, rejected, earlier)


def rows(count, seed=0, rejected=False):
    """Coin flips of several lengths with their counts; the rejected answer swaps them.

    Every fourth row is a conversation: an answer to shorter flips comes before, and is learned too.
    """
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        flips = "".join(rng.choice(list("HT"), size=rng.integers(4, 24)))
        heads, tails = flips.count("H"), flips.count("T")
        before = "HT\n> 1, 1<eos>" if number % 4 == 3 else ""
        earlier = ((before.index("1"), len(before)),) if before else ()
        worse = f"{tails}, {heads + 1}" if rejected else None
        made.append(row(f"{before}{flips}\n> ", f"{heads} heads, {tails} tails", worse, earlier))
    return tuple(made)


def dataset(train=24, validation=6, *, rejected=False, fingerprint="data"):
    return Dataset(train=rows(train, 0, rejected), validation=rows(validation, 1, rejected), fingerprint=fingerprint)


class Remembered:
    """A run that keeps what it is told; ``on_step`` is called with every step that is logged."""

    id = link = None

    def __init__(self, on_step=None):
        self.logged, self.parameters, self.on_step = [], {}, on_step

    def metrics(self, values, step=0):
        """Keep metrics."""
        self.logged.append((step, dict(values)))
        if self.on_step and "train/loss" in values:
            self.on_step(step)

    def params(self, values):
        """Keep parameters."""
        self.parameters |= values

    def values(self, key):
        """Every value that was logged under ``key``."""
        return [values[key] for _, values in self.logged if key in values]


def settings(**changes):
    """Quick settings: 24 rows in steps of 8 are six steps."""
    return Sft(**({"epochs": 2, "accumulation": 2, "learning_rate": 1e-2, "max_length": 64, "log_steps": 1} | changes))


def correct(example, answer):
    """Whether an answer is the expected one."""
    return answer == example.output


def job(loaded, lora, data, run, output, **more):
    """What a trainer is given."""
    return TrainingJob(
        **({"loaded": loaded, "lora": lora, "data": data, "run": run, "output": output, "reward": correct} | more)
    )


def weights(folder):
    """The tensors of the adapter that a run left in ``folder``."""
    from safetensors.numpy import load_file

    return load_file(folder / "adapter" / "adapter_model.safetensors")


@pytest.fixture(scope="session")
def kit():
    """The helpers of this file."""
    return SimpleNamespace(
        loaded=loaded,
        llama=llama,
        tokenizer=byte_tokenizer,
        base=base,
        row=row,
        rows=rows,
        dataset=dataset,
        Run=Remembered,
        settings=settings,
        job=job,
        weights=weights,
    )
