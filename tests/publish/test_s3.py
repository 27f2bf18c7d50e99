"""Publishing to S3, against moto's HTTP server."""

import socket

import pytest

from loraloop.errors import ConfigError, RegistryError
from loraloop.publish.s3 import S3


@pytest.fixture(scope="module")
def endpoint():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture(scope="module")
def client(endpoint):
    """A look past the publisher, made once: boto3 reads megabytes of service descriptions for each."""
    import boto3

    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=endpoint, **keys)


@pytest.fixture
def publisher(client, endpoint, monkeypatch, tmp_path):
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    publisher = S3(bucket=tmp_path.name.replace("_", "-").lower(), prefix="a/b", endpoint=endpoint)
    client.create_bucket(Bucket=publisher.bucket)
    return publisher


@pytest.fixture
def stored(client, publisher):
    """What the bucket holds now, by key."""

    def read():
        listing = client.list_objects_v2(Bucket=publisher.bucket).get("Contents", [])
        keys = [item["Key"] for item in listing]
        return {key: client.get_object(Bucket=publisher.bucket, Key=key)["Body"].read() for key in keys}

    return read


def test_a_version_arrives_whole(publisher, version, metrics, stored):
    """Every file lies under prefix/NAME-vN byte for byte, with a card."""
    publisher.check()
    address = publisher.publish(version, metrics)
    assert address == f"s3://{publisher.bucket}/a/b/loraloop-v1"
    found = stored()
    assert found.pop("a/b/loraloop-v1/README.md").startswith(b"---\n")
    assert found == {f"a/b/loraloop-v1/{path.name}": path.read_bytes() for path in version.path.iterdir()}


def test_publishing_again_uploads_nothing(publisher, version, metrics, stored):
    """An equal version is left alone, also when its card would read differently today."""
    publisher.publish(version, metrics)
    before = stored()
    publisher.publish(version)
    assert stored() == before


def test_an_export_goes_on_where_it_stopped(publisher, version, tmp_path, stored, client):
    """An upload that lacks its last file is completed, and what was measured since replaces the earlier measurement."""
    folder = tmp_path / "loraloop-v1-merged"
    folder.mkdir()
    for name in ("model.safetensors", "export.json", "README.md", "parity-vllm.json"):
        (folder / name).write_text(name)
    address = publisher.publish(version, None, folder)
    assert address.endswith("/a/b/loraloop-v1-merged")
    whole = stored()
    client.delete_object(Bucket=publisher.bucket, Key="a/b/loraloop-v1-merged/export.json")
    (folder / "parity-vllm.json").write_text("measured again")
    publisher.publish(version, None, folder)
    after = stored()
    assert after.keys() == whole.keys()
    assert [name for name in whole if after[name] != whole[name]] == ["a/b/loraloop-v1-merged/parity-vllm.json"]


def test_another_adapter_is_never_overwritten(publisher, version, other, metrics, stored):
    """Where another adapter lies, publishing refuses, names the object and changes nothing."""
    publisher.publish(version, metrics)
    before = stored()
    with pytest.raises(RegistryError, match=r"loraloop-v1/adapter_model.safetensors exists and is not this version's"):
        publisher.publish(other, metrics)
    assert stored() == before


def test_an_object_of_unknown_content_is_never_overwritten(publisher, version, metrics, stored, client):
    """An object that somebody else put there, without a hash of ours, stops the upload before it begins."""
    key = "a/b/loraloop-v1/adapter_config.json"
    client.put_object(Bucket=publisher.bucket, Key=key, Body=b"theirs")
    with pytest.raises(RegistryError, match=r"adapter_config\.json exists"):
        publisher.publish(version, metrics)
    assert stored() == {key: b"theirs"}


def test_an_upload_that_stopped_is_gone_on_with(publisher, version, metrics, stored):
    """After a failure half-way there is no manifest, and repeating completes what is missing."""
    manifest = (version.path / "manifest.json").read_bytes()
    (version.path / "manifest.json").unlink()
    with pytest.raises(OSError, match=r"manifest.json"):
        publisher.publish(version, metrics)
    assert not any(key.endswith("manifest.json") for key in stored())
    (version.path / "manifest.json").write_bytes(manifest)
    publisher.publish(version, metrics)
    assert stored()["a/b/loraloop-v1/manifest.json"] == manifest


def test_two_publishers_at_once_cannot_both_complete(publisher, version, other, metrics, monkeypatch):
    """A manifest that appears after the first look is not overwritten: the server refuses the second one."""
    monkeypatch.setattr(S3, "_absent", lambda self, client, folder, files: list(files)[-1:])
    publisher.publish(version, metrics)
    with pytest.raises(RegistryError, match=r"could not be written .*PreconditionFailed"):
        publisher.publish(other, metrics)


def test_a_missing_bucket_is_told_before_any_work(publisher):
    """A bucket that does not exist, or none at all, is an error that names the key."""
    with pytest.raises(ConfigError, match=r"publish.bucket=nowhere cannot be reached at http"):
        S3(bucket="nowhere", endpoint=publisher.endpoint).check()
    with pytest.raises(ConfigError, match=r"set publish\.bucket=NAME"):
        S3().check()


def test_a_dead_endpoint_and_missing_credentials_are_told(publisher, monkeypatch, tmp_path):
    """Nobody listening and nobody to sign for are errors that name the endpoint and the variables."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConfigError, match=f"cannot be reached at {dead}"):
        S3(bucket="any", endpoint=dead).check()
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(key)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID"):
        publisher.check()
