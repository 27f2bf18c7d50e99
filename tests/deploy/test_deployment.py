"""Compose, the image and the systemd units: what can be known of them without a daemon."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
UNITS = sorted((DEPLOY / "systemd").iterdir())
PROGRAM = "/opt/loraloop/.venv/bin/loraloop"


def compose(*arguments: str, env: Path = DEPLOY / ".env.example") -> subprocess.CompletedProcess[str]:
    """``docker compose ARGUMENTS``; Debian's program of the version before is called ``docker-compose``."""
    program = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    command = [*program, "--env-file", str(env), *arguments]
    return subprocess.run(command, cwd=DEPLOY, capture_output=True, text=True)


def config(*files: str) -> dict:
    """The whole configuration as Compose understands it."""
    done = compose(*(part for file in ("compose.yaml", *files) for part in ("-f", file)), "config")
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


@pytest.fixture(scope="module")
def services() -> dict[str, dict]:
    return config()["services"]


def test_compose_accepts_the_file(services):
    """``docker compose config`` resolves it to server, tick, MLflow, PostgreSQL, Prometheus and Grafana."""
    assert set(services) == {"server", "tick", "mlflow", "postgres", "prometheus", "grafana"}


def test_compose_refuses_to_start_without_passwords(tmp_path):
    """Without a password nothing starts, and the message says which file to copy."""
    (tmp_path / "env").write_text("POSTGRES_PASSWORD=\n")
    done = compose("config", env=tmp_path / "env")
    assert done.returncode != 0
    assert "copy .env.example to .env" in done.stderr


def test_the_example_names_every_variable():
    """What compose.yaml reads from the environment is in .env.example, and nothing else is."""
    used = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    given = set(re.findall(r"^(\w+)=", (DEPLOY / ".env.example").read_text(), re.M))
    assert used == given


def test_every_service_is_confined_watched_and_pinned(services):
    """No service runs as root, keeps a capability, floats on a tag or is without a health check."""
    for name, service in services.items():
        assert service["user"].partition(":")[0] not in {"", "0", "root"}, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == "unless-stopped", name
        assert re.search(r":(v?\d+\.\d+(\.\d+)?|local)$", service["image"]), name
        if name == "tick":
            assert service["healthcheck"] in (
                {"disable": True},
                {"test": ["NONE"]},
            )  # the image's own asks for a server
        else:
            assert "test" in service.get("healthcheck", {}) or name == "server", name
    assert "HEALTHCHECK" in DOCKERFILE


def test_only_what_is_opened_is_published(services):
    """Server, MLflow and Grafana are published, on the loopback address; databases and Prometheus are not."""
    published = {name: service["ports"] for name, service in services.items() if service.get("ports")}
    assert set(published) == {"server", "mlflow", "grafana"}
    for ports in published.values():
        assert all("127.0.0.1" in str(port) for port in ports)
    assert all("inside" in service["networks"] for service in services.values())
    assert config()["networks"]["inside"]["internal"] is True


def test_what_is_mounted_is_there(services):
    """Each file and folder of the repository that a service mounts exists, and is mounted for reading."""
    mounts = [str(mount) for each in yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].values()
              for mount in each.get("volumes", [])]  # fmt: skip
    own = [mount for mount in mounts if mount.startswith("./")]
    assert len(own) >= 5
    for mount in own:
        source, _, mode = mount.split(":")
        assert (DEPLOY / source).is_dir()
        assert mode == "ro"


def test_services_find_each_other(services):
    """Prometheus scrapes the server's port, Grafana asks Prometheus, and both name the files that are mounted."""
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"][0]
    assert scrape["static_configs"] == [{"targets": ["server:8000"]}]
    assert "EXPOSE 8000" in DOCKERFILE
    assert scrape["authorization"]["credentials_file"] == "/run/secrets/metrics_key"
    assert "metrics_key" in str(services["prometheus"]["secrets"])
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/loraloop.yaml").read_text())["providers"]
    assert provider["options"]["path"] in str(services["grafana"]["volumes"])
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DEPLOY / "grafana" / "dashboards" / Path(home).name).is_file()


def test_a_gpu_is_added_by_a_file_of_its_own():
    """With compose.gpu.yaml server and tick get a device and torch with CUDA, and keep everything else."""
    plain, gpu = config()["services"], config("compose.gpu.yaml")["services"]
    assert gpu["server"]["build"]["args"] == {"TORCH": "cuda"}
    for name in ("server", "tick"):
        (device,) = gpu[name].pop("deploy")["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
        assert {key: gpu[name][key] for key in ("entrypoint", "command", "user", "environment")} == {
            key: plain[name][key] for key in ("entrypoint", "command", "user", "environment")
        }
    assert not any("deploy" in service for service in gpu.values())


@pytest.mark.parametrize("stage", ["serve", "tick", "ledger"])
def test_the_production_overlay_composes(desk, stage):
    """The overlay that containers and units name fits each stage that they run, and points at the other services."""
    seen = desk("--config-dir", str(DEPLOY / "conf"), "+site=production", f"stage={stage}", "--cfg", "job")
    composed = yaml.safe_load(seen.out)
    assert composed["registry"]["uri"] == composed["tracker"]["uri"] == "http://mlflow:5000"
    assert composed["registry"]["_target_"] == "loraloop.registry.mlflow.MlflowRegistry"
    assert composed["server"]["host"] == "0.0.0.0"  # noqa: S104
    if stage != "ledger":
        assert composed["feedback"]["url"] == "postgresql://loraloop@postgres/loraloop"


def test_the_image_is_pinned_and_runs_as_nobody_in_particular():
    """Both stages start from one digest, the last user is not root, and what is installed are extras that there are."""
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+@sha256:[0-9a-f]{64}", bases[0])
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.M) == ["10001:10001"]
    (extras,) = re.findall(r"'\.\[(.+)\]'", DOCKERFILE)
    assert set(extras.split(",")) <= set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    )


def test_everything_that_the_image_copies_reaches_it():
    """Each COPY of the Dockerfile names what exists and what .dockerignore lets through; the wheel needs no more."""
    allowed = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.M)
    lines = re.findall(r"^COPY (?!--from)(.+)", DOCKERFILE, re.M)
    copied = [source for line in lines for source in shlex.split(line)[:-1]]
    assert all((ROOT / source).exists() for source in copied)
    assert sorted(copied) == sorted(allowed)
    assert not any(fnmatch(".venv", pattern) or fnmatch("mlruns", pattern) for pattern in allowed)


def test_systemd_accepts_the_units(tmp_path):
    """``systemd-analyze verify`` has nothing to say of service, tick and timer."""
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace(PROGRAM, sys.executable))
    paths = [str(tmp_path / unit.name) for unit in UNITS]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".service"], ids=lambda unit: unit.name)
def test_the_units_are_confined(unit):
    """``systemd-analyze security`` rates each service's exposure at 2.0 of 10 or less."""
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_commands_of_the_page_compose(desk):
    """Each command of docs/production.md, in a container or not, names a stage, groups and keys that exist."""
    page = (ROOT / "docs" / "production.md").read_text()
    lines = re.findall(r"^(?:docker compose run --rm server|loraloop) (.+)$", page, re.M)
    assert len(lines) >= 8
    for line in lines:
        given = [argument for argument in shlex.split(line, comments=True) if argument not in {"--cfg", "job"}]
        desk("--config-dir", str(DEPLOY / "conf"), "+site=production", *given, "--cfg", "job")
