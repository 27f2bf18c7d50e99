"""Stage ``demo_loop``: the loop closes by itself, with a real server, real training and simulated users."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from loraloop.source import screening
from loraloop.workflows.demo.server import serving
from loraloop.workflows.demo.show import Show
from loraloop.workflows.demo.timeline import Timeline, print_places, quiet
from loraloop.workflows.demo.training import Mistaught, register_ungated
from loraloop.workflows.demo.users import Users
from loraloop.workflows.experiment import Experiment
from loraloop.workflows.parts import ExperimentParts
from loraloop.workflows.retraining.deployment import deployment_of
from loraloop.workflows.retraining.machine import retraining_loop
from loraloop.workflows.retraining.training import Retraining

if TYPE_CHECKING:
    from loraloop.feedback.settings import Feedback
    from loraloop.policy import Policy
    from loraloop.protocols import Alerts, Source
    from loraloop.serve.local import LocalBackend
    from loraloop.serve.server import Server
    from loraloop.trainer.sft import Sft


@dataclass(frozen=True, kw_only=True)
class DemoLoop(ExperimentParts):
    """Serves a weak adapter, lets users rate it and the loop replace it; then tries a broken one.

    Attributes:
        questions: What the users ask.
        weak_steps: Training steps of the first adapter.
    """

    trainer: Sft
    policy: Policy
    questions: Source
    weak_steps: int
    serve: LocalBackend
    server: Server
    feedback: Feedback
    alerts: Alerts

    def run(self) -> None:
        """Print what happens as it happens.

        Raises:
            UndecidedError: A cycle did not end as it should; the timeline shows how far it went.
        """
        timeline = Timeline()
        deployment = deployment_of(self.policy.roles[0], self.server.roles, self.server.names, self.registry)
        registry = deployment.registry
        weakly = replace(self.trainer, max_steps=self.weak_steps)
        experiment = Experiment.of(self, trainer=weakly, registry=registry)
        retraining = Retraining(parts=self, max_forgetting=self.policy.max_forgetting)
        with quiet(), closing(self.feedback.open()) as store:
            loop = retraining_loop(self.policy, retraining, store, self.registry, self.alerts, timeline.say)
            weak = register_ungated(experiment, "weak").number
            registry.promote(weak, registry.serve_alias, "the demonstration begins with a weak version")
            name = deployment.name_of(weak)
            timeline.say("trainer", f"a weak adapter, {self.weak_steps} steps, is {name} and the champion")
            with serving(self.serve, self.server, self.model, self.registry, store, loop.cycles.state) as url:
                timeline.say("server", f"serves {deployment.role} at {url}")
                rng, asked = np.random.default_rng(self.job.seed), screening.collect(self.questions, None).examples
                users = Users(url, deployment.role, asked, self.questions.correct, rng)
                show = Show(timeline, users, store, loop, deployment)
                show.until("promoted", reviewed=True)
                broken = register_ungated(replace(experiment, source=Mistaught(self.source)), "broken")
                name = deployment.name_of(broken.number)
                timeline.say("trainer", f"{name} learned wrong answers, and is tried past the gate")
                loop.rollouts.choose(deployment, broken)
                show.until("rolled_back")
        print_places(registry.folder, deployment.role, self.policy.every)
