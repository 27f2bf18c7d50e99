"""One sweep at work on a study: which trial comes next, how each ended, and when it is enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loraloop.errors import ConfigError, SweepError
from loraloop.sweep import ending, sampling
from loraloop.sweep import space as spaces
from loraloop.sweep.space import Space
from loraloop.sweep.trial import RESULT, Trial

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from loraloop.sweep.study import Sweep

RERUN_OF = "rerun_of"
CLONE_OF = "clone_of"
TOTAL = "n_trials"
ATTEMPT = "attempt"
BATCH = "batch"
AT_MOST = "at_most"
REASON = "reason"


@dataclass(frozen=True, slots=True)
class Proposal:
    """Parameters to try: ``number`` is the trial's, and its job's."""

    number: int
    trial_id: int
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finished:
    """A trial that ended."""

    number: int
    params: Mapping[str, Any]
    ending: ending.Ending


class StudyRunner:
    """Asks a study for trials and tells it how they ended.

    Args:
        settings: The sweep's configuration.
        study: The study, claimed by this process.
        url: Its database.
        space: What is searched.
        seed: Of every proposal.
        order: Seed of a grid's order, which stays the study's.
    """

    def __init__(self, settings: Sweep, study: optuna.Study, url: str, space: Space, seed: int, order: int) -> None:
        self.settings = settings
        self.study = study
        self.space = space
        self.url = url
        self.failures = 0
        self._seed = seed
        self._points = self._grid(order)
        self._total = min(settings.n_trials, len(self._points)) if self._points else settings.n_trials
        self._distributions = {key: dimension.distribution() for key, dimension in space.items()}

    @property
    def total(self) -> int:
        """How many proposals the study is to have, those of earlier sweeps included."""
        return max(self._total, self._proposals(self._trials()))

    @property
    def done(self) -> int:
        """How many proposals have ended, whatever way; one that is tried again has not."""
        trials = self._trials()
        return self._proposals(trials) - len(_in(trials, "RUNNING", "WAITING"))

    @property
    def remaining(self) -> int:
        """How many trials are still to be asked for: new proposals, and old ones that wait to be tried again."""
        return self._remaining(self._trials())

    def batch_size(self, most: int) -> int:
        """How many trials to ask for next: ``most``, or fewer where the next ones died together (:meth:`recover`)."""
        trials = self._trials()
        size = min(self._remaining(trials), most)
        for place, trial in enumerate(_in(trials, "WAITING")):
            if place < size:
                size = min(size, max(place, trial.user_attrs.get(AT_MOST, most)))
        return size

    def refill_size(self, free: int) -> int:
        """How many trials to ask for that begin while others of their batch train; none after a batch that died."""
        trials = self._trials()
        suspected = any(AT_MOST in trial.user_attrs for trial in _in(trials, "WAITING", "RUNNING"))
        return 0 if suspected else min(self._remaining(trials), free)

    def ask(
        self, count: int, configure: Callable[[optuna.Trial], None] | None = None, together: int | None = None
    ) -> list[Proposal]:
        """The next trials, numbered one after the other.

        Args:
            count: How many.
            configure: A custom search space, which suggests more parameters.
            together: How many run at once with them; by default ``count``.
        """
        proposals = []
        for _ in range(count):
            trial = self._ask({BATCH: together or count})
            if configure is not None:
                configure(trial)
            proposals.append(Proposal(trial.number, trial._trial_id, dict(trial.params)))
        return proposals

    def identity(self, proposal: Proposal, parent: str | None = None) -> Trial:
        """What the proposal's job has to know."""
        return Trial(
            storage=self.url,
            study=self.study.study_name,
            number=proposal.number,
            trial_id=proposal.trial_id,
            parent=parent,
            pruner=self.settings.pruner,
        )

    def tell(self, proposal: Proposal, returned: object) -> Finished:
        """Close a trial with what its job returned or raised, and queue it again where that may help."""
        verdict = ending.judge(self._kept(proposal, returned), len(self.study.directions))
        if verdict.state == "FAIL":
            self._fail(proposal, verdict)
        else:
            self._note(proposal.trial_id, REASON, verdict.reason)
            self._close(proposal.trial_id, verdict)
        return Finished(proposal.number, proposal.params, verdict)

    def check_budget(self, finished: Finished) -> None:
        """Stop where more trials of this sweep failed for good than ``max_failure_rate`` allows.

        Raises:
            SweepError: With the failure of ``finished``.
        """
        allowed = self.settings.max_failure_rate * self._total
        if self.failures > allowed:
            raise SweepError(
                f"{self.failures} of {self._total} trials failed, and max_failure_rate="
                f"{self.settings.max_failure_rate:g} allows {int(allowed)}; the last, trial {finished.number}: "
                f"{finished.ending.reason}"
            )

    def recover(self, *, died: bool) -> int:
        """Close the trials that a sweep left running, and queue their parameters again; how many there were.

        Nobody knows which trial of a batch ended their process. So none of them is charged with an attempt: they go
        on in batches half as large, and a trial that died alone is charged. A trial that kills its process thus fails
        for good after ``max_retries`` + 1 attempts alone, and its neighbours do not.

        Args:
            died: Whether their process ended without closing them (killed, out of memory). An interrupt of the sweep
                charges nobody.
        """
        left = _in(self._trials(), "RUNNING")
        for trial in left:
            attempt, batch = trial.user_attrs.get(ATTEMPT, 1), trial.user_attrs.get(BATCH, len(left))
            charged = died and batch == 1
            if self._whole(trial) and not (charged and attempt > self.settings.max_retries):
                self._queue(trial, attempt + charged, batch // 2 if died else 0)
            reason = f"its process died in attempt {attempt}" if died else "its sweep ended before it did"
            self._note(trial._trial_id, REASON, reason)
            self._close(trial._trial_id, ending.Ending("FAIL"))
        return len(left)

    def best(self) -> list[FrozenTrial]:
        """The best trial, or with several objectives those that no other dominates; empty without a completed one."""
        if not _in(self._trials(), "COMPLETE"):
            return []
        return [self.study.best_trial] if len(self.study.directions) == 1 else list(self.study.best_trials)

    def _grid(self, order: int) -> list[dict[str, spaces.Scalar]]:
        if self.settings.sampler["_target_"] != sampling.GRID:
            return []
        from numpy.random import default_rng

        try:
            points = spaces.grid(self.space)
        except ValueError as error:
            raise ConfigError(f"hydra/sweeper/sampler=grid: {error}") from error
        # In this order the first trials of a large grid are spread over it.
        return [points[index] for index in default_rng(order).permutation(len(points))]

    def _ask(self, attributes: Mapping[str, Any]) -> optuna.Trial:
        trials = self._trials()
        ordinal = self._proposals(trials)
        self.study.sampler = self._sampler(ordinal)
        if self._points and not _in(trials, "WAITING"):
            return self._begin(self._points[ordinal], attributes)
        trial = self.study.ask(self._distributions)
        for key, value in attributes.items():
            trial.set_user_attr(key, value)
        return trial

    def _begin(self, point: dict[str, spaces.Scalar], attributes: Mapping[str, Any]) -> optuna.Trial:
        """A trial of a point that is known, kept in one piece: to ask for it would write each parameter apart."""
        from optuna import Trial
        from optuna.trial import TrialState, create_trial

        trial = create_trial(
            state=TrialState.RUNNING,
            params=point,
            distributions=self._distributions,
            user_attrs=dict(attributes),
            system_attrs={"fixed_params": point},
        )
        return Trial(self.study, self.study._storage.create_new_trial(self.study._study_id, trial))

    def _sampler(self, ordinal: int) -> optuna.samplers.BaseSampler:
        from optuna.samplers import RandomSampler

        if self._points:  # which says all but what a custom_search_space adds
            return RandomSampler(seed=self._seed)
        return sampling.sampler(self.settings.sampler, self._seed, ordinal, self.settings.allow_targets)

    def _kept(self, proposal: Proposal, returned: object) -> object:
        if not isinstance(returned, Exception):
            return returned
        attributes = self.study._storage.get_trial(proposal.trial_id).user_attrs
        return attributes.get(RESULT, returned)

    def _fail(self, proposal: Proposal, verdict: ending.Ending) -> None:
        trial = self.study._storage.get_trial(proposal.trial_id)
        if trial.state.is_finished():  # a person closed it, or another sweep, which has queued it if that was due
            return
        attempt, batch = trial.user_attrs.get(ATTEMPT, 1), trial.user_attrs.get(BATCH, 1)
        if verdict.together and batch > 1:
            self._queue(trial, attempt, batch // 2)
        elif verdict.again and attempt <= self.settings.max_retries:
            self._queue(trial, attempt + 1)
        else:
            self.failures += 1
        self._note(proposal.trial_id, REASON, verdict.reason)
        self._close(proposal.trial_id, verdict)

    def _queue(self, trial: FrozenTrial, attempt: int, at_most: int = 0) -> None:
        limit = at_most or trial.user_attrs.get(AT_MOST)
        attributes = {RERUN_OF: trial.number, ATTEMPT: attempt} | ({AT_MOST: limit} if limit else {})
        # Queued before the trial is closed: a process killed in between has lost nothing, and is recovered here.
        if not any(other.user_attrs.get(RERUN_OF) == trial.number for other in _in(self._trials(), "WAITING")):
            self.study.enqueue_trial(trial.params, attributes)

    def _close(self, trial_id: int, verdict: ending.Ending) -> None:
        from optuna.trial import TrialState

        number = self.study._storage.get_trial(trial_id).number
        self.study.tell(number, verdict.values, TrialState[verdict.state], skip_if_finished=True)

    def _note(self, trial_id: int, key: str, text: str) -> None:
        if text and not self.study._storage.get_trial(trial_id).state.is_finished():
            self.study._storage.set_trial_user_attr(trial_id, key, text)

    def _trials(self) -> list[FrozenTrial]:
        """All trials, from the database: each call reads those that have not ended."""
        return self.study.get_trials(deepcopy=False)

    def _remaining(self, trials: Sequence[FrozenTrial]) -> int:
        return len(_in(trials, "WAITING")) + max(0, self._total - self._proposals(trials))

    def _proposals(self, trials: Sequence[FrozenTrial]) -> int:
        # Of a trial that was killed while it was proposed nothing is left: its place is proposed anew.
        void = {trial.number for trial in _in(trials, "FAIL") if not self._whole(trial)}
        more = {RERUN_OF, CLONE_OF}
        return sum(more.isdisjoint(trial.user_attrs) and trial.number not in void for trial in trials)

    def _whole(self, trial: FrozenTrial) -> bool:
        return trial.params.keys() >= self.space.keys() and bool(trial.params)


def _in(trials: Sequence[FrozenTrial], *states: str) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state.name in states]
