"""Clients of others, unchanged, against this server; ``make test-clients`` installs them.

Tools are called by a backend that repeats what it is asked: no model that ships with the package calls tools.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from loraloop.model.causal import CausalLM
from loraloop.serve.local import LocalBackend
from serve.api.conftest import opened
from waiting import PATIENCE

PYTHON = os.environ.get("LORALOOP_CLIENTS")
HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(not PYTHON, reason="make test-clients runs it, with the clients installed")
ROWS = [
    {"question": "copy\nab\n> ", "choices": ["ab", "ba", "abab"], "answer": 0},
    {"question": "upper\nxy\n> ", "choices": ["XY", "xy"], "answer": 0},
]


def run(script: str, *arguments: str, home: Path):
    """What a client printed last."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    command = [str(PYTHON), str(HERE / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=10 * PATIENCE, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_lm_eval_scores_as_the_model_does(tmp_path):
    """Each choice has through the server the log-likelihood that the model gives it directly, and chat generates."""
    import torch

    loaded = CausalLM(name="bundled:tiny").load()
    loaded.tokenizer.save_pretrained(tmp_path / "tokenizer")
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))

    def direct(question: str, choice: str) -> tuple[float, bool]:
        ids = loaded.tokenizer(question + choice, add_special_tokens=False)["input_ids"]
        # lm-eval counts the spaces at the end of a question with the choice
        first = len(loaded.tokenizer(question.rstrip(), add_special_tokens=False)["input_ids"])
        with torch.inference_mode():
            logs = loaded.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        own = [float(logs[at - 1, ids[at]]) for at in range(first, len(ids))]
        return sum(own), all(int(logs[at - 1].argmax()) == ids[at] for at in range(first, len(ids)))

    expected = [[direct(row["question"], choice) for choice in row["choices"]] for row in ROWS]
    with opened(tmp_path, backend=LocalBackend().attach(loaded, None)) as house:
        found = run("lm_eval_client.py", house.url, str(tmp_path / "tokenizer"), str(data), home=tmp_path)
    for row, choices in zip(found["scored"], expected, strict=True):
        for ((scored, greedy),), (value, best) in zip(row, choices, strict=True):
            assert float(scored) == pytest.approx(value, abs=1e-3)
            assert str(greedy) == str(best)
    said = [kept.answer for kept in house.sessions.kept if isinstance(kept.prompt, list)]
    assert sorted(text for ((text,),) in found["said"]) == sorted(said)
    assert len(said) == len(ROWS)


@pytest.mark.parametrize("client", ["langchain", "litellm", "agents", "inspect"])
def test_a_toolkit_asks_and_calls_a_tool(tmp_path, client):
    """A client gets an answer, the same streamed, a tool call, and an answer to the tool's result."""
    with opened(tmp_path) as house:
        found = run("toolkits_client.py", client, house.url, home=tmp_path)
    assert found["said"].strip() == found["streamed"].strip() == "ocr@7 user: one two"
    assert found["call"] == ["look", {"place": "shelf"}]
    assert "a key" in found["last"]
