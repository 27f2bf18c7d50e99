"""``serve=vllm`` on a real vLLM server, as a client of the OpenAI API sees it: ``make test-vllm`` runs this."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from loraloop.compress import svd
from loraloop.compress.adapter import Adapter
from loraloop.core import adapter_files
from loraloop.core.hashing import sha256
from loraloop.model import gguf
from loraloop.publish.folder import Folder
from loraloop.records import GenerationRequest, Version
from loraloop.registry import manifest as manifests
from loraloop.runtime.vllm import Vllm
from loraloop.serve.vllm import VllmBackend
from loraloop.workflows import export_folder
from loraloop.workflows.version_base import VersionBase
from serve.conftest import SMOL, version_of, write_adapter
from vllm_server import running
from waiting import PATIENCE, until

pytestmark = pytest.mark.skipif("LORALOOP_VLLM" not in os.environ, reason="make test-vllm starts a real vLLM server")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "open_gate",
            "description": "Open a gate.",
            "parameters": {"type": "object", "properties": {"gate": {"type": "integer"}}, "required": ["gate"]},
        },
    }
]
SMALL = ("trainer.max_steps=24", "trainer.batch_size=2", "trainer.accumulation=1", "evaluation.max_rows=2")
FREELY = ("gate.metric=loss", "gate.min_rows=1", "gate.max_p=1", "tracker.system_metrics=false")
GATES = {"type": "object", "properties": {"gate": {"enum": [1, 2]}}, "required": ["gate"]}
QUESTION = [{"role": "user", "content": "Open gate 7."}]
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]


def conversation(gate: int) -> dict[str, Any]:
    """A conversation in which the assistant opens a gate."""
    function = {"name": "open_gate", "arguments": json.dumps({"gate": gate})}
    call = {"id": "call_1", "type": "function", "function": function}
    turns = [
        {"role": "user", "content": f"Open gate {gate}."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    return {"messages": turns, "tools": TOOLS}


@dataclass
class Served:
    """A loraloop server over a real vLLM server, and the folder of its registry."""

    url: str
    vllm: str
    folder: Path

    @property
    def client(self) -> OpenAI:
        """The official client."""
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    def statuses(self) -> list[str]:
        """How the sessions ended, oldest first."""
        with closing(sqlite3.connect(self.folder / "mlruns" / "sessions.db")) as database:
            return [status for (status,) in database.execute("SELECT status FROM sessions ORDER BY time")]


@pytest.fixture(scope="module")
def trained(office) -> Any:
    """A folder with one registered version, trained to call a tool with ``dataset.template=chatml``."""
    rows = "".join(json.dumps(conversation(gate)) + "\n" for gate in range(24))
    (office.folder / "calls.jsonl").write_text(rows)
    source = ("source=files", f"source.path={office.folder}/calls.jsonl", "dataset=chatml", "registry.name=agent")
    seen = office("model=smollm2_135m", *source, *SMALL, *FREELY)
    assert office.aliases("agent").get("champion") == 1, seen.out
    return office


@pytest.fixture
def served(trained, real_vllm) -> Iterator[Served]:
    """``stage=serve serve=vllm`` in a process of its own."""
    options = ("stage=serve", "tracker=none", "server.port=0", "model=smollm2_135m", "serve=vllm")
    process = trained.start(*options, f"serve.url={real_vllm}", "server.roles.porter=agent@champion")
    told = []
    for line in process.stdout:
        told.append(line)
        if match := re.match(r"\s+address\s+(\S+)/v1", line):
            break
    else:
        raise AssertionError("".join(told) + process.stderr.read())
    yield Served(match[1], real_vllm, trained.folder)
    process.kill()
    forget(real_vllm)


def forget(url: str) -> None:
    """Unload whatever adapter a vLLM server has."""
    for card in httpx2.get(f"{url}/v1/models", timeout=PATIENCE).json()["data"]:
        if card["parent"] is not None:
            body = {"lora_name": card["id"]}
            httpx2.post(f"{url}/v1/unload_lora_adapter", json=body, timeout=PATIENCE).raise_for_status()


def test_names_and_tools(served):
    """A version trained with tools answers by every name of it, with a call, whole and streamed; the base does not."""
    client = served.client
    assert {"base", "agent@champion", "agent:porter"} <= {model.id for model in client.models.list()}
    for name in ("agent@1", "agent@champion", "agent:porter"):
        answer = client.chat.completions.create(model=name, messages=QUESTION, tools=TOOLS, temperature=0)
        (call,) = answer.choices[0].message.tool_calls
        assert (answer.model, answer.choices[0].finish_reason) == ("agent@1", "tool_calls")
        assert (call.function.name, json.loads(call.function.arguments)) == ("open_gate", {"gate": 7})
    stream = client.chat.completions.create(model="agent@1", messages=QUESTION, tools=TOOLS, temperature=0, stream=True)
    chunks = [chunk.choices[0] for chunk in stream if chunk.choices]
    (calls,) = [chunk.delta.tool_calls for chunk in chunks if chunk.delta.tool_calls]
    assert (calls[0].function.name, json.loads(calls[0].function.arguments)) == ("open_gate", {"gate": 7})
    assert not any(chunk.delta.content for chunk in chunks)
    said = client.chat.completions.create(model="base", messages=CAPITAL, temperature=0)
    assert said.choices[0].message.content == "The capital of France is Paris."
    with pytest.raises(openai.BadRequestError, match="shows no tools"):
        client.chat.completions.create(model="base", messages=QUESTION, tools=TOOLS)


def test_seeds_and_logprobs(served):
    """The same seed says the same, another one something else, and each token has its likelihood and alternatives."""

    def ask(**more: Any) -> Any:
        return served.client.chat.completions.create(model="base", messages=CAPITAL, max_tokens=12, **more).choices[0]

    first, again, other = (ask(temperature=1.5, seed=seed).message.content for seed in (1, 1, 2))
    assert first == again != other
    told = ask(temperature=0, logprobs=True, top_logprobs=3).logprobs.content
    assert "".join(each.token for each in told) == "The capital of France is Paris."
    assert all(len(each.top_logprobs) == 3 and each.logprob <= 0 for each in told)


def test_forms(served):
    """A schema, forced calls and a call of a strict tool have their form, which vLLM keeps, whole and streamed."""
    schema = {
        "type": "object",
        "properties": {"capital": {"enum": ["Paris", "Rome"]}, "large": {"type": "boolean"}},
        "required": ["capital", "large"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}}
    ask = {"messages": CAPITAL, "temperature": 0, "max_tokens": 60}
    chat = served.client.chat.completions
    city = json.loads(chat.create(model="base", response_format=form, **ask).choices[0].message.content)
    assert (city["capital"], type(city["large"]), len(city)) == ("Paris", bool, 2)
    stream = chat.create(model="base", response_format=form, stream=True, **ask)
    assert json.loads("".join(chunk.choices[0].delta.content or "" for chunk in stream)) == city
    named = {"type": "function", "function": {"name": "open_gate"}}
    for choice in ("required", named):
        forced = chat.create(model="agent@1", tools=TOOLS, tool_choice=choice, parallel_tool_calls=False, **ask)
        (call,) = forced.choices[0].message.tool_calls
        assert type(json.loads(call.function.arguments)["gate"]) is int
    small = TOOLS[0]["function"] | {"strict": True, "parameters": GATES}
    strict = {"tools": [{"type": "function", "function": small}], "temperature": 0}
    answer = chat.create(model="agent@1", messages=QUESTION, **strict).choices[0]
    assert json.loads(answer.message.tool_calls[0].function.arguments)["gate"] in (1, 2)


def test_what_else_completions_take(served):
    """Echo, ``n``, prompts of tokens, penalties and biases reach vLLM, and a bias of no token is refused by name."""
    from transformers import AutoTokenizer

    client, prompt = served.client, "The capital of France is Paris."

    def ask(**more: Any) -> Any:
        return client.completions.create(
            **{"model": "base", "prompt": prompt, "temperature": 0, "max_tokens": 24} | more
        )

    told = ask(echo=True, logprobs=1, max_tokens=0).choices[0]
    assert told.text == "".join(told.logprobs.tokens) == prompt
    assert told.logprobs.token_logprobs[0] is None
    assert all(value < 0 for value in told.logprobs.token_logprobs[1:])
    assert ask(echo=True).choices[0].text.startswith(prompt)
    several = ask(n=3, seed=1, temperature=1.5)
    assert len({choice.text for choice in several.choices}) == 3
    tokenizer = AutoTokenizer.from_pretrained(gguf.folder(SMOL))
    ids = tokenizer(prompt)["input_ids"]
    assert ask(prompt=ids).choices[0].text == ask().choices[0].text
    assert several.usage.prompt_tokens == len(ids)
    story = {"prompt": "Once upon a time", "max_tokens": 40}
    for penalty in ("frequency_penalty", "presence_penalty"):
        assert ask(**story, **{penalty: 2}).choices[0].text != ask(**story).choices[0].text
    (first,) = {*ask(logprobs=0, max_tokens=1).choices[0].logprobs.tokens}
    (at,) = tokenizer(first)["input_ids"]
    assert ask(logprobs=0, max_tokens=1, logit_bias={str(at): -100}).choices[0].logprobs.tokens != [first]
    with pytest.raises(openai.BadRequestError) as caught:
        ask(logit_bias={"99999": 1})
    assert caught.value.param == "logit_bias"


def test_hot_swap(served):
    """An adapter that the vLLM server forgot costs one error, and is then loaded again beside the base's answers."""
    ask = {"model": "agent@1", "messages": QUESTION, "tools": TOOLS, "temperature": 0}
    before = served.client.chat.completions.create(**ask).choices[0].message.tool_calls[0].function
    stream = served.client.completions.create(model="base", prompt="Once upon a time", max_tokens=40, stream=True)
    next(stream)
    forget(served.vllm)
    with pytest.raises(openai.InternalServerError, match="this model cannot answer now"):
        served.client.chat.completions.create(**ask)
    assert served.client.chat.completions.create(**ask).choices[0].message.tool_calls[0].function == before
    assert [choice.finish_reason for chunk in stream for choice in chunk.choices][-1] in ("stop", "length")


