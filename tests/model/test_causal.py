"""Loading base models: what is read, what is refused, and what is never run."""

from __future__ import annotations

import hashlib
import itertools
import json
import pickle
import shutil
import socket
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from loraloop.errors import ConfigError, ModelError
from loraloop.model import causal
from loraloop.model.causal import BUNDLED, CausalLM
from loraloop.model.pretraining import LOG, Pretraining
from waiting import PATIENCE

SMALL = {
    "model_type": "llama",
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
LLAMA_7B = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
}


def same_weights(first, second):
    import torch

    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_bundled_model_is_the_trained_one(bundled):
    """On tasks that it has not seen, ``bundled:tiny`` has the loss that its training ended with."""
    import torch

    losses = []
    recipe = Pretraining(output="unused", steps=1, seed=1)
    for ids, labels in itertools.islice(recipe._batches(recipe._second()), 16):
        with torch.no_grad():
            logits = bundled.model(ids).logits[:, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten()).item())
    log = json.loads((BUNDLED / "tiny" / LOG).read_text())
    assert np.mean(losses) == pytest.approx(log["counting_last_loss"], abs=0.05)
    assert not bundled.model.training


def test_the_identity_is_the_hash_of_the_files(bundled):
    """The base's SHA-256 is over the names and hashes of ``config.json`` and the weights, by nothing else."""
    folder = BUNDLED / "tiny"
    lines = [
        f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}"
        for name in ("config.json", "model.safetensors")
    ]
    assert bundled.base.sha256 == hashlib.sha256("\n".join(lines).encode()).hexdigest()
    template = (folder / "chat_template.jinja").read_text()
    assert bundled.base.chat_template_sha256 == hashlib.sha256(template.encode()).hexdigest()
    assert (bundled.base.name, bundled.base.revision) == ("bundled:tiny", None)
    assert (bundled.base.weights, bundled.base.quantization, bundled.base.dtype) == ("pretrained", "none", "float32")


def test_loading_twice_gives_one_identity(bundled):
    """The same name has the same identity and the same weights every time."""
    again = CausalLM(name="bundled:tiny").load()
    assert again.base == bundled.base
    assert same_weights(again.model, bundled.model)


def test_a_saved_folder_is_the_same_model(bundled, saved):
    """A folder that ``save_pretrained`` wrote loads with equal weights, tokenizer and chat template."""
    loaded = CausalLM(name=str(saved)).load()
    assert same_weights(loaded.model, bundled.model)
    assert loaded.base.tokenizer_sha256 == bundled.base.tokenizer_sha256
    assert loaded.base.chat_template_sha256 == bundled.base.chat_template_sha256
    assert loaded.base.sha256 != bundled.base.sha256  # float32 on disk, not bfloat16


def test_a_tokenizer_needs_no_weights(saved, tmp_path):
    """A folder without weights gives the tokenizer, and the identity but for that of the weights."""
    for path in saved.glob("*.json"):
        shutil.copy(path, tmp_path)
    base, tokenizer = CausalLM(name=str(tmp_path)).tokenizer()
    whole = CausalLM(name=str(saved)).load()
    assert tokenizer("Heads")["input_ids"] == whole.tokenizer("Heads")["input_ids"]
    assert (base.tokenizer_sha256, base.sha256) == (whole.base.tokenizer_sha256, "")


def test_another_weight_is_another_identity(saved, damaged):
    """One changed byte of the weights changes the identity."""
    folder = damaged()
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assert CausalLM(name=str(folder)).load().base.sha256 != CausalLM(name=str(saved)).load().base.sha256


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_truncated_weights_are_a_model_error(damaged, share):
    """A weights file that ends early is refused by name, wherever it ends."""
    folder = damaged()
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=r"model\.name=.*damaged cannot be loaded"):
        CausalLM(name=str(folder)).load()


def test_pickled_weights_are_refused_unread(damaged, tmp_path):
    """A folder with ``pytorch_model.bin`` alone is refused, and what is pickled in it never runs."""
    folder, ran = damaged(), tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return Path.touch, (ran,)

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(
        ModelError, match=r"has only pytorch_model\.bin, a pickle, which is never read\. .*save_pretrained"
    ):
        CausalLM(name=str(folder)).load()
    assert not ran.exists()


