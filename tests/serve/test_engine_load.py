"""What is loaded, what is refused, and who has to go, while others are being answered."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loraloop.errors import ArtefactError, BusyError, ModelError, RegistryError
from loraloop.records import GenerationRequest, Probe, Version

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
COPY = GenerationRequest(
    model="base", prompt="copy\nopen the old brass gate 0123456789\n> ", max_tokens=40, temperature=0.0
)


class Spoiled:
    """A copy of a sound version to be spoiled; the manifest follows wherever a careful forger would have changed it."""

    def __init__(self, sound: Version, folder: Path) -> None:
        shutil.copytree(sound.path, folder)
        self.folder, self.manifest = folder, sound.manifest

    @property
    def version(self) -> Version:
        """What the folder and the manifest say now."""
        return Version(name="bad", number=1, aliases=(), path=self.folder, manifest=self.manifest)

    def tensors(self, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Rewrite the weights, the manifest's hash with them."""
        from safetensors.torch import load_file, save_file

        path = self.folder / WEIGHTS
        save_file(dict(change(load_file(path))), path)
        self.rehash()

    def rehash(self) -> None:
        """Let the manifest name the weights as they are."""
        found = hashlib.sha256((self.folder / WEIGHTS).read_bytes()).hexdigest()
        self.manifest = replace(self.manifest, weights_sha256=found)

    def config(self, **changes: Any) -> None:
        """Change settings of PEFT's configuration."""
        path = self.folder / CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


KINDS: dict[str, Callable[[Spoiled], str]] = {}


def spoils(way: Callable[[Spoiled], str]) -> Callable[[Spoiled], str]:
    """Keep a way to spoil an adapter; it returns what the error must say."""
    KINDS[way.__name__] = way
    return way


@spoils
def missing(bad: Spoiled) -> str:
    (bad.folder / WEIGHTS).unlink()
    return "lacks adapter_model.safetensors"


@spoils
def cut(bad: Spoiled) -> str:
    path = bad.folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    return "altered or cut short"


@spoils
def cut_and_hashed(bad: Spoiled) -> str:
    cut(bad)
    bad.rehash()
    return "truncated or no safetensors file"


@spoils
def prefix(bad: Spoiled) -> str:
    bad.tensors(lambda found: {name.removeprefix("base_model."): each for name, each in found.items()})
    return "lacks .* tensors.*does not belong with"


@spoils
def other_base(bad: Spoiled) -> str:
    bad.manifest = replace(bad.manifest, base=replace(bad.manifest.base, sha256="f" * 64))
    return "was trained on bundled:tiny with sha256 ffffffffffff"


@spoils
def other_tokenizer(bad: Spoiled) -> str:
    bad.manifest = replace(bad.manifest, base=replace(bad.manifest.base, tokenizer_sha256="f" * 64))
    return "tokenizer_sha256"


@spoils
def other_quantisation(bad: Spoiled) -> str:
    bad.manifest = replace(bad.manifest, base=replace(bad.manifest.base, quantization="nf4"))
    return "with quantization nf4, and the base that is served, bundled:tiny, has none"


@spoils
def nan(bad: Spoiled) -> str:
    bad.tensors(lambda found: found | {min(found): found[min(found)] * float("nan")})
    return "hold NaN or infinity"


@spoils
def huge(bad: Spoiled) -> str:
    bad.tensors(lambda found: {name: each * 1e30 for name, each in found.items()})
    return "logits that are not finite"


@spoils
def tampered(bad: Spoiled) -> str:
    path = bad.folder / WEIGHTS
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    return "altered or cut short"


@spoils
def pickled(bad: Spoiled) -> str:
    (bad.folder / WEIGHTS).unlink()
    (bad.folder / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(bad.folder / "ran")))
    return "lacks adapter_model.safetensors; it holds .*adapter_model.bin"


@spoils
def pickle_by_name(bad: Spoiled) -> str:
    (bad.folder / WEIGHTS).write_bytes(pickle.dumps(Bomb(bad.folder / "ran")))
    bad.rehash()
    return "no safetensors file"


