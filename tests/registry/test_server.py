"""The registry on an MLflow server."""

import os
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from loraloop.errors import ConfigError, RegistryError
from loraloop.registry.mlflow import MlflowRegistry


@pytest.fixture(scope="module")
def uri(home, tmp_path_factory):
    """A real server on a database and an artifact folder of its own."""
    store = tmp_path_factory.mktemp("server")
    shutil.copyfile(home / "mlflow.db", store / "mlflow.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        "--backend-store-uri",
        f"sqlite:///{store}/mlflow.db",
        "--artifacts-destination",
        str(store / "artifacts"),
    ]
    command = [sys.executable, "-m", "mlflow", "server", *options, "--port", str(port), "--workers", "1"]
    # Without its job queue the server is one process less, and is up sooner.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        said = []
        for line in server.stderr:
            said.append(line)
            if "startup complete" in line:
                break
        else:
            raise AssertionError("".join(said))
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.communicate()


def test_another_machine_gets_the_same_adapter(uri, make_adapter, tmp_path):
    """What one folder registers with its run on a server, another folder resolves byte for byte, once promoted."""
    from mlflow import MlflowClient

    client = MlflowClient(uri, uri)
    run = client.create_run(client.create_experiment("served")).info.run_id
    adapter, manifest = make_adapter(tmp_path / "adapter")
    here = MlflowRegistry(folder=tmp_path / "here", uri=uri, name="served")
    here.check()
    with pytest.raises(RegistryError, match="a server keeps an adapter with its run"):
        here.register(adapter, manifest)
    assert here.register(adapter, manifest, run).number == 1
    here.promote(1, "champion", "by hand")
    there = MlflowRegistry(folder=tmp_path / "there", uri=uri, name="served").champion()
    assert (there.number, there.manifest) == (1, manifest)
    assert there.path.is_relative_to(tmp_path / "there")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (there.path / name).read_bytes() == (adapter / name).read_bytes()


def test_a_dead_server_is_told_before_any_work():
    """The pre-flight of a server that refuses connections names the key, the address and the way out."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConfigError, match=r"registry.uri=.* does not answer .*start it with `mlflow server`"):
        MlflowRegistry(uri=dead).check()