@pytest.mark.parametrize("kind", ["intruder", "llama"])
def test_code_of_a_folder_never_runs(damaged, tmp_path, kind):
    """A folder that brings Python for its model and tokenizer is loaded without it or refused, never run."""
    folder, ran = damaged(model_type=kind), tmp_path / "ran"
    code = "from pathlib import Path\n" + f"Path({str(ran)!r}).touch()\n" + "class Config: ...\nclass Model: ...\n"
    (folder / "intruder.py").write_text(code)
    classes = {"AutoConfig": "intruder.Config", "AutoModelForCausalLM": "intruder.Model"}
    classes["AutoTokenizer"] = ["intruder.Model", None]
    for file in (folder / "config.json", folder / "tokenizer_config.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"auto_map": classes}))
    part = CausalLM(name=str(folder))
    for load in (part.skeleton, part.load):
        if kind == "llama":
            assert type(load().model).__module__.startswith("transformers.")
        else:
            with pytest.raises(ModelError, match="custom code"):
                load()
    assert not ran.exists()


def test_weights_that_the_configuration_lacks_are_not_made_up(damaged):
    """A configuration with more layers than the file holds is refused instead of filled with random numbers."""
    with pytest.raises(ModelError, match="lack 18 weights"):
        CausalLM(name=str(damaged(num_hidden_layers=6))).load()


def test_weights_of_another_shape_are_a_model_error(damaged):
    """A configuration of another width than the weights is refused."""
    with pytest.raises(ModelError, match="cannot be loaded"):
        CausalLM(name=str(damaged(hidden_size=64, head_dim=16))).load()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_damaged_description_is_a_model_error(damaged, name):
    """A cut configuration or tokenizer is named in a ModelError, by the dry run too."""
    folder = damaged()
    (folder / name).write_text('{"model_type": "lla')
    for load in (CausalLM(name=str(folder)).skeleton, CausalLM(name=str(folder)).load):
        with pytest.raises(ModelError, match="cannot be loaded"):
            load()


def test_a_folder_without_configuration_is_refused_by_the_check(tmp_path):
    """A folder that holds no ``config.json`` is refused before any work, with the way out."""
    with pytest.raises(ConfigError, match=r"holds no config\.json; name a folder that save_pretrained wrote"):
        CausalLM(name=str(tmp_path)).check()


@pytest.mark.parametrize("name", ["a/b/c", "../nowhere", "no such model", "bundled"])
def test_a_name_that_is_neither_folder_nor_id_is_one_problem(name):
    """A name that can be nothing, or that cannot be reached, is one ConfigError that repeats it."""
    with pytest.raises(ConfigError) as error:
        CausalLM(name=name).check()
    (problem,) = error.value.problems
    assert problem.startswith(f"model.name={name} ")


def test_an_impossible_id_is_told_the_form():
    """A name that no hub can hold is told the form of an id, without asking the hub."""
    with pytest.raises(ConfigError, match="neither a folder that exists nor an id of the form ORG/NAME"):
        CausalLM(name="a/b/c").check()


def test_an_unknown_bundled_model_lists_what_there_is():
    """``bundled:`` with another name says which models the package holds."""
    with pytest.raises(ConfigError, match=r"bundled:huge is not in the package; it holds bundled:tiny$"):
        CausalLM(name="bundled:huge").check()


@pytest.fixture
def silent(monkeypatch):
    """A hub that takes connections and never answers."""
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def take() -> None:
            try:
                while True:
                    held.append(server.accept()[0])
            except OSError:
                return

        threading.Thread(target=take, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield held
        server.shutdown(socket.SHUT_RDWR)
    for connection in held:
        connection.close()


def test_a_silent_hub_is_given_up(silent, monkeypatch):
    """A hub that accepts and never answers ends in one ConfigError while it still holds the connection."""
    assert causal.HUB_SECONDS <= 15
    monkeypatch.setattr(causal, "HUB_SECONDS", 0.5)
    errors: list[ConfigError] = []

    def check() -> None:
        try:
            CausalLM(name="nobody/nothing", revision="abc").check()
        except ConfigError as error:
            errors.append(error)

    thread = threading.Thread(target=check, daemon=True)
    thread.start()
    thread.join(timeout=PATIENCE)
    assert silent, "the hub was asked"
    ((problem,),) = (error.problems for error in errors)
    assert "model.name=nobody/nothing model.revision=abc is not in the local cache" in problem
    assert "give a local folder as model.name" in problem


def test_a_hub_that_cannot_be_reached_is_one_problem(monkeypatch):
    """No route to the hub: the check refuses in one sentence, and loading anyway is a ModelError."""
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed}")
    part = CausalLM(name="nobody/nothing")
    with pytest.raises(ConfigError, match="the hub cannot be reached") as error:
        part.check()
    assert len(error.value.problems) == 1
    with pytest.raises(ModelError, match="could not be fetched"):
        part.load()


def test_all_clashes_of_a_machine_without_a_gpu_are_told_at_once(tmp_path, monkeypatch):
    """A GPU asked for in vain, FlashAttention, double quantisation of nothing and no model are one error's problems."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    part = CausalLM(
        name=str(tmp_path),
        requires_gpu=True,
        attention="flash_attention_2",
        quantization="none",
        double_quantization=True,
    )
    with pytest.raises(ConfigError) as error:
        part.check()
    double, gpu, attention, folder = error.value.problems
    assert "model.double_quantization=true needs model.quantization=nf4" in double
    assert "model.requires_gpu=true and this machine has no CUDA GPU" in gpu
    assert "model.requires_gpu=false to try it on the CPU" in gpu
    assert "model.attention=flash_attention_2 needs a CUDA GPU" in attention
    assert "no config.json" in folder


@pytest.mark.parametrize(
    ("gpu", "quantization", "dtype"), [(False, "none", "float32"), (True, "nf4-double", "bfloat16")]
)
def test_auto_is_what_the_machine_has(monkeypatch, gpu, quantization, dtype):
    """``model=hub`` is float32 without quantisation on a CPU, and NF4 with bf16 on a GPU; nothing has to be set."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    hub = yaml.safe_load((Path(__file__).parents[2] / "conf" / "model" / "hub.yaml").read_text("utf8"))
    settings = {key: value for key, value in hub.items() if key not in {"_target_", "seed"}}
    part = CausalLM(**settings | {"name": "bundled:tiny"})
    part.check()
    base = part.skeleton().base
    assert (base.quantization, base.dtype) == (quantization, dtype)


def test_random_weights_need_no_network(silent):
    """``weights=random`` with an ``architecture`` is checked and built without asking the hub."""
    part = CausalLM(name="nobody/nothing", weights="random", architecture=SMALL)
    part.check()
    loaded = part.load()
    assert not silent
    assert loaded.base.weights == "random"
    assert loaded.model.config.hidden_size == 32
    assert loaded.tokenizer("A")["input_ids"] == [256, 65]


def test_random_weights_are_the_seeds():
    """A seed gives the same random weights every time, another seed others, and the caller's draws stay its own."""
    import torch

    part = CausalLM(name="nobody/nothing", weights="random", architecture=SMALL, seed=3)
    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    first = part.load()
    assert torch.equal(torch.rand(4), expected)
    assert same_weights(first.model, part.load().model)
    assert not same_weights(first.model, replace(part, seed=4).load().model)


def test_random_weights_of_a_local_configuration(damaged):
    """``weights=random`` with a folder needs its configuration and tokenizer, not its weights."""
    folder = damaged()
    (folder / "model.safetensors").unlink()
    part = CausalLM(name=str(folder), weights="random")
    part.check()
    assert part.load().base.weights == "random"


def test_a_skeleton_has_shapes_and_no_storage():
    """The dry run's Llama-2-7B has its published 6,738,415,616 parameters, and not one byte of them is allocated."""
    loaded = CausalLM(name="nobody/nothing", weights="random", architecture=LLAMA_7B).skeleton()
    tensors = [*loaded.model.parameters(), *loaded.model.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == 6_738_415_616


def test_a_skeleton_has_the_models_names_and_tokenizer(bundled):
    """The skeleton names and shapes the layers as the loaded model does, and tokenises alike."""
    skeleton = CausalLM(name="bundled:tiny").skeleton()
    shapes = [{name: p.shape for name, p in each.model.named_parameters()} for each in (skeleton, bundled)]
    assert shapes[0] == shapes[1]
    assert skeleton.base == replace(bundled.base, sha256="")
