"""What an export's folder says of itself, and what is refused before work."""

import shutil
from dataclasses import replace

import pytest

from loraloop.errors import ArtefactError, ConfigError, RegistryError
from loraloop.publish import export


@pytest.fixture
def plain(version):
    """A version that was trained on an unquantised base."""
    base = replace(version.manifest.base, quantization="none")
    return replace(version, manifest=replace(version.manifest, base=base))


def fill(made):
    def write(folder):
        (folder / "model.safetensors").write_bytes(b"merged")
        return made

    return write


def test_an_export_verifies_until_a_file_changes(plain, tmp_path):
    """An export is whole as written, with a card or parity file edited too; another byte or another file is named."""
    made = export.of(plain, "merged", "float32")
    target = tmp_path / "out"
    export.write(target, made, fill(made))
    kept = export.read(target)
    (target / "README.md").write_text("my words")
    (target / "parity-transformers.json").write_text("{}")
    (target / f".parity-vllm.json.{'0' * 16}.part").touch()  # of a stage=verify that was killed
    export.verify(target, kept)
    (target / "model.safetensors").write_bytes(b"forged")
    (target / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ArtefactError, match=r"model.safetensors altered; pytorch_model.bin added; remove the folder"):
        export.verify(target, kept)


def test_a_folder_with_another_export_is_refused(plain, other, tmp_path):
    """Neither another version's export nor a folder that is none is overwritten; an equal export stays."""
    made = export.of(plain, "merged", "float32")
    target = tmp_path / "out"
    export.write(target, made, fill(made))
    export.write(target, made, lambda _: pytest.fail("it was written again"))
    with pytest.raises(RegistryError, match=r"holds another export \(version loraloop/1, adapter one, merged, float32"):
        export.write(target, export.of(other, "merged", "float32"), fill(made))
    (target / "export.json").unlink()
    with pytest.raises(RegistryError, match="exists and is no export"):
        export.write(target, made, fill(made))


def test_an_export_that_fails_leaves_nothing(plain, tmp_path):
    """When a file cannot be written half-way, no part of the folder is left."""

    def full(folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(RegistryError, match="No space left on device"):
        export.write(tmp_path / "out" / "x", export.of(plain, "merged", "float32"), full)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_would_mislead_is_refused(version, plain):
    """A folder that was never registered and a base with random weights are refused before work."""
    export.require_exportable(version)
    with pytest.raises(RegistryError, match="is not registered"):
        export.require_exportable(replace(plain, number=0))
    random = replace(plain.manifest, base=replace(plain.manifest.base, weights="random"))
    with pytest.raises(RegistryError, match="random weights"):
        export.require_exportable(replace(plain, manifest=random))


def test_a_disk_that_is_too_small_is_told_before_work(tmp_path):
    """More bytes than the disk has free are refused with both figures; what a killed publish left takes no room."""
    left = tmp_path / "not" / f".there.{'0' * 16}.part"
    left.mkdir(parents=True)
    export.require_disk(tmp_path / "not" / "there", 1, "a model")
    assert not left.exists()
    with pytest.raises(
        ConfigError, match=r"a model takes up to 909494.7 TiB with the small files, and the disk has .* free"
    ):
        export.require_disk(tmp_path / "not" / "there", 10**18, "a model")


def test_of_two_processes_that_export_the_same_both_succeed(plain, other, tmp_path):
    """Where an equal export appeared meanwhile it stays; another one is refused."""
    target = tmp_path / "out" / "x"
    for version, refused in ((plain, False), (other, True)):
        made = export.of(version, "merged", "float32")

        def meanwhile(folder, made=made):
            export.write(target, export.of(plain, "merged", "float32"), fill(export.of(plain, "merged", "float32")))
            return fill(made)(folder)

        if refused:
            with pytest.raises(RegistryError, match="holds another export"):
                export.write(target, made, meanwhile)
        else:
            export.write(target, made, meanwhile)
        assert export.read(target).content == plain.path.name
        shutil.rmtree(target)
