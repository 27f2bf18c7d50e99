"""A study's storage that outlasts an absence of its database: what a lost connection broke off is done again."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

from loraloop.core.console import duration
from loraloop.core.passwords import mask

OUTAGE_SECONDS = 300.0
"""How long a database may be away: PostgreSQL's restart or failover takes seconds to minutes."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
MAKE, STATE = "_create_new_trial", "set_trial_state_values"
CALLS = frozenset({
    MAKE, STATE, "_set_trial_param", "_get_trials", "_get_best_trial_id", "get_trial", "get_trial_param",
    "get_trial_user_attrs", "get_trial_system_attrs", "get_trial_id_from_study_id_trial_number",
    "get_study_id_from_name", "get_study_name_from_id", "get_study_directions", "get_study_user_attrs",
    "get_study_system_attrs", "get_all_studies", "set_study_user_attr", "set_study_system_attr",
    "set_trial_intermediate_value", "set_trial_user_attr", "set_trial_system_attr",
})  # fmt: skip
"""Methods that are called again; all but the first two have the same effect a second time."""

_log = logging.getLogger(__name__)


@functools.cache
def lasting() -> type[Any]:
    """Optuna's storage for a PostgreSQL server that may be away for :data:`OUTAGE_SECONDS`.

    Its attribute ``hold`` is called before a trial is made, and after an absence: a claim on the study falls with its
    connection.
    """
    from optuna.storages import RDBStorage

    class LastingStorage(_Patience, RDBStorage):
        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            return functools.partial(self._until_done, name, found) if name in CALLS else found

    return LastingStorage


class _Patience:
    """Calls the storage's methods again.

    A transaction whose commit was broken off may have been carried out all the same. So a trial that was to be made, or
    to be given a state, is looked for before that is done again; this relies on the one sweep that works on a study.
    After an absence that was too long, or was interrupted, no call waits until one succeeds.
    """

    hold: Callable[[], None] | None = None
    _given_up = False
    get_trial: Callable[[int], Any]
    _get_trials: Callable[..., list[Any]]

    def _until_done(self, name: str, call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        began: float | None = None
        pause = FIRST_PAUSE
        while True:
            try:
                if self.hold is not None and (name == MAKE or began is not None):
                    self.hold()
                done = self._found(name, *given, **named) if began is not None else None
                made = call(*given, **named) if done is None else done
            except Exception as error:
                if self._given_up or not _lost(error):
                    raise
                began = self._absent(error) if began is None else began
                if time.monotonic() - began > OUTAGE_SECONDS:
                    self._given_up = True
                    raise
            else:
                if began is not None:
                    _log.warning("The study's database answers again, after %s.", duration(time.monotonic() - began))
                self._given_up = False
                return made
            self._sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _absent(self, error: Exception) -> float:
        cause = " ".join(str(getattr(error.__cause__, "orig", None) or error).split())
        most = duration(OUTAGE_SECONDS)
        _log.warning("The study's database does not answer, and is waited for, %s at most: %s", most, mask(cause))
        return time.monotonic()

    def _sleep(self, seconds: float) -> None:
        try:
            time.sleep(seconds)
        except BaseException:
            self._given_up = True
            raise

    def _found(self, name: str, *given: Any, **named: Any) -> Any:
        """What a call that was broken off had done; ``None`` if nothing."""
        if name == STATE:
            trial, state = given[0], named.get("state", given[1] if len(given) > 1 else None)
            return True if self.get_trial(trial).state == state else None
        if name == MAKE:
            study, template = given[0], named.get("template_trial", given[1] if len(given) > 1 else None)
            newest = max(self._get_trials(study, None, set(), -1), key=lambda trial: trial.number, default=None)
            return newest if newest is not None and _made(newest, template) else None
        return None


def _made(trial: Any, template: Any) -> bool:
    """Whether a trial is as one that was just made from a template, or, for ``None``, one that begins without."""
    if template is None:
        return trial.state.name == "RUNNING" and not (trial.params or trial.user_attrs or trial.system_attrs)
    return (trial.state, trial.system_attrs, trial.user_attrs) == (
        template.state, template.system_attrs, template.user_attrs,
    )  # fmt: skip


def _lost(error: Exception) -> bool:
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import DBAPIError, OperationalError

    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return isinstance(cause, OperationalError) or (isinstance(cause, DBAPIError) and cause.connection_invalidated)
