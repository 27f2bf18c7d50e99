"""Remake a picture of MLflow's comparison page in docs/images: of three ranks, or of a sweep's trials.

    python scripts/screenshot.py compare|sweep [FOLDER]   # FOLDER holds the mlruns/ of it; without it, it is run

Needs Chromium (`apt install chromium`), which is spoken to over a pipe in its DevTools protocol.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

IMAGES = Path(__file__).parents[1] / "docs" / "images"
COMMANDS = {"compare": ["-m", "lora=r8,r16,r64"], "sweep": ["-m", "sweeps=rank_alpha_lr"]}
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
QUICK = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Without its job queue, which the pictures do not show, MLflow's UI is five processes less and up sooner."""
WAIT = """new Promise((resolve, reject) => {
  const look = () => { if (%s) { clearInterval(timer); resolve(true) } }
  const timer = setInterval(look, 50)
  setTimeout(() => { clearInterval(timer); reject(document.body.innerText) }, 600000)
})"""

METRIC = """(async name => {
  const body = [...document.querySelectorAll('.ReactVirtualized__Grid')].find(
    grid => getComputedStyle(grid).overflowY == 'auto')
  const label = () => [...document.querySelectorAll('.ReactVirtualized__Grid a')].find(a => a.textContent == name)
  const settled = () => new Promise(done => setTimeout(done, 300))
  for (let top = 0; !label() && top < body.scrollHeight; top += 200) { body.scrollTop = top; await settled() }
  const top = label().parentElement.offsetTop - 90
  // The column of names follows the values one event late.
  for (const nudge of [1, 0, 1, 0]) { body.scrollTop = top + nudge; await settled() }
  const cells = [...body.querySelectorAll('[style*=absolute]')].filter(
    cell => cell.style.top == label().parentElement.style.top)
  return cells.sort((a, b) => a.offsetLeft - b.offsetLeft).map(cell => cell.innerText.trim())
})(%s)"""
"""Scrolls the table of metrics until a row is in it, and reads its cells."""

CHOSEN = "[...document.querySelectorAll('[role=combobox]')].map(each => each.ariaDescription)"
"""The parameters and the metrics of the parallel coordinates plot."""

PLOT = "document.querySelector('.js-plotly-plot').getBoundingClientRect().bottom + 10"
"""Where the plot ends."""

BOTTOM = "document.querySelector('.ReactVirtualized__Grid').getBoundingClientRect().bottom + 20"
"""Where the table of metrics ends."""


