"""The registry on an MLflow server."""

import base64
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

import warm
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
    server = warm.popen(
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


PASSWORD = "s3cretWord"  # noqa: S105 (of nothing)


def texts_of(desk, client, postgres):
    """What several stages left in files, in MLflow and in PostgreSQL, with the trials that overrides encode."""
    kept = [path.read_bytes().decode("latin1") for path in desk.folder.rglob("*") if path.is_file()]
    experiment = client.get_experiment_by_name("secret").experiment_id
    for run in client.search_runs([experiment]):
        kept.append(str(run.to_dictionary()))
        if any(file.path == "config.yaml" for file in client.list_artifacts(run.info.run_id)):
            kept.append(Path(client.download_artifacts(run.info.run_id, "config.yaml")).read_text())
    with create_engine(postgres.replace("postgresql://", "postgresql+psycopg://")).connect() as connection:
        for table in ("study_user_attributes", "trial_user_attributes"):
            kept += map(str, connection.execute(text(f"SELECT value_json FROM {table}")))  # noqa: S608
    trials = re.findall(r"LORALOOP_TRIAL=([\w-]+)", "\n".join(kept))
    assert trials
    return [*kept, *(base64.urlsafe_b64decode(each + "==").decode() for each in trials)]


def test_a_password_in_an_address_works_and_is_neither_printed_nor_kept(uri, postgres, desk):
    """Addresses of tracker, registry, study, sessions and source with a password do their work and never show it."""
    from mlflow import MlflowClient

    server = uri.replace("://", f"://me:{PASSWORD}@")
    database = postgres.replace(":@", f":{PASSWORD}@")
    assert PASSWORD in database
    logged = ("tracker.experiment=secret", "tracker.system_metrics=false", f"tracker.uri={server}")
    small = (*logged, f"registry.uri={server}", "registry.name=secret", "source.runs=2", "trainer.max_steps=2",
             "evaluation.max_rows=8")  # fmt: skip
    study = ("hydra/sweeper=optuna", f"hydra.sweeper.storage='{database}'", "hydra.sweeper.n_trials=1")
    seen = [desk(*small), desk("-m", "lora.r=choice(2,4)", *study, *small)]
    seen += [desk.attempt("-m", "seed=0", "stage=collect", "source=sessions", f"source.path='{database}'"),
             desk.attempt("stage=review", f"feedback.url='{database}'"),
             desk.attempt("stage=register", "run=none", f"tracker.uri={server}")]  # fmt: skip
    assert seen[0].line("registry").startswith("secret version 1")
    printed = "\n".join(each.out + each.err for each in seen)
    assert f"{uri}/#/experiments/" in printed
    kept = texts_of(desk, MlflowClient(uri, uri), postgres)
    assert any(f"uri: http://me:***@{uri.partition('//')[2]}" in each for each in kept)
    assert PASSWORD not in printed
    assert [each[:300] for each in kept if PASSWORD in each] == []
