"""Seeded conversations of an agent that calls tools, with the truth of every turn."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field, field_validator

from loraloop.core import tool_calls
from loraloop.core.part import part
from loraloop.records import Collection, Example, Provenance
from loraloop.source.agent_calls.kinds import KINDS, Kind
from loraloop.source.agent_calls.tools import TOOLS
from loraloop.source.agent_calls.world import World
from loraloop.source.answers import same

STREAM = 0xCA11
"""Beside the seed, so that no other source draws the same numbers."""


@part
class AgentCalls:
    """Conversations of one to four tool calls; number ``i`` is of the kind ``i mod len(tasks)``.

    A larger collection begins with the same conversations as a smaller one. Worlds of different seeds share no name of
    a panel, vault, folder or file (of 2,679 seeds in a row).

    Attributes:
        conversations: How many.
        tools: Schemas that each conversation offers, at least those that it calls, in a drawn order.
        tasks: Kinds of conversations.
    """

    SCREENED = True  # everything is made up

    conversations: Annotated[int, Field(ge=1, le=1_000_000)] = 400
    tools: Annotated[int, Field(ge=1, le=len(TOOLS))] = 3
    seed: Annotated[int, Field(ge=0)] = 0
    tasks: Annotated[tuple[Kind, ...], Field(min_length=1)] = tuple(KINDS)

    @field_validator("tasks")
    @classmethod
    def _once(cls, tasks: tuple[Kind, ...]) -> tuple[Kind, ...]:
        if len(set(tasks)) < len(tasks):
            raise ValueError(f"tasks names one twice: {', '.join(tasks)}; name each once, they get equal shares")
        return tasks

    def collect(self, ocr: object) -> Collection:
        """Make all conversations."""
        return Collection(tuple(self._conversation(index) for index in range(self.conversations)))

    def correct(self, example: Example, answer: str) -> bool:
        """Calls are right when names and arguments match; words when they are equal but for case and white space."""
        expected = example.messages[-1]
        if expected.tool_calls:
            return tool_calls.judge(answer, expected.tool_calls, example.tools).right
        return same(expected.text, answer)

    def _conversation(self, index: int) -> Example:
        task = self.tasks[index % len(self.tasks)]
        world = World(self.seed, np.random.default_rng([STREAM, self.seed, index]))
        messages = KINDS[task](world)
        called = {call.name for message in messages for call in message.tool_calls}
        return Example(
            messages=tuple(messages),
            tools=tuple(TOOLS[name] for name in self._offered(world, called)),
            task=task,
            provenance=Provenance(source="agent_calls", seed=self.seed, index=index),
        )

    def _offered(self, world: World, called: set[str]) -> list[str]:
        others = [str(name) for name in world.rng.permutation(sorted(TOOLS.keys() - called))]
        offered = [*sorted(called), *others[: max(0, self.tools - len(called))]]
        return [str(name) for name in world.rng.permutation(offered)]
