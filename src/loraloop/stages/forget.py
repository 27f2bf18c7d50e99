"""Stage ``forget``: erase the sessions of a client or a conversation, and name what was made of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from loraloop.core import console
from loraloop.core.overrides import command
from loraloop.core.passwords import mask

if TYPE_CHECKING:
    from loraloop.feedback.settings import Feedback
    from loraloop.protocols import Ocr, Tracker
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry
    from loraloop.tracing.settings import Tracing


@dataclass(frozen=True, kw_only=True)
class Forget:
    """Shows what would be erased, and with ``confirm`` erases it; without a choice, what holds what was erased before.

    Exports, versions and traces stay as they are: they are named, and a person decides about them.

    Attributes:
        CHECKED: The parts that must be reachable; registry and tracker may be away.
        exports: More files and folders in which to look for rows of the sessions.
    """

    CHECKED: ClassVar[frozenset[str]] = frozenset({"feedback"})

    job: Job
    client: str | None
    key: str | None
    conversation: str | None
    confirm: bool
    exports: Sequence[str]
    feedback: Feedback
    ocr: Ocr
    tracker: Tracker
    registry: MlflowRegistry
    tracing: Tracing

    def run(self) -> None:
        """Show or erase.

        Raises:
            ConfigError: There is no database.
            StoreError: The database cannot be used; the same command goes on.
        """
        from loraloop.feedback import erasure as sessions
        from loraloop.workflows import erasure

        names = ("client", "key", "conversation")
        chosen = {name: str(value) for name in names if (value := getattr(self, name)) is not None}
        with closing(self.feedback.existing()) as store:
            ids = sessions.Chosen(**chosen).ids(store) if chosen else sorted(sessions.known(store))
            if chosen and not ids:
                print(erasure.nothing(store, chosen))
                return
            places = [self.feedback.folder, *(Path(each).expanduser() for each in self.exports)]
            facts = erasure.named(places, ids, self.registry, self.tracker)
            facts |= erasure.traced(self.tracing, store, ids)
            if not chosen:
                title = f"{len(ids)} sessions were erased from {store.database.name}"
            elif self.confirm is True:
                title = f"erased from {store.database.name}"
                facts = {"erased": erasure.summary(*erasure.erase(store, ids, self.ocr))} | facts
            else:
                title = f"in {store.database.name}"
                facts = {"would be erased": erasure.summary(*erasure.expected(store, ids, self.ocr))} | facts
        console.facts(title, facts)
        if chosen and self.confirm is not True:
            again = command([*(each for each in self.job.overrides if not each.startswith("confirm=")), "confirm=true"])
            print(f"Nothing was erased. To erase it: {mask(again)}")
