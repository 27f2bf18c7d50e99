"""The launcher on a real Ray cluster of two nodes, of which one is lost."""

from __future__ import annotations

import sys
import textwrap
from dataclasses import replace

import pytest
from omegaconf import OmegaConf

import warm
from hydra_plugins.loraloop_launcher import _job
from hydra_plugins.loraloop_launcher.on_ray import RayLauncher
from loraloop.errors import ConfigError

ray = pytest.importorskip("ray")
SMALL = ("source.runs=2", "trainer.max_steps=3", "evaluation.max_rows=8", "tracker=none")
LOST = '''
    import os
    from pathlib import Path

    from loraloop.core.part import part
    from loraloop.source.flips import Flips


    @part
    class Lost(Flips):
        """Ends its node the first time, and its own process the second time."""

        def collect(self, ocr):
            marks = Path(__file__).parent
            (marks / f"{self.seed}.{os.environ['NODE']}").touch()
            if os.environ["NODE"] == "second":
                (marks / "lost").write_text(str(self.seed))
                os.kill(os.getppid(), 9)
                os.kill(os.getpid(), 9)
            if (marks / "lost").exists() and (marks / "lost").read_text() == str(self.seed):
                (marks / "lost").unlink()
                os.kill(os.getpid(), 9)
            return super().collect(ocr)
'''
ABSENT = """
    from hydra_plugins.loraloop_launcher import on_ray

    on_ray.CONNECT_SECONDS = 0.5
    on_ray.RayLauncher(1, "127.0.0.1:1", 1, 0).start([None])
"""


@pytest.fixture(scope="module")
def marks(tmp_path_factory):
    """A folder with a source of the tests' own."""
    folder = tmp_path_factory.mktemp("marks")
    (folder / "lost_once.py").write_text(textwrap.dedent(LOST))
    return folder


@pytest.fixture(scope="module")
def cluster(marks):
    """Address of a cluster with one core on each of its two nodes, ``first`` and ``second``."""
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    nodes = [{**size, "env_vars": {"NODE": name, "PYTHONPATH": str(marks)}} for name in ("first", "second")]
    made = Cluster(initialize_head=True, head_node_args=nodes[0])
    made.add_node(**nodes[1])
    yield made.address
    made.shutdown()


@pytest.fixture
def apart():
    """This process leaves the cluster that a test joined."""
    yield
    ray.shutdown()


def test_nodes_with_another_loraloop_are_named_before_the_first_trial(cluster, apart):
    """Each node that would refuse the sweep's jobs says so before one is handed over."""
    task = replace(_job.task(OmegaConf.create(), 1), loraloop="0.0.1")
    with pytest.raises(ConfigError) as refused:
        RayLauncher(1, cluster, 1, 0).start([task])
    assert str(refused.value).count("the sweep runs on 0.0.1") == 2


def test_trials_of_a_lost_node_run_on_the_other_one(desk, postgres, cluster, marks):
    """A node that dies is charged to no trial of it, a worker that dies is; every trial has one result at the end."""
    import optuna

    seen = desk.process(
        "-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "source._target_=lost_once.Lost",
        "source.seed=choice(7,8)", "allow_targets=[lost_once.]", *SMALL, "hydra/launcher=ray",
        f"hydra.launcher.address={cluster}", "hydra.sweeper.study_name=two_nodes",
        f"hydra.sweeper.storage='{postgres}'", "hydra.sweeper.max_failure_rate=1", PYTHONPATH=str(marks),
    )  # fmt: skip
    assert seen.code == 0, seen
    url = postgres.replace("postgresql://", "postgresql+psycopg://")
    trials = optuna.load_study(study_name="two_nodes", storage=url).trials
    ended = [(trial.state.name, trial.user_attrs.get("attempt", 1)) for trial in trials]
    assert sorted(ended) == [("COMPLETE", 1), ("COMPLETE", 2), ("FAIL", 1), ("FAIL", 1)], seen
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert sorted(trial.params["source.seed"] for trial in complete) == [7, 8]
    assert [reason in seen.out for reason in ("NodeDiedError", "WorkerCrashedError")] == [True, True]
    assert len(list(marks.glob("?.second"))) == 1
    assert len(list(marks.glob("?.first"))) == 2


def test_a_job_that_no_node_can_hold_is_refused(apart):
    """A cluster on this machine is asked for no more cores than it has: the job would wait for ever."""
    with pytest.raises(ConfigError, match=r"hydra.launcher.cpus=4096 .* no node has these for one job \(.* cores and"):
        RayLauncher(1, None, 4096, 0).start([None])


def test_an_address_at_which_no_ray_answers_is_refused(tmp_path):
    """Ray's own wait of minutes for a cluster is cut short, and the sentence names the ways out."""
    seen = warm.run([sys.executable, "-c", textwrap.dedent(ABSENT)], cwd=tmp_path)
    assert "hydra.launcher.address=127.0.0.1:1: no cluster of Ray answers (no answer within" in seen.stderr
    assert "ray start --head" in seen.stderr