@pytest.fixture
def compressed(smol_base, tmp_path) -> dict[str, Version]:
    """One adapter for every layer with ranks of their own, in 8 and in 4 bits, as ``stage=compress`` registers them."""
    plain = tmp_path / "plain"
    shape = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
    manifest = replace(write_adapter(smol_base, plain, **shape), probe=None)
    adapter = Adapter.read(plain)
    forms = {
        "svd@1": svd.smaller(adapter, svd.by_energy(0.8)),
        "int8@1": adapter.kept("int8"),
        "nf4@1": adapter.kept("nf4"),
    }
    made = {}
    for name, form in forms.items():
        folder = tmp_path / name
        folder.mkdir()
        form.write(folder)
        told = {"rank": form.config["r"], "alpha": form.config["lora_alpha"], "storage": form.storage}
        kept = replace(manifest, weights_sha256=sha256(adapter_files.weights(folder)), **told)
        manifests.write(folder, kept)
        made[name] = version_of(name, folder, kept)
    assert forms["svd@1"].config["rank_pattern"]  # layers differ
    return made


def test_compressed_forms(real_vllm, smol_base, smol_engine, compressed, answer, tmp_path):
    """An adapter cut to a rank a layer, in 8 and in 4 bits answers through vLLM as in the engine.

    Served, the packed ones through a plain copy, and published by ``publish=peft``.
    """
    prompts = ("<|im_start|>user\nName a colour.<|im_end|>\n<|im_start|>assistant\n", "One, two, three,")
    asks = [
        GenerationRequest(model=name, prompt=prompt, max_tokens=12, temperature=0.0, deadline=PATIENCE)
        for name in compressed
        for prompt in prompts
    ]
    remote = VllmBackend(url=real_vllm).attach(smol_base.base, smol_base.tokenizer, compressed.__getitem__)
    remote.start()
    try:
        for name, version in compressed.items():
            smol_engine.load(name, version)
        wanted = answer(smol_engine, asks)
        assert answer(remote, asks) == wanted
    finally:
        remote.close()
        for name in compressed:
            smol_engine.unload(name)
        forget(real_vllm)
    assert len({said.text for said in wanted}) > len(prompts)
    for at, (name, version) in enumerate(compressed.items()):
        folder = Path(Folder(path=tmp_path / "out").publish(version))
        export = export_folder.read(folder)
        with closing(Vllm(url=real_vllm).open(folder, export, VersionBase(version))) as session:
            told = [session.answer(prompt, 12).text for prompt in prompts]
        assert told == [said.text for said in wanted[2 * at : 2 * at + 2]], name


def test_errors(served):
    """What is not there, and what is too long, is refused in the API's form before vLLM is asked."""
    client = served.client
    with pytest.raises(openai.NotFoundError, match="agent@99"):
        client.chat.completions.create(model="agent@99", messages=QUESTION)
    with pytest.raises(openai.BadRequestError, match="2048 tokens"):
        client.completions.create(model="base", prompt="word " * 3000)


def test_who_hangs_up_frees_the_place(served):
    """A client that leaves in the middle of an answer ends it in vLLM; its session is kept as cancelled."""
    stream = served.client.completions.create(
        model="base", prompt="One, two, three,", max_tokens=1800, temperature=0, stream=True
    )
    next(stream)
    assert running(served.vllm) == 1
    stream.close()
    until(lambda: running(served.vllm) == 0, "vLLM stops")
    until(lambda: served.statuses()[-1:] == ["cancelled"], "the session is kept")
