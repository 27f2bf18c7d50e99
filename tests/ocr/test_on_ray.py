"""The engine on a real local Ray cluster of two CPUs."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import threading

import psutil
import pytest
from PIL import Image, ImageDraw, ImageFont

from loraloop.core.signals import sigterm_kept
from loraloop.errors import ConfigError, MissingDependencyError
from loraloop.ocr.on_ray import OnRay
from loraloop.ocr.tesseract import Tesseract


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight images, one of them no image and one cut off."""
    made = tmp_path_factory.mktemp("images")
    for number in range(8):
        picture = Image.new("L", (500, 90), 255)
        ImageDraw.Draw(picture).text((20, 25), f"Page number {number}", fill=0, font=ImageFont.load_default(36))
        picture.save(made / f"{number}.png")
    (made / "3.png").write_text("not an image")
    (made / "6.png").write_bytes((made / "5.png").read_bytes()[:-20])
    return made


@pytest.fixture(scope="module")
def cluster():
    """One cluster for all tests, so that it is started once."""
    import ray

    with sigterm_kept():
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    yield ray
    ray.shutdown()


def kill_an_actor_that_reads(done: threading.Event) -> None:
    """End the first process below this one whose own child reads pages and that is not this process."""
    while not done.wait(0.05):  # between looks, for the cluster needs the CPU
        for child in psutil.Process().children(recursive=True):
            try:
                reads = "loraloop.ocr.worker" in child.cmdline() and child.ppid() != os.getpid()
                if reads:
                    os.kill(child.ppid(), signal.SIGKILL)
                    return done.set()
            except psutil.NoSuchProcess:
                continue


def test_a_killed_actor_is_replaced_and_no_page_is_lost(folder, cluster):
    """SIGKILL of the actor in the middle of a batch costs no page; over two shards the order is that of the images."""
    killed = threading.Event()
    killer = threading.Thread(target=kill_an_actor_that_reads, args=(killed,))
    killer.start()
    images = [folder / "gone.png", *sorted(folder.glob("[0124].png"))]
    try:
        pages = list(OnRay(reader=Tesseract(cache=None), actors=1, shard=3).read(images))
        assert killed.is_set()
    finally:
        killed.set()
        killer.join()
    assert [page.image for page in pages] == list(map(str, images))
    assert [page.text for page in pages] == ["", *(f"Page number {number}" for number in (0, 1, 2, 4))]
    assert pages[0].reason == "cannot be opened: No such file or directory"


def test_a_stopped_run_goes_on_on_a_cluster_to_the_same_rows(folder, cluster, desk):
    """What the engine alone kept is not read again by ocr=ray; all rows are its own, the quarantined ones included."""
    read = ("stage=read", f"source.path={folder}", "source.synthetic=0", "output=pages.jsonl")
    desk(*read, "ocr.cache=null")
    whole = (desk.folder / "pages.jsonl").read_bytes().splitlines(keepends=True)
    (desk.folder / "pages.jsonl").unlink()
    header = json.dumps({"settings": _settings(desk)}).encode() + b"\n"
    (desk.folder / "pages.jsonl.part").write_bytes(header + b"".join(whole[:2]))
    seen = desk(*read, "ocr=ray", "ocr.actors=1", "ocr.batch=4")
    assert seen.line("kept") == "2 of a stopped run"
    assert seen.line("pages") == "8 (6 read, 2 quarantined)"
    rows = [json.loads(line) | {"seconds": 0} for line in (desk.folder / "pages.jsonl").read_bytes().splitlines()]
    assert rows == [json.loads(line) | {"seconds": 0} for line in whole]


def _settings(desk) -> dict[str, str]:
    import yaml

    from loraloop.core import console
    from loraloop.workflows.reading import HOW

    config = yaml.safe_load(desk("stage=read", "output=x.jsonl", "--cfg", "job", "--resolve").out)["ocr"]
    return {name: value for name, value in console.flatten(config).items() if name not in HOW}


def test_without_ray_the_error_holds_the_install_line(monkeypatch):
    """A machine without Ray is told which extra brings it, before any work."""
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'loraloop\[ray\]'"):
        OnRay().check()


def test_no_cluster_is_started_for_nothing():
    """Where there is no image to read, as when every row is kept already, Ray is not started."""
    import ray

    ray.shutdown()
    assert list(OnRay(reader=Tesseract(cache=None)).read([])) == []
    assert not ray.is_initialized()


def test_a_cluster_that_is_not_there_is_named(folder, monkeypatch):
    """An address without a cluster is refused with the command that starts one."""
    from ray._private import services

    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setattr(services, "find_gcs_addresses", functools.cache(set))  # or another cluster is joined
    monkeypatch.setattr(services, "find_bootstrap_address", lambda _: None)
    with pytest.raises(ConfigError, match=r"ocr.address=auto: there is no Ray cluster .*`ray start --head` starts one"):
        list(OnRay(reader=Tesseract(cache=None), address="auto").read(sorted(folder.iterdir())))