class Browser:
    """One page of a headless Chromium."""

    def __init__(self, width: int, height: int) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-")
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        # Chromium reads commands from file descriptor 3 and answers on 4.
        shell = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        flags = [*FLAGS, f"--user-data-dir={self._profile.name}", f"--window-size={width},{height}"]
        command = ["bash", "-c", shell, "chromium", _chromium(), *flags]
        self._process = subprocess.Popen(command, pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self._answers, self._count, self._session = os.fdopen(self._from, "rb"), 0, {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give a command of the DevTools protocol and wait for its answer; events are passed over."""
        self._count += 1
        command = {"id": self._count, "method": method, "params": parameters, **self._session}
        os.write(self._to, json.dumps(command).encode() + b"\0")
        while True:
            answer = json.loads(self._message())
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])

    def js(self, expression: str) -> Any:
        """The value of an expression in the page, awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {json.dumps(answer['exceptionDetails'])[:4000]}")
        return answer["result"].get("value")

    def open(self, address: str, until: str) -> None:
        """Open ``address`` and wait until the JavaScript condition ``until`` holds."""
        self.call("Page.navigate", url=address)
        self.wait(until)

    def wait(self, until: str) -> None:
        """Wait until a JavaScript condition holds, for ten minutes at most, also where another page opens meanwhile."""
        while True:
            try:
                self.js(WAIT % until)
                return
            except RuntimeError as error:
                if "navigated" not in str(error) and "context was destroyed" not in str(error):
                    raise

    def click(self, element: str) -> None:
        """Click in the middle of the element that a JavaScript expression gives, as a mouse does."""
        self.wait(element)
        where = self.js(f"({element}).getBoundingClientRect().toJSON()")
        at = {"x": where["x"] + where["width"] / 2, "y": where["y"] + where["height"] / 2}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def press(self, key: str, code: int) -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def picture(self, file: Path, height: float) -> None:
        """Write the upper ``height`` pixels of the window as a PNG."""
        clip = {"x": 0, "y": 0, "width": self.js("innerWidth"), "height": height, "scale": 1}
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", clip=clip)["data"]))

    def close(self) -> None:
        """End the browser and remove its profile."""
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            self._session = {}
            self.call("Browser.close")
        self._process.wait(timeout=600)
        os.close(self._to)
        self._answers.close()
        self._profile.cleanup()

    def _message(self) -> bytes:
        message = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("Chromium ended")
            message += byte
        return bytes(message)


@contextlib.contextmanager
def browser(width: int = 1400, height: int = 1000) -> Iterator[Browser]:
    """A browser that is closed at the end."""
    opened = Browser(width, height)
    try:
        yield opened
    finally:
        opened.close()


def free_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def ui(folder: Path, port: int | None = None) -> Iterator[str]:
    """MLflow's own UI on the database in ``folder``/mlruns, at a free port or at ``port``; its address."""
    port = port or free_port()
    command = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder.resolve()}/mlruns/mlflow.db"]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=os.environ | QUICK, start_new_session=True)
        try:
            _until_answered(f"http://127.0.0.1:{port}/health", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # the UI's workers too; it only reads
            process.wait()


def compare(page: Browser, site: str, runs: Sequence[Any]) -> list[list[str]]:
    """Open MLflow's comparison of ``runs``, with its assistant's panel closed; what its plot opened on.

    Returns:
        The parameters and the metrics that MLflow has chosen by itself, before anything was clicked.
    """
    ids, experiments = [run.info.run_id for run in runs], [runs[0].info.experiment_id]
    address = f"{site}/#/compare-runs?runs={quote(json.dumps(ids))}&experiments={quote(json.dumps(experiments))}"
    page.call("Page.navigate", url=address)
    page.wait("document.querySelector('.ReactVirtualized__Grid a')")
    page.wait("document.querySelector('.js-plotly-plot')?.innerText")
    chosen: list[str] = page.js(CHOSEN)
    page.click("document.querySelector('[aria-label=Close]')")
    return [names.split(", ") for names in chosen]


def parameter(page: Browser, name: str) -> list[str]:
    """What the table of parameters shows for ``name``, a value for each run."""
    rows = (
        f"[...document.querySelectorAll('tr')].map(row => row.innerText.split('\\t')).filter(row => row[0] == '{name}')"
    )
    (row,) = page.js(rows)
    return [value.strip() for value in row[1:]]


def metric(page: Browser, name: str) -> list[str]:
    """What the table of metrics shows for ``name``, a value for each run; it holds only the rows in view."""
    values: list[str] = page.js(METRIC % json.dumps(name))
    return values


def axes(page: Browser) -> str:
    """What is written in the parallel coordinates plot: its axes' names and their values."""
    return str(page.js("document.querySelector('.js-plotly-plot').innerText"))


def main(what: str, folder: Path) -> None:
    """Take the picture."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder.resolve()}/mlruns/mlflow.db")
    runs = client.search_runs(["1"], order_by=["attributes.start_time ASC"])
    if what == "sweep":
        runs = [run for run in runs if "trial" in run.data.tags and run.info.status == "FINISHED"]
    with ui(folder) as site, browser(1400, 1900) as page:
        compare(page, site, runs)
        page.click("document.querySelector('[aria-label=\"Toggle sidebar\"]')")
        if what == "sweep":
            page.picture(IMAGES / "mlflow-sweep.png", page.js(PLOT))
            return
        for table in ("Parameters", "Metrics"):
            page.click(f"document.querySelector('[aria-label=\"{table} - Show diff only\"]')")
        metric(page, "final/exact_match")
        page.picture(IMAGES / "mlflow-compare.png", page.js(BOTTOM))


def _chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    raise RuntimeError("there is no Chromium: apt install chromium")


def _until_answered(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(6000):
        if process.poll() is not None:
            raise RuntimeError(f"mlflow ui ended with {process.returncode}")
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):  # noqa: S310
            return
        time.sleep(0.1)
    raise RuntimeError(f"{address} did not answer within ten minutes")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        main(sys.argv[1], Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run([sys.executable, "-m", "loraloop", *COMMANDS[sys.argv[1]]], cwd=scratch, check=True)
            main(sys.argv[1], Path(scratch))
