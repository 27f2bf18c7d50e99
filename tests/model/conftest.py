"""The bundled model, loaded once, and folders like those that people bring."""

from __future__ import annotations

import json
import shutil

import pytest

from loraloop.model.causal import CausalLM


@pytest.fixture(scope="session")
def bundled():
    """``model=tiny`` in memory; tests leave its weights as they are."""
    return CausalLM(name="bundled:tiny").load()


@pytest.fixture(scope="session")
def saved(bundled, tmp_path_factory):
    """A folder that ``save_pretrained`` wrote."""
    folder = tmp_path_factory.mktemp("models") / "saved"
    bundled.model.save_pretrained(folder)
    bundled.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def damaged(saved, tmp_path):
    """A function that copies the saved folder, with changes to its ``config.json``."""

    def copy(**changes):
        folder = tmp_path / "damaged"
        shutil.copytree(saved, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))
        return folder

    return copy


@pytest.fixture(scope="session")
def ids():
    """Token ids of a prompt."""
    import torch

    return torch.tensor([[256, *b"tally A B\nABBA\n> "]])
