"""A small random Llama, wide enough in its answers to end some of them, and rows for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from loraloop.model.tokenizer import byte_tokenizer
from loraloop.records import Base, Example, LoadedModel, Provenance, Row


@pytest.fixture(scope="session")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture
def llama():
    """A function that builds the same float32 Llama each time, dropout-free and in training mode."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def build(positions: int = 256, **changes):
        torch.manual_seed(7)
        config = LlamaConfig(
            vocab_size=259,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=positions,
            initializer_range=0.2,
            bos_token_id=256,
            eos_token_id=257,
            pad_token_id=258,
            **changes,
        )
        model = LlamaForCausalLM(config).train()
        # A louder end token, so that answers end at different lengths.
        model.lm_head.weight.data[257] *= 2.5
        return model

    return build


@pytest.fixture
def quantised(llama, tmp_path):
    """A function that builds the same Llama in double-quantised NF4 on the CPU."""
    import torch
    from transformers import BitsAndBytesConfig, LlamaForCausalLM

    def build(compute: str = "float32"):
        llama().save_pretrained(tmp_path)
        nf4 = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, compute),
        )
        settings = {"quantization_config": nf4, "device_map": "cpu", "dtype": torch.float32}
        return LlamaForCausalLM.from_pretrained(tmp_path, **settings).train()

    return build


@pytest.fixture
def loaded(llama, tokenizer) -> LoadedModel:
    base = Base(
        name="small",
        revision=None,
        sha256="ab" * 32,
        tokenizer_sha256="cd" * 32,
        chat_template_sha256=None,
        quantization="none",
        dtype="float32",
    )
    return LoadedModel(llama(), tokenizer, base)


@pytest.fixture
def adapt():
    """A function that puts a LoRA adapter with random, non-zero weights on a model."""
    import torch
    from peft import LoraConfig, get_peft_model

    def build(model, **changes):
        settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"], **changes}
        adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
        generator = torch.Generator().manual_seed(3)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
        return adapted

    return build


@pytest.fixture(scope="session")
def rows() -> Sequence[Row]:
    """40 rows of two tasks with prompts of 3 to 40 characters; every fourth has a rejected answer."""
    rng = np.random.default_rng(5)
    found = []
    for index in range(40):
        text = "".join(rng.choice(list("abcdé "), int(rng.integers(3, 41))))
        answer = text[: int(rng.integers(1, 9))]
        worse = text[::-1][: int(rng.integers(1, 17))] if index % 4 == 0 else None
        task = ("head", "tail")[index % 2]
        example = Example.one_turn(
            input=text, output=answer, task=task, rejected=worse, provenance=Provenance(source="test", index=index)
        )
        found.append(Row(f"{text}\n> ", answer, example, worse))
    return tuple(found)
