"""Publishing into a folder."""

import pytest

from loraloop.errors import ConfigError, RegistryError
from loraloop.publish.folder import Folder


@pytest.fixture
def publisher(tmp_path):
    return Folder(path=tmp_path / "published")


def test_a_version_arrives_with_card_and_manifest(publisher, version, metrics, tmp_path):
    """The folder NAME-vN holds the version's files byte for byte, the manifest and a card."""
    place = publisher.publish(version, metrics)
    target = tmp_path / "published" / "loraloop-v1"
    assert place == str(target)
    assert {path.name for path in target.iterdir()} == {"README.md", *(path.name for path in version.path.iterdir())}
    for path in version.path.iterdir():
        assert (target / path.name).read_bytes() == path.read_bytes()


def test_publishing_again_changes_nothing(publisher, version, metrics):
    """An equal copy is left alone, a card that a person edited included."""
    target = publisher.path / "loraloop-v1"
    publisher.publish(version, metrics)
    (target / "README.md").write_text("my words")
    assert publisher.publish(version) == str(target)
    assert (target / "README.md").read_text() == "my words"


def test_another_adapter_is_never_overwritten(publisher, version, other, metrics):
    """Where another adapter or a damaged copy lies, publishing refuses, names the file and leaves it."""
    publisher.publish(version, metrics)
    with pytest.raises(RegistryError, match=r"adapter_model.safetensors is not this version's; choose another"):
        publisher.publish(other, metrics)
    assert (publisher.path / "loraloop-v1" / "adapter_model.safetensors").read_bytes() == b"weights"
    (publisher.path / "loraloop-v1" / "manifest.json").unlink()
    with pytest.raises(RegistryError, match=r"manifest.json is not"):
        publisher.publish(version, metrics)


def test_a_copy_that_fails_leaves_nothing(publisher, version, metrics):
    """When a file cannot be read half-way, neither the folder nor a part of it is left."""
    (version.path / "manifest.json").unlink()
    (version.path / "manifest.json").mkdir()
    with pytest.raises(RegistryError, match="nothing was published"):
        publisher.publish(version, metrics)
    assert list(publisher.path.iterdir()) == []


def test_a_file_instead_of_a_folder_is_told(publisher):
    """A path that is a file is refused before any work."""
    publisher.path.touch()
    with pytest.raises(ConfigError, match=r"publish.path=.* must be a folder"):
        publisher.check()
