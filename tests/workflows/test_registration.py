"""Adapters that were trained elsewhere."""

from __future__ import annotations

import asyncio
import json
import pickle
import re
import shutil
from pathlib import Path

import pytest

from loraloop.model.causal import BUNDLED

PROMPT = "Twelve vaults\n> "


class Trap:
    """A pickle of this leaves a file where it is loaded."""

    def __reduce__(self):
        return Path.touch, (Path("loaded"),)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A folder that PEFT wrote, beside a trainer's pickles."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("peft") / "checkpoint-5"
    torch.manual_seed(0)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(BUNDLED / "tiny"), config).save_pretrained(folder)
    (folder / "training_args.bin").write_bytes(pickle.dumps(Trap()))
    return folder


@pytest.fixture
def folder(plain, tmp_path):
    """A copy of it that may be changed."""
    return Path(shutil.copytree(plain, tmp_path / "adapter"))


def answer_of_peft(folder) -> str:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(BUNDLED / "tiny")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BUNDLED / "tiny"), folder).eval()
    ids = tokenizer(PROMPT, return_tensors="pt")
    made = model.generate(**ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
    return str(tokenizer.decode(made[0, ids.input_ids.shape[1] :], skip_special_tokens=True))


def answer_of_server(version) -> str:

    from loraloop.model.causal import CausalLM
    from loraloop.records import GenerationRequest
    from loraloop.serve.local import LocalBackend

    engine = LocalBackend().attach(CausalLM(name="bundled:tiny").load(), lambda name: version)
    engine.start()
    request = GenerationRequest(model="theirs@1", prompt=PROMPT, max_tokens=8, temperature=0)

    async def text() -> str:
        return "".join([chunk.text async for chunk in engine.generate(request)])

    try:
        return asyncio.run(text())
    finally:
        engine.close()


def test_a_folder_of_peft_becomes_a_version_that_is_served_and_published(office, plain):
    """A folder without a manifest is registered as candidate, answers in the server as in PEFT, and is published.

    Its manifest holds what can be known; data and run are said to be unknown; nothing pickled is loaded or copied.
    """
    from loraloop.registry.mlflow import MlflowRegistry

    seen = office("stage=register", f"adapter={plain}", "registry.name=theirs", "tracker.system_metrics=false")
    assert seen.line("registry") == "theirs version 1 (candidate)"
    assert seen.line("not known") == "its data and its run: the folder does not say"
    assert seen.line("gate").startswith("not measured")
    version = MlflowRegistry(name="theirs", folder=office.folder / "mlruns").resolve("1")
    manifest = version.manifest
    assert (manifest.rank, manifest.alpha, manifest.targets) == (2, 4.0, ("q_proj", "v_proj"))
    assert (manifest.dataset_fingerprint, manifest.run_id, manifest.base.name) == (None, None, "bundled:tiny")
    assert manifest.probe is not None
    files = {"adapter_config.json", "adapter_model.safetensors", "manifest.json"}
    assert {path.name for path in version.path.iterdir()} == files
    assert not (office.folder / "loaded").exists()
    assert answer_of_server(version) == answer_of_peft(plain) != ""
    again = office("stage=register", f"adapter={plain}", "registry.name=theirs", "tracker=none")
    assert again.line("registry") == "theirs version 1 (candidate), registered before"
    office("stage=publish", "publish=folder", "publish.path=out", "adapter=models:/theirs/1")
    card = (office.folder / "out" / "theirs-v1" / "README.md").read_text()
    assert "trained elsewhere" in card
    assert "| dataset fingerprint | not known |" in card
    published = office("stage=register", "adapter=out/theirs-v1", "registry.name=back", "tracker=none")
    assert published.line("registry") == "back version 1 (candidate)"


def change(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def cut(folder):
    """Take the last tensor away."""
    from safetensors.numpy import load_file, save_file

    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors.pop(sorted(tensors)[-1])
    save_file(tensors, path)


def pickled(folder):
    """Weights of an earlier PEFT."""
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Trap()))


REFUSED = {
    "another base": (lambda f: change(f, base_model_name_or_path="org/other-1B"), "model.name=org/other-1B"),
    "another shape": (lambda f: change(f, r=4), "has the wrong shape in 16 tensors"),
    "a tensor is missing": (cut, "lacks 1 tensors"),
    "a changed base": (lambda f: change(f, init_lora_weights="pissa_niter_4"), "path_initial_model_for_weight_conver"),
    "no LoRA": (lambda f: change(f, peft_type="IA3"), "peft_type='IA3', and only LORA"),
    "no rank": (lambda f: change(f, r=None), "r=None and lora_alpha=4, which must be numbers"),
    "DoRA": (lambda f: change(f, use_dora=True), "sets use_dora, which cannot be served"),
    "pickled weights": (pickled, "adapter_model.bin is a pickle.*never read: .* save_pretrained"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_adapter_that_cannot_be_served_is_refused_with_the_way_out(office, folder, case):
    """Another base, shape, kind or format than a server loads is refused, named, and nothing is registered."""
    damage, words = REFUSED[case]
    damage(folder)
    seen = office.attempt("stage=register", f"adapter={folder}", "registry.name=refused", "tracker=none")
    assert seen.code == 1
    assert re.search(words, seen.err), seen.err
    assert not (office.folder / "mlruns" / "refused.ledger.jsonl").exists()
    assert not (office.folder / "loaded").exists()


def test_the_base_may_have_another_folder_or_no_name(office, folder):
    """A base is recognised by the last part of its name, and one that is not named is said to be unknown."""
    change(folder, base_model_name_or_path="/elsewhere/Tiny/")
    office("stage=register", f"adapter={folder}", "registry.name=named", "tracker=none")
    change(folder, base_model_name_or_path=None, lora_alpha=8)
    seen = office("stage=register", f"adapter={folder}", "registry.name=named", "tracker=none")
    assert seen.line("not known").startswith("its data and its run, and the name of its base, whose shapes fit")


@pytest.mark.parametrize("given", [(), ("run=a", "adapter=b")])
def test_exactly_one_thing_is_registered(desk, given):
    """Neither a run nor a folder, or both, is an error that names the two."""
    seen = desk.attempt("stage=register", *given)
    assert seen.code == 2
    assert "run=RUN for an earlier run, or adapter=FOLDER" in seen.err