@spoils
def rank(bad: Spoiled) -> str:
    bad.config(rank_pattern={"v_proj": 65})
    bad.tensors(lambda found: {name: _grown(name, each, 65) for name, each in found.items()})
    return "has rank 65 and serve.max_rank=64"


@spoils
def shape(bad: Spoiled) -> str:
    bad.tensors(lambda found: {name: _grown(name, each, 5) for name, each in found.items()})
    return "has the wrong shape in"


@spoils
def one_less(bad: Spoiled) -> str:
    bad.tensors(lambda found: {name: found[name] for name in sorted(found)[1:]})
    return "lacks 1 tensors"


@spoils
def one_more(bad: Spoiled) -> str:
    bad.tensors(lambda found: found | {"base_model.model.lm_head.weight": found[min(found)].clone()})
    return "does not belong with 1 tensors, first base_model.model.lm_head.weight"


@spoils
def target(bad: Spoiled) -> str:
    bad.config(target_modules=["query"])
    return "does not fit the base: .*query"


@spoils
def dora(bad: Spoiled) -> str:
    bad.config(use_dora=True)
    return "sets use_dora, which cannot be served beside others"


@spoils
def bias(bad: Spoiled) -> str:
    bad.config(bias="all")
    return "sets bias, which cannot"


@spoils
def code(bad: Spoiled) -> str:
    bad.config(auto_mapping=None, layer_replication=[[0, 4]])
    return "sets layer_replication"


@spoils
def no_json(bad: Spoiled) -> str:
    (bad.folder / CONFIG).write_text("[1]")
    return "is no LoRA configuration"


@spoils
def alpha(bad: Spoiled) -> str:
    bad.config(lora_alpha=80)
    return "differs from the manifest: lora_alpha=80, not 8"


@spoils
def scaling(bad: Spoiled) -> str:
    bad.config(use_rslora=True)
    return "does not answer as it did when it was trained"


@spoils
def answers_otherwise(bad: Spoiled) -> str:
    probe = bad.manifest.probe
    assert probe is not None
    bad.manifest = replace(bad.manifest, probe=replace(probe, logits=tuple(each + 1 for each in probe.logits)))
    return "a probe's logit is 1 off"


@spoils
def nothing(bad: Spoiled) -> str:
    bad.tensors(lambda found: {name: each * ("lora_A" in name) for name, each in found.items()})
    bad.manifest = replace(bad.manifest, probe=None)
    return "exactly like the base"


class Bomb:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def _grown(name: str, tensor: Any, rank: int) -> Any:
    import torch

    if "v_proj" not in name:
        return tensor
    shape = (rank, tensor.shape[1]) if "lora_A" in name else (tensor.shape[0], rank)
    return torch.ones(shape) * 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_adapter_is_refused_and_leaves_nothing(shared_engine, versions, base, tmp_path, kind):
    """Whatever is wrong with an adapter, the error says it, no name is routed, no code ran, the model is as before."""
    bad = Spoiled(versions["ocr@1"], tmp_path / "bad")
    why = KINDS[kind](bad)
    before = list(shared_engine.loaded())
    with pytest.raises(ModelError, match=why):
        shared_engine.load("bad@1", bad.version)
    assert shared_engine.loaded() == before
    assert not (bad.folder / "ran").exists()
    assert not [module for module in base.model.modules() if "forward" in module.__dict__]


def test_a_template_that_reaches_beyond_its_placeholders(shared_engine, versions, backend):
    """A manifest's template is held to the rule of templates: the adapter is not loaded, and nothing is rendered."""
    for template in ("{input:>1000000000}", "{input.__class__}", "{0}", "{"):
        sound = versions["ocr@1"]
        bad = replace(sound, name="bad", manifest=replace(sound.manifest, template=template))
        with pytest.raises(ArtefactError, match="bad@1: the prompt template of its manifest is refused"):
            shared_engine.load("bad@1", bad)
        other = backend(resolve=lambda name, bad=bad: bad)
        with pytest.raises(ArtefactError, match="is refused"):
            other.render([{"role": "user", "content": "x"}], "bad@1")
        with pytest.raises(ArtefactError, match="is refused"):
            other.prepare("bad@1")
        assert other.loaded() == ["base"]


