"""No judge: nothing is rated but by people."""

from __future__ import annotations

from typing import NoReturn

from loraloop.core.part import part
from loraloop.errors import ConfigError


@part
class NoJudge:
    """Rates nothing; whatever asks it is told how to name a judge."""

    @property
    def by(self) -> str:
        """Nobody."""
        return "none"

    @property
    def rule(self) -> str:
        """None."""
        return "none"

    def check(self) -> None:
        """Always an error.

        Raises:
            ConfigError: There is no judge.
        """
        self.open()

    def open(self) -> NoReturn:
        """Always an error, as :meth:`check`."""
        raise ConfigError(
            "judge=none rates nothing: name a server with judge=openai judge.url=http://HOST:PORT/v1 judge.model=NAME"
        )
