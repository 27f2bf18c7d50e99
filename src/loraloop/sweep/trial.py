"""A trial as the job sees it that carries it out, whichever process or machine that is."""

from __future__ import annotations

import base64
import functools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from loraloop.core.passwords import MASKED, mask
from loraloop.errors import PrunedError
from loraloop.sweep import sampling, storage

if TYPE_CHECKING:
    from optuna import Study

VARIABLE = "LORALOOP_TRIAL"
"""Environment variable in which a job finds its trial."""
RESULT = "result"
WORK = "work"
"""Attribute of a trial that trained to its end: ``steps``, ``rows_per_step`` and ``seconds``."""
PARENT = "parent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial of a study.

    Attributes:
        storage: The study database's URL.
        study: The study's name.
        number: The trial's number in the study, from 0.
        trial_id: Its key in the database.
        parent: The sweep's own run, under which the trial's run is nested.
        pruner: ``_target_`` and arguments of the pruner, which Optuna does not keep with the study.
    """

    storage: str
    study: str
    number: int
    trial_id: int
    parent: str | None = None
    pruner: Mapping[str, Any] | None = None

    def encode(self) -> str:
        """Letters, digits, ``-`` and ``_``: a text that needs no quotes in an override or a shell.

        A password of the database is not in it, because the job's folder keeps its overrides.
        """
        plain = asdict(self) | {"storage": mask(self.storage)}
        return base64.urlsafe_b64encode(json.dumps(plain).encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str, url: str | None = None) -> Trial:
        """Inverse of :meth:`encode`; ``url`` is the database's address as the sweep was given it."""
        values = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if url is not None and MASKED in values["storage"]:
            values["storage"] = storage.address(url, "")
        return cls(**values)

    def report(self, step: int, loss: float) -> None:
        """Tell the study a validation loss and ask its pruner whether to go on.

        Where the study maximises, the loss is reported negated: pruners compare in the study's direction. With several
        objectives there is nothing to compare, and nothing is reported.

        Raises:
            PrunedError: The pruner gives the trial up, or the study closed it meanwhile.
        """
        import optuna

        study = self._study()
        if len(study.directions) > 1:
            if study._storage.get_trial(self.trial_id).state.is_finished():
                raise PrunedError(f"trial {self.number} ended at step {step}: the sweep went on without it")
            return
        downwards = study.direction == optuna.study.StudyDirection.MINIMIZE
        trial = optuna.trial.Trial(study, self.trial_id)
        try:
            trial.report(loss if downwards else -loss, step)
            late = trial.should_prune()
        except optuna.exceptions.UpdateFinishedTrialError as error:
            raise PrunedError(f"trial {self.number} ended at step {step}: the sweep went on without it") from error
        if late:
            rule = type(study.pruner).__name__
            raise PrunedError(f"trial {self.number} pruned at step {step} by {rule}: loss {loss:.4g}")

    def note(self, **attributes: Any) -> None:
        """Keep facts with the trial as its user attributes; they are plain values.

        Raises:
            PrunedError: The study closed the trial meanwhile.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        backend = storage.connect(self.storage)
        try:
            for key, value in attributes.items():
                backend.set_trial_user_attr(self.trial_id, key, value)
        except UpdateFinishedTrialError as error:
            raise PrunedError(f"trial {self.number} was closed: the sweep went on without it") from error

    def leads(self, value: float) -> bool:
        """Whether no trial that has ended is better than ``value``; always with several objectives."""
        import optuna

        study = self._study()
        done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if len(study.directions) > 1:
            return True
        if study.direction == optuna.study.StudyDirection.MINIMIZE:
            return all(value <= trial.values[0] for trial in done)
        return all(value >= trial.values[0] for trial in done)

    def finish(self, values: float | Sequence[float]) -> None:
        """Keep the job's result with the trial, where it outlives a launcher that does not deliver it."""
        self.note(**{RESULT: values if isinstance(values, (int, float)) else list(values)})

    def _study(self) -> Study:
        return _load(self.storage, self.study, json.dumps(self.pruner), os.getpid())


@functools.lru_cache(maxsize=8)
def _load(url: str, study: str, pruner: str, process: int) -> Study:
    """The study as a job sees it; loaded once, it reads ended trials once and not at every report."""
    import optuna

    spec = json.loads(pruner)
    return optuna.load_study(
        study_name=study,
        storage=storage.connect(url),
        # A job proposes nothing: this sampler asks nothing of the study.
        sampler=optuna.samplers.RandomSampler(),
        # The sweep has held the target against the person's prefixes; this process gets only its answer.
        pruner=sampling.pruner(spec, (str(spec["_target_"]),) if spec else ()),
    )