def test_fifty_bad_adapters_disturb_nobody(backend, versions, answer, said, tmp_path):
    """While 50 bad adapters are loaded, one after the other, every live answer is the one that it would be alone."""
    engine = backend(*versions.values())
    live = [
        replace(COPY, model=model, temperature=temperature, seed=seed)
        for seed, (model, temperature) in enumerate(itertools.product(["base", *versions], [0.0, 1.2]))
    ]
    expected = answer(engine, live, together=False)
    bad = []
    for number, spoil in zip(range(50), itertools.cycle(KINDS.values()), strict=False):
        spoiled = Spoiled(versions["ocr@1"], tmp_path / str(number))
        bad.append((spoil(spoiled), spoiled.version))

    async def go() -> int:
        loading = asyncio.ensure_future(asyncio.to_thread(load_all))
        answered = 0
        while not loading.done() or not answered:
            found = await asyncio.gather(*(said(engine.generate(ask)) for ask in live))
            assert found == expected
            answered += len(found)
        await loading
        return answered

    def load_all() -> None:
        for why, version in bad:
            with pytest.raises(ModelError, match=why):
                engine.load("bad@1", version)

    assert asyncio.run(go()) >= len(live)
    assert engine.loaded() == ["base", *sorted(versions, key=list(engine.loaded()).index)]
    assert engine.stats()["refused"] == 50
    assert engine.stats()["loads"] == len(versions)


@pytest.fixture(scope="module")
def shared_engine(base, versions):

    from loraloop.serve.local import LocalBackend

    engine = LocalBackend().attach(base)
    engine.start()
    yield engine
    engine.close()


def test_an_adapter_that_changes_nothing_may_say_so(backend, versions, answer, tmp_path):
    """An adapter with B = 0 is served when training recorded that it answers like the base."""
    idle = Spoiled(versions["ocr@1"], tmp_path / "idle")
    nothing(idle)
    engine = backend()
    with pytest.raises(ModelError, match="exactly like the base"):
        engine.load("idle@1", idle.version)
    sound = versions["ocr@1"].manifest.probe
    logits = _base_logits(engine, sound)
    engine.load("idle@1", replace(idle.version, manifest=replace(idle.manifest, probe=replace(sound, logits=logits))))
    one, other = answer(engine, [COPY, replace(COPY, model="idle@1")])
    assert one == other


def _base_logits(engine, probe: Probe) -> tuple[float, ...]:
    import torch

    model, tokenizer = engine._loaded.model, engine._loaded.tokenizer
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer(probe.prompt)["input_ids"]])).logits[0, -1]
    return tuple(logits[list(probe.tokens)].tolist())


def test_a_manifest_without_a_probe_is_served(backend, versions, answer):
    """An adapter from before probes were recorded is served, as long as it differs from the base."""
    old = replace(versions["ocr@2"], manifest=replace(versions["ocr@2"].manifest, probe=None))
    engine = backend(old)
    recorded, told = answer(engine, [COPY, replace(COPY, model="ocr@2")])
    assert recorded.text != told.text


def test_a_swap_lets_the_old_one_finish(backend, versions, answer, said):
    """An answer goes on with the adapter that it began with; whoever asks after the swap gets the new one."""
    engine = backend(versions["ocr@1"])
    ask = replace(COPY, model="ocr@1")
    (old,) = answer(engine, [ask])
    (new,) = answer(backend(versions["ocr@2"]), [replace(COPY, model="ocr@2")])

    async def go():
        chunks = engine.generate(ask)
        first = await anext(chunks)
        await asyncio.to_thread(engine.load, "ocr@1", versions["ocr@2"])
        after = asyncio.ensure_future(said(engine.generate(ask)))

        async def whole():
            yield first
            async for chunk in chunks:
                yield chunk

        return await said(whole()), await after

    assert asyncio.run(go()) == (old, new)
    assert old.text != new.text
    assert engine.stats()["resident"] == 1


