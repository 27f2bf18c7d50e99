"""The text of ``--help``."""

from __future__ import annotations

import pytest

from loraloop.__main__ import CONF
from loraloop.cli.help import text


@pytest.mark.parametrize("flag", ["--config-dir {}", "--config-dir={}", "-cd {}"])
def test_a_persons_own_folder_is_listed(tmp_path, flag):
    """Each choice of the folder stands there with its comment, below the choices that ship."""
    for name, comment in (("source/riddles", "# riddles of a file\n"), ("lora/r3", "")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / f"{name}.yaml").write_text(f"{comment}r: 3\n")
    shown = text(CONF, ["--help", *flag.format(tmp_path).split(), "lora=r3"])
    listed = shown.partition(f"\nyour own, in {tmp_path}\n")[2].partition("\n\n")[0]
    assert [" ".join(line.split()) for line in listed.splitlines()] == ["lora=r3", "source=riddles riddles of a file"]


def test_an_empty_folder_is_told_what_goes_where(tmp_path):
    """A folder without choices, or none at all, says how a choice is called; without the flag nothing is said."""
    assert f"nothing: a choice is a file {tmp_path}/GROUP/CHOICE.yaml" in text(CONF, ["--config-dir", str(tmp_path)])
    assert "your own, in" not in text(CONF, ["--help"])
