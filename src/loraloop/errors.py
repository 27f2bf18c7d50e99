"""The exception tree: every error a person can cause or cure says the rule, the value and the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loraloop.records import Fitting


class LoraloopError(Exception):
    """Base of every error that loraloop raises on purpose; printed without a traceback."""

    exit_code = 1


class UnexpectedError(LoraloopError):
    """Something raised an error that loraloop did not expect: a mistake in it or a library. The log has the traceback.

    Its exit status is that of an internal software error (sysexits.h).
    """

    exit_code = 70


class ConfigError(LoraloopError):
    """The configuration cannot be built: found before any work, so nothing was written.

    Args:
        problems: One complete sentence each: key, value, rule and what to write instead; all are shown together.
    """

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class MissingDependencyError(ConfigError):
    """An optional package or program is not installed; the message holds the line that installs it."""


class DataError(LoraloopError):
    """Input data is missing, unreadable or too little; names the file or row."""


class ModelError(LoraloopError):
    """A base model or adapter cannot be loaded, or does not fit the other."""


class GrammarError(ModelError):
    """An answer cannot be held to the form that is asked for: the schema says something that no grammar can.

    Args:
        message: What it is.
        param: The request's parameter at fault.
    """

    def __init__(self, message: str, param: str) -> None:
        self.param = param
        super().__init__(message)


class TrainingError(LoraloopError):
    """Training cannot go on: no trainable token, a loss that is not finite, a checkpoint that does not verify."""


class LostProcessError(TrainingError):
    """A process of a training in several was killed or crashed; the others were ended."""


class TooLongError(TrainingError):
    """Most rows have more tokens than they may.

    Attributes:
        fitting: All of the rows, as they would be seen if they might.
    """

    def __init__(self, message: str, fitting: Fitting) -> None:
        super().__init__(message)
        self.fitting = fitting


class PrunedError(LoraloopError):
    """A trial was stopped early because others were better by then: an outcome, not a failure."""


class SweepError(LoraloopError):
    """A sweep stops: too many trials failed, or its study was lost while it ran."""


class TrackingError(LoraloopError):
    """The tracking server or database cannot be reached or used."""


class BusyError(LoraloopError):
    """A server's queue is full: ask again later."""


class StoreError(LoraloopError):
    """A session or rating could not be kept: the disk is full, the database locked or out of reach."""


class JudgeError(LoraloopError):
    """A judge does not answer; what it said before is kept."""


class RegistryError(LoraloopError):
    """A version, alias or artefact in the registry is missing, altered or not allowed."""


class UnknownVersionError(RegistryError):
    """There is no version of that name, number or alias."""


class ArtefactError(RegistryError):
    """An adapter's files are gone, or are not what was registered."""


class TerminatedError(KeyboardInterrupt):
    """The process was asked to end by SIGTERM; what is open is closed as after Ctrl+C."""

    exit_code = 143


class UnservableError(ArtefactError):
    """An adapter has a form that servers refuse to load beside others."""


class AliasMovedError(RegistryError):
    """An alias leads to another version than the one that a decision was made against."""
