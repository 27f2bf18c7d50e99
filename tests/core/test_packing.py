"""Adapter weights in 8 and 4 bits."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloop.core import adapter_files, packing
from loraloop.errors import ModelError

NAMES = ("base_model.model.x.lora_A.weight", "base_model.model.x.lora_B.weight")

SHAPES = given(rank=st.integers(1, 9), inputs=st.integers(1, 70), outputs=st.integers(1, 70), seed=st.integers(0, 9))


def matrices(rank, inputs, outputs, seed=0):
    import torch

    generator = torch.Generator().manual_seed(seed)
    shapes = ((rank, inputs), (outputs, rank))
    return {name: torch.randn(*shape, generator=generator) for name, shape in zip(NAMES, shapes, strict=True)}


@SHAPES
def test_int8_is_off_by_half_a_step_at_most(rank, inputs, outputs, seed):
    """Each value comes back within half of its component's step, which is its largest value over 127."""
    before = matrices(rank, inputs, outputs, seed)
    after = packing.unpack(packing.pack(before, "int8"))
    assert before.keys() == after.keys()
    for name, value in before.items():
        inner = 1 if value.shape[0] <= value.shape[1] else 0
        step = value.abs().amax(dim=inner, keepdim=True) / 127
        assert bool(((after[name] - value).abs() <= step * 0.501).all())


@SHAPES
def test_nf4_comes_back_in_its_shape_and_near(rank, inputs, outputs, seed):
    """A matrix of any shape comes back within the widest half step of NF4 (0.152 of its block's largest value)."""
    before = matrices(rank, inputs, outputs, seed)
    after = packing.unpack(packing.pack(before, "nf4"))
    for name, value in before.items():
        assert after[name].shape == value.shape
        assert float((after[name] - value).abs().max()) <= 0.153 * float(value.abs().max())


@pytest.mark.parametrize(("storage", "share"), [("int8", 0.26), ("nf4", 0.16)])
def test_a_packed_folder_is_read_by_peft_through_a_plain_one(tmp_path, storage, share):
    """A packed file is as small as its bits say, is not named as PEFT's, and gives the tensors and a plain folder."""
    import torch
    from safetensors.torch import load_file

    before = matrices(16, 512, 512)
    config = json.dumps({"r": 16}).encode()
    adapter_files.write(tmp_path, before, config, storage)
    file = adapter_files.weights(tmp_path)
    assert file.name == adapter_files.PACKED
    assert not (tmp_path / adapter_files.WEIGHTS).exists()
    assert file.stat().st_size < share * sum(value.numel() * 4 for value in before.values())
    after = adapter_files.tensors(tmp_path)
    with adapter_files.plain(tmp_path) as folder:
        plain = load_file(folder / adapter_files.WEIGHTS)
        assert (folder / adapter_files.CONFIG).read_bytes() == config
    assert not folder.exists()
    kept = adapter_files.plain_copy(tmp_path)
    assert all(torch.equal(after[name], plain[name]) for name in before)
    assert adapter_files.plain_copy(kept) == kept


def test_a_packed_file_without_its_scales_is_damaged(tmp_path):
    """Codes whose scale is missing are an error that names the folder."""
    from safetensors.torch import save_file

    made = packing.pack(matrices(2, 4, 4), "int8")
    save_file(
        {name: value for name, value in made.items() if packing.SCALE not in name}, tmp_path / adapter_files.PACKED
    )
    with pytest.raises(ModelError, match="is damaged"):
        adapter_files.tensors(tmp_path)
