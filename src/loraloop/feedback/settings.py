"""The config group ``feedback``: where sessions are kept, and whether corrections are reviewed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from loraloop.core.part import part
from loraloop.core.passwords import mask
from loraloop.core.session_file import ISSUES
from loraloop.errors import ConfigError
from loraloop.feedback.issues import labelled

if TYPE_CHECKING:
    from loraloop.feedback.store import OnKept, OnRating, Store

DAY_SECONDS = 86_400


@part
class Feedback:
    """The store of sessions and ratings.

    Attributes:
        url: ``sqlite:///FILE`` or ``postgresql://USER@HOST/DATABASE``; ``None`` is ``sessions.db`` in ``folder``.
        folder: Where that file and the key of rating links lie.
        review: ``required``: a correction that a user wrote, and in a retraining the answer of a sibling or a rule, is
            trained on after a person accepted it; ``none``: at once. ``source=sessions`` has ``source.review``.
        issues: What a rating may say went wrong: a list of words, or a map of words to the labels that the form shows;
            ``None`` is :data:`loraloop.core.session_file.ISSUES`. Kept ratings with other words stay as they are.
        link_days: For how long a rating link is good.
        busy_seconds: How long a write waits while another program writes.
        keep_days: Sessions that are older are erased with their ratings, by ``stage=tick`` and when a server starts;
            ``None`` keeps them.
        next_turn: Whether the user's next turn is kept as a signal (:mod:`loraloop.feedback.next_turn`).
    """

    url: str | None = None
    folder: Path = Path("mlruns")
    review: Literal["required", "none"] = "required"
    issues: Annotated[dict[str, str], BeforeValidator(labelled)] = Field(default_factory=lambda: dict(ISSUES))
    link_days: Annotated[float, Field(gt=0, le=3650)] = 30
    busy_seconds: Annotated[float, Field(gt=0, le=60)] = 5
    keep_days: Annotated[float, Field(gt=0, le=36_500)] | None = None
    next_turn: bool = False

    @field_validator("url")
    @classmethod
    def _names_a_database(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://")):
            raise ValueError("write sqlite:///FILE or postgresql://USER@HOST/DATABASE")
        return url

    def check(self) -> None:
        """Open the database once, if it is there, before any work.

        Raises:
            ConfigError: It cannot be reached, is no database, or has tables of another version.
        """
        from loraloop.feedback.database import Database, address

        if self.exists():
            Database(address(self.url, self.folder), self.busy_seconds).close()

    def open(self, on_rating: OnRating | None = None, on_kept: OnKept | None = None) -> Store:
        """The store; tables and key are made where they are missing.

        Args:
            on_rating: Called after every rating that was kept.
            on_kept: Called in the transaction that keeps a served session.

        Raises:
            ConfigError: The database cannot be reached.
            StoreError: The key cannot be read or made.
        """
        from loraloop.feedback.database import Database, address
        from loraloop.feedback.links import Links
        from loraloop.feedback.store import Store

        database = Database(address(self.url, self.folder), self.busy_seconds)
        links = Links(self.folder / "rating.key", round(self.link_days * DAY_SECONDS))
        reviewed = self.review == "required"
        return Store(
            database,
            links,
            issues=self.issues,
            reviewed=reviewed,
            next_turn=self.next_turn,
            on_rating=on_rating,
            on_kept=on_kept,
        )

    def existing(self) -> Store:
        """The store of a database that is there already.

        Raises:
            ConfigError: There is no such database.
        """
        if not self.exists():
            place = self.folder / "sessions.db" if self.url is None else mask(self.url)
            raise ConfigError(
                f"{place} does not exist: nothing was served "
                "yet (loraloop stage=serve), or it is kept elsewhere (feedback.url=sqlite:///FILE)"
            )
        return self.open()

    def exists(self) -> bool:
        """Whether the database file is there; that of a server is taken to be there."""
        from loraloop.feedback.database import address

        url = address(self.url, self.folder)
        return url.get_backend_name() != "sqlite" or Path(str(url.database)).exists()