def test_an_unloaded_adapter_finishes_its_answer(backend, versions, answer):
    """Unloading lets an answer in progress end; afterwards the name is unknown."""
    engine = backend(versions["ocr@1"])
    ask = replace(COPY, model="ocr@1")
    (whole,) = answer(engine, [ask])

    async def go() -> str:
        chunks = engine.generate(ask)
        text = (await anext(chunks)).text
        engine.unload("ocr@1")
        return text + "".join([chunk.text async for chunk in chunks])

    assert asyncio.run(go()) == whole.text
    assert engine.loaded() == ["base"]
    with pytest.raises(ModelError, match="not loaded"):
        engine.unload("ocr@1")
    with pytest.raises(ModelError, match="not loaded"):
        answer(engine, [ask])


def test_adapters_come_in_by_use(backend, versions, answer):
    """A registered version is loaded when it is asked for, and the least recently used one makes room."""
    engine = backend(resolve=versions.__getitem__, max_adapters=2)
    for name in ("ocr@1", "ocr@2", "ocr@1", "action@1"):
        answer(engine, [replace(COPY, model=name, max_tokens=1)])
    assert engine.loaded() == ["base", "ocr@1", "action@1"]
    counted = {name: engine.stats()[name] for name in ("hits", "misses", "loads", "evictions", "resident")}
    assert counted == {"hits": 1, "misses": 3, "loads": 3, "evictions": 1, "resident": 2}


def test_one_load_serves_all_who_wait_for_it(backend, versions, answer):
    """Requests for one version that arrive together wait for one load of it."""
    engine = backend(resolve=versions.__getitem__)
    found = answer(engine, [replace(COPY, model="ocr@2")] * 5)
    assert len(set(found)) == 1
    assert engine.stats()["loads"] == 1


def test_who_is_answering_is_not_put_out(backend, versions, answer):
    """An adapter that is answering keeps its place; a request for another one waits for it, a person does not."""
    engine = backend(resolve=versions.__getitem__, max_adapters=1)
    asked = [replace(COPY, model=name) for name in ("ocr@1", "ocr@2")]
    alone = [each.text for each in answer(engine, asked, together=False)]
    answer(engine, asked[:1])

    async def go() -> list[str]:
        chunks, others = map(engine.generate, asked)
        text = (await anext(chunks)).text
        waiting = asyncio.ensure_future(anext(others))
        with pytest.raises(BusyError, match="all 1 places for adapters"):
            await asyncio.to_thread(engine.load, "action@1", versions["action@1"])
        assert not waiting.done()
        text += "".join([chunk.text async for chunk in chunks])
        return [text, (await waiting).text + "".join([chunk.text async for chunk in others])]

    assert asyncio.run(go()) == alone
    assert engine.loaded() == ["base", "ocr@2"]


def test_a_request_without_a_place_for_its_adapter_is_refused_at_its_deadline(backend, versions):
    """Where every adapter in memory goes on answering, a request for another one ends in a BusyError."""
    engine = backend(resolve=versions.__getitem__, max_adapters=1)

    async def go() -> None:
        chunks = engine.generate(replace(COPY, model="ocr@1"))
        await anext(chunks)
        with pytest.raises(BusyError, match="no place for ocr@2 came free"):
            await anext(engine.generate(replace(COPY, model="ocr@2", deadline=0.1)))
        await chunks.aclose()

    asyncio.run(go())


def test_what_the_resolver_refuses_is_told(backend, answer):
    """An error of the registry reaches whoever asked, and no place is lost by it."""

    def resolve(name: str) -> Version:
        raise RegistryError(f"{name} does not exist")

    engine = backend(resolve=resolve, max_batch=1, max_queue=0)
    for _ in range(3):
        with pytest.raises(RegistryError, match="ocr@9 does not exist"):
            answer(engine, [replace(COPY, model="ocr@9")])
    assert answer(engine, [COPY])[0].text
