"""One training in several processes: ``accelerate launch`` as a child, whose processes read a file of the job.

The process that was started keeps tracker, registry and evaluation; the others train. They tell it what happens through
a file of one JSON object a line, and it asks them to stop through another file.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from loraloop.core import atomic
from loraloop.core.build import build
from loraloop.errors import ConfigError, LoraloopError, LostProcessError, TrainingError
from loraloop.protocols import TrainingJob
from loraloop.records import Dataset, Example, Training
from loraloop.trainer.member import EVENTS, STOP, Member, become, gpus
from loraloop.trainer.monitor import Monitor

if TYPE_CHECKING:
    from peft import PeftModel

    from loraloop.trainer.settings import Settings

FOLDER = "processes"
JOB, RESULT, ERROR = "job.json", "result.json", "error-{}.json"
PARTS = ("model", "lora", "trainer")
POLL_SECONDS = 0.1
END_SECONDS = 40
"""Until processes that were asked to end are killed; torch itself kills its workers after 30."""


def check(settings: Settings) -> None:
    """Refuse more processes than there are GPUs, where there are any.

    Raises:
        ConfigError: With the numbers of both.
    """
    there = gpus()
    if settings.processes > 1 and 0 < there < settings.processes:
        raise ConfigError(
            f"trainer.processes={settings.processes} needs as many GPUs, and this machine has {there}: "
            f"set trainer.processes={there}, and trainer.accumulation higher by the same factor for the same steps"
        )


def train(settings: Settings, job: TrainingJob) -> tuple[PeftModel, Training]:
    """Train in ``settings.processes`` processes and put the adapter on ``job.loaded.model``.

    Raises:
        ConfigError: The job does not say how other processes load the base.
        LostProcessError: A process was killed or crashed; all have ended.
        TrainingError: As the trainer raises it in one process.
        PrunedError: ``job.on_evaluation`` ended the training.
        KeyboardInterrupt: After Ctrl+C or SIGTERM, once the step in progress is saved as a checkpoint.
    """
    if job.config is None:
        raise ConfigError("trainer.processes: this caller trains in one process only; set trainer.processes=1")
    folder = job.output / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for file in (*(folder / name for name in (EVENTS, STOP, RESULT)), *folder.glob(ERROR.format("*"))):
        file.unlink(missing_ok=True)
    monitor = Monitor(job.run, {})
    try:
        _write(folder / JOB, _described(job))
        with monitor.watching(), _launched(settings.processes, folder) as child:
            for event in _events(child, folder, monitor):
                _relay(event, job, monitor)
    finally:
        (folder / JOB).unlink(missing_ok=True)  # it holds the rows, which people may ask to be forgotten
    monitor.raise_interruption()
    if not (folder / RESULT).exists():
        _explain(settings.processes, child.returncode, folder)
    result = json.loads((folder / RESULT).read_bytes())
    training = Training(**result | {"adapter": Path(result["adapter"]), "history": tuple(result["history"])})
    return _attached(job, training.adapter), training


def _described(job: TrainingJob) -> dict[str, Any]:
    from pydantic import TypeAdapter

    assert job.config is not None  # noqa: S101 (train has looked)
    return {
        "config": {name: job.config[name] for name in PARTS},
        "data": TypeAdapter(Dataset).dump_python(job.data, mode="json"),
        "output": str(job.output.absolute()),
        "resume": str(job.resume.absolute()) if job.resume else None,
        "begin_from": str(job.begin_from.absolute()) if job.begin_from else None,
        "parent": os.getpid(),
    }


def _write(file: Path, values: Any) -> None:
    with atomic.write(file) as stream:
        stream.write(json.dumps(values).encode())


@contextmanager
def _launched(count: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``accelerate launch`` until the context ends, in a session of its own: Ctrl+C reaches the parent alone."""
    # --multi_gpu is the one way of accelerate that starts several processes without MPI, on CPUs too.
    options = {"num_processes": count, "num_machines": 1, "mixed_precision": "no", "dynamo_backend": "no"}
    options |= {"main_process_port": 0}  # a free one
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", *words]
    threads = str(max(1, (os.cpu_count() or 1) // count))
    environment = {"OMP_NUM_THREADS": threads} | dict(os.environ)
    with (folder / "launch.log").open("ab") as output:
        child = subprocess.Popen(
            [*command, "-m", __name__, str(folder / JOB)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(END_SECONDS)


def _events(child: subprocess.Popen[bytes], folder: Path, monitor: Monitor) -> Iterator[Mapping[str, Any]]:
    """What the first process tells, until all have ended."""
    from loraloop.core.signals import terminate_without_reader

    seen = 0
    while True:
        ended = child.poll() is not None
        if monitor.interrupted:
            (folder / STOP).touch()
        else:
            terminate_without_reader()
        if (folder / EVENTS).exists():
            with (folder / EVENTS).open("rb") as stream:
                stream.seek(seen)
                read = stream.read()
            fresh = read[: read.rfind(b"\n") + 1]
            seen += len(fresh)
            yield from map(json.loads, fresh.splitlines())
        if ended:
            return
        time.sleep(POLL_SECONDS)


def _relay(event: Mapping[str, Any], job: TrainingJob, monitor: Monitor) -> None:
    if "metrics" in event:
        job.run.metrics(event["metrics"], step=event["step"])
    elif "params" in event:
        job.run.params(event["params"])
    elif "evaluation" in event:
        if job.on_evaluation is not None:
            job.on_evaluation(event["step"], event["evaluation"])
    else:
        monitor.show(event["done"], event["total"], event["facts"])


def _explain(count: int, status: int, folder: Path) -> NoReturn:
    """Raise what a process raised, or say which one was lost."""
    for file in sorted(folder.glob(ERROR.format("*"))):
        error = json.loads(file.read_bytes())
        if error["known"]:
            raise TrainingError(error["message"])
    raise LostProcessError(
        f"a process of {count} was killed or crashed (accelerate launch ended with {status}), and the others were "
        f"ended with it; what they printed is in {folder}/launch.log"
    )


def _attached(job: TrainingJob, adapter: Path) -> PeftModel:
    from peft import PeftModel

    model: PeftModel = PeftModel.from_pretrained(job.loaded.model, str(adapter), use_safetensors=True)
    return model.eval()


def _no_reward(example: Example, answer: str) -> float:
    raise TrainingError("a trainer that draws answers trains in one process")


def work(file: Path) -> None:
    """Be one of the processes: train, and leave result or error in the folder of ``file``."""
    from pydantic import TypeAdapter

    described = json.loads(file.read_bytes())
    own = Member(int(os.environ["RANK"]), file.parent, described["parent"])
    become(own)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if gpus():
        import torch

        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    problems: list[str] = []
    # The parent has held the targets against the person's prefixes.
    targets = tuple(str(part["_target_"]) for part in described["config"].values())
    parts = {name: build(node, name, targets, problems) for name, node in described["config"].items()}
    if problems:
        raise ConfigError(*problems)
    job = TrainingJob(
        loaded=parts["model"].load(),
        lora=parts["lora"],
        data=TypeAdapter(Dataset).validate_python(described["data"]),
        run=own,  # type: ignore[arg-type]  # metrics and parameters are all that a trainer logs
        output=Path(described["output"]),
        reward=_no_reward,
        resume=Path(described["resume"]) if described["resume"] else None,
        on_evaluation=own.evaluated,
        begin_from=Path(described["begin_from"]) if described["begin_from"] else None,
    )
    _, training = parts["trainer"].train(job)
    if own.rank == 0:
        plain = asdict(training) | {"adapter": str(training.adapter)}
        _write(file.parent / RESULT, plain)


def main() -> None:
    """Work, and leave for the parent what went wrong."""
    file = Path(sys.argv[1])
    try:
        work(file)
    except KeyboardInterrupt:  # as the parent has asked, which raises its own
        return
    except Exception as error:
        traceback.print_exc()
        known = isinstance(error, LoraloopError)
        _write(file.parent / ERROR.format(os.environ["RANK"]), {"known": known, "message": str(error)})
        sys.exit(1)


if __name__ == "__main__":
    # Under its own name: another copy of the module would not know what this process is.
    from loraloop.trainer import processes

    processes.main()
