"""One experiment in three phases: prepare, train, conclude. A pack runs the middle one for many experiments at once."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from loraloop import __version__
from loraloop.core import console, imports
from loraloop.core.adapter_files import CONFIG, WEIGHTS
from loraloop.core.hashing import sha256
from loraloop.core.metrics import OBJECTIVES
from loraloop.core.overrides import resume_command
from loraloop.core.passwords import mask
from loraloop.core.patience import patiently
from loraloop.core.signals import READER_GONE
from loraloop.core.suggest import nearest
from loraloop.errors import ConfigError, DataError, LostProcessError, TrackingError, TrainingError
from loraloop.protocols import TrainingJob
from loraloop.sweep.trial import WORK
from loraloop.tracker.mlflow import Mlflow
from loraloop.tracker.none import NoTracker
from loraloop.trainer import checkpoints
from loraloop.workflows import continuation, description, promotion, report
from loraloop.workflows import rows as data
from loraloop.workflows.multirun import results
from loraloop.workflows.parts import ExperimentParts
from loraloop.workflows.same_base import same_base

if TYPE_CHECKING:
    from peft import PeftModel

    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.evaluation.evaluation import Evaluation
    from loraloop.protocols import EvaluationCallback, Run, Tracker
    from loraloop.records import Dataset, Estimate, Job, LoadedModel, Manifest, Score, Training, Version
    from loraloop.registry.mlflow import MlflowRegistry

_log = logging.getLogger(__name__)

SCORES = "evaluation"
ADAPTER = "adapter"
FEW_SHOT = "few_shot"
DATA = "dataset.jsonl"
DATA_GROUPS = ("source", "ocr", "dataset", "model")

T = TypeVar("T")
Values = float | tuple[float, ...]


@dataclass(frozen=True, slots=True)
class References:
    """What an adapter is compared with.

    Attributes:
        base: Score of the base.
        few_shot: The base's score with training rows as examples; ``None`` where that is not asked for.
        champion: The champion before the training; ``None`` if there is none or the gate does not look at it.
        champion_score: ``None`` if the champion is of another base.
    """

    base: Score
    champion: Version | None = None
    champion_score: Score | None = None
    few_shot: Score | None = None


@dataclass(frozen=True, kw_only=True)
class Experiment(ExperimentParts):
    """Stage ``experiment``: from raw input to a registered adapter.

    Attributes:
        resume: Folder of an interrupted job with the same settings and data: training goes on from its newest
            checkpoint and ends where it would have ended.
        continue_from: Version or folder of the adapter whose weights are the start, with a fresh optimizer; ``None``
            begins a new adapter.
        objective: What :meth:`run` returns: one or several of :data:`loraloop.core.metrics.OBJECTIVES`.
    """

    resume: str | None = None
    continue_from: str | None = None
    objective: str | list[str] = "loss"

    @classmethod
    def of(cls, parts: ExperimentParts, **changes: Any) -> Experiment:
        """The experiment of these parts, with ``changes`` in place of some."""
        return cls(**{each.name: getattr(parts, each.name) for each in fields(ExperimentParts)} | changes)

    def run(self) -> Values:
        """Collect, train, evaluate base and adapter on the same held-out rows, register, and ask the gate.

        A trial of a sweep is not registered: the sweep's best one is.

        Returns:
            The results named by ``objective``.

        Raises:
            DataError: The job's folder holds an earlier run.
            PrunedError: The sweep that the job belongs to has given the trial up.
        """
        rows, estimate = self.prepare()
        with self.running(rows, estimate) as run, self.loaded() as loaded, _interruptible(self.job, self.beginning):
            references = self.references(loaded, rows)
            self.log_start(run, estimate, references.base)
            report_to_study = self.job.trial.report if self.job.trial else None
            before = Path(self.resume) if self.resume else None
            training = self.train(loaded, rows, run, before, report_to_study)
            return self.conclude(run, rows, loaded, references, training)

    def prepare(self) -> tuple[Dataset, Estimate]:
        """First phase: check everything, make the rows, print what to expect.

        Raises:
            ConfigError: Parts do not fit each other, or ``objective`` or ``gate.metric`` is no result of these rows, or
                the registry needs a run that the tracker does not make.
            DataError: The job's folder holds an earlier run.
            TrainingError: ``resume`` holds no checkpoint that verifies.
        """
        with imports.quick():
            return self._prepare()

    def _prepare(self) -> tuple[Dataset, Estimate]:
        _require_known(self._objectives)
        _own_folder(self.job, self.resume)
        if self.resume:
            checkpoints.sound(Path(self.resume))
        if self.job.trial is None and self.model.weights != "random":
            _require_run(self.registry, self.tracker)
        skeleton = self.skeleton()
        if self.beginning is not None:
            continuation.tell(self.beginning)
        data.fits(skeleton, self.lora, self.trainer)
        data.hint_chat(skeleton, self.dataset)
        rows = self._cached("rows", DATA_GROUPS, lambda: self._rows(skeleton))
        _require_measurable({*self._objectives, self.gate.metric}, rows)
        estimate = self._estimate(skeleton, rows)
        report.data(rows)
        report.estimate(estimate)
        return rows, estimate

    def _estimate(self, skeleton: LoadedModel, rows: Dataset) -> Estimate:
        """What the training takes; jobs of a multirun that differ in nothing that it depends on share it."""
        free = {"trainer": {"learning_rate", "warmup", "weight_decay", "seed"}, "lora": {"alpha", "alpha_over_r"}}
        kept = {
            group: {key: value for key, value in self.job.config.get(group, {}).items() if key not in names}
            for group, names in free.items()
        }
        name = f"estimate {json.dumps(kept, sort_keys=True, default=str)}"
        return self._cached(
            name, ("model",), lambda: self.trainer.estimate(skeleton, self.lora, rows), rows.fingerprint
        )

    def skeleton(self) -> LoadedModel:
        """The base's shape and tokenizer, without its weights."""
        return self._skeleton if self.job.cache is None else self._cached("skeleton", ("model",), self.model.skeleton)

    @cached_property
    def _skeleton(self) -> LoadedModel:
        return self.model.skeleton()

    @contextmanager
    def loaded(self) -> Iterator[LoadedModel]:
        """The base to train on; afterwards the next job of a multirun gets it as it was before this one."""
        from loraloop.model import adapters

        loaded = self._cached("model", ("model",), self.model.load)
        # One tokenizer, so that rows which were tokenised for the estimate are not tokenised again.
        loaded = replace(loaded, tokenizer=self.skeleton().tokenizer)
        imports.freeze()
        try:
            yield loaded
        finally:
            adapters.detach(loaded.model)

    @contextmanager
    def running(
        self,
        rows: Dataset,
        estimate: Estimate,
        name: str | None = None,
        parent: str | None = None,
        resume: str | None = None,
    ) -> Iterator[Run]:
        """The tracked run that spans training and evaluation; parameters and data are logged at its start.

        Args:
            rows: The split dataset.
            estimate: What the training is expected to take.
            name: Name of the run; by default the choices that made it.
            parent: Id of the run under which it is nested; by default that of the sweep.
            resume: Id of an interrupted run to continue.
        """
        job = self.job
        parent = parent or (job.trial.parent if job.trial else None)
        with ExitStack() as stack:

            def begin() -> Run:
                return stack.enter_context(self.tracker.start(name or _name(job), parent, resume))

            run = patiently(begin, TrackingError) if job.trial else begin()
            tags = {f"choice.{group}": choice for group, choice in job.choices.items()}
            if job.trial:
                job.trial.note(run=run.id, folder=str(job.output))
                tags["trial"] = str(job.trial.number)
            run.params(self._params())
            run.tags(tags | {description.TAG: description.begun(job, rows, self.lora)})
            _log_data(run, job, self.dataset, rows)
            yield run

    def log_start(self, run: Run, estimate: Estimate, base: Score) -> None:
        """Log the base's held-out score as that of step 0, before any other metric, and the estimate.

        MLflow's comparison opens on the metric that was logged first, so this one is what runs are compared by.
        """
        name = self._compared_by(base)
        run.metrics({f"heldout/{name}": base[name]})
        run.metrics({f"estimate/{name}": float(value) for name, value in asdict(estimate).items()})

    def base_score(self, loaded: LoadedModel, rows: Dataset) -> Score:
        """The base's score on the held-out rows."""
        return self._cached(
            "base score",
            (*DATA_GROUPS, "evaluation"),
            lambda: self.evaluation.score_base(loaded, rows.validation, self.source.correct),
            rows.fingerprint,
        )

    def references(self, loaded: LoadedModel, rows: Dataset) -> References:
        """What the adapter will be compared with, measured before the training on the untouched base.

        Raises:
            RegistryError: The champion is damaged.
        """
        base = self.base_score(loaded, rows)
        few_shot = self.few_shot_score(loaded, rows)
        registers = self.job.trial is None and loaded.base.weights != "random"
        champion = self.registry.champion() if registers else None
        if champion is None or "champion" not in self.gate.must_beat:
            return References(base, few_shot=few_shot)
        return References(base, champion, self.score_of(champion, loaded, rows), few_shot)

    def few_shot_score(self, loaded: LoadedModel, rows: Dataset) -> Score | None:
        """The base's score on the held-out rows with training rows as examples, if ``evaluation.few_shot`` asks."""
        return self._cached(
            "few-shot score",
            (*DATA_GROUPS, "evaluation"),
            lambda: self.evaluation.score_few_shot(loaded, rows.validation, rows.train, self.source.correct),
            rows.fingerprint,
        )

    def score_of(self, version: Version, loaded: LoadedModel, rows: Dataset) -> Score | None:
        """A registered version's score on the held-out rows; ``None`` if it is of another base."""
        from loraloop.errors import ModelError
        from loraloop.model import adapters
        from loraloop.registry import manifest as manifests

        try:
            manifests.verify_adapter(loaded.base, version.manifest)
        except ModelError:
            return None
        return self.evaluation.score_adapter(
            loaded,
            rows.validation,
            self.source.correct,
            manifests.content_sha256(version.path, version.manifest),
            adapters.attached(loaded.model, version.path),
            f"evaluate version {version.number}",
        )

    def train(
        self,
        loaded: LoadedModel,
        rows: Dataset,
        run: Run,
        resume: Path | None = None,
        on_evaluation: EvaluationCallback | None = None,
    ) -> Training:
        """Train an adapter into the job's folder; the source's own rule is the trainer's reward.

        Args:
            loaded: The base; afterwards it is as it was.
            rows: The split dataset.
            run: Where metrics go.
            resume: Folder of an interrupted training to continue.
            on_evaluation: Called with step and loss after each validation; may end the training.

        Raises:
            TrainingError: Such as a loss that is not finite, or a trainer that changed the base.
        """
        begin = self.beginning
        if begin is not None:
            continuation.require_base(str(self.continue_from), begin, loaded)
            run.params({continuation.PARAM: continuation.name(begin)})
        job = TrainingJob(
            loaded=loaded,
            lora=self.lora,
            data=rows,
            run=run,
            output=self.job.output,
            reward=self.source.correct,
            resume=resume,
            on_evaluation=on_evaluation,
            begin_from=begin.path if begin else None,
            config=self.job.config,
        )
        with same_base(loaded, self.model, self.lora):
            return self.trainer.train(job)[1]

    @cached_property
    def beginning(self) -> Version | None:
        """The version whose weights the training begins with; ``None`` for a new adapter.

        Raises:
            RegistryError: There is no such version.
            ConfigError: ``lora`` is of another shape, or the base is quantised otherwise.
        """
        if self.continue_from is None:
            return None
        return continuation.start(self.registry, str(self.continue_from), self.skeleton(), self.lora)

    def conclude(
        self, run: Run, rows: Dataset, loaded: LoadedModel, references: References, training: Training
    ) -> Values:
        """Last phase: evaluate, save, register and ask the gate.

        A trial of a sweep is only evaluated and saved. A job of another multirun is put before the gate as well; the
        best of them is registered when all have ended.
        """
        base = references.base
        score, manifest = self.measure(run, rows, loaded, base, training, references.few_shot)
        values = self._values(score, training)
        verdict = None
        if self.job.trial is None:

            def rescore(champion: Version) -> Score | None:
                known = references.champion
                if known and (known.name, known.number) == (champion.name, champion.number):
                    return references.champion_score
                return self.score_of(champion, loaded, rows)

            candidate = promotion.Candidate(
                training.adapter, manifest, score, base, run.id, rescore, references.few_shot
            )
            put = promotion.judge if self.job.multirun else promotion.promote_if_passed
            verdict = put(self.registry, self.gate, candidate)
            run.tags(verdict.tags())
            if verdict.version:
                lines = description.registered(verdict.version, self.registry), self._description(rows, base, score)
                run.tags({description.TAG: "\n".join(lines)})
        report.summary(base, score, training, verdict, run.link, self.tracker.ui_command, references.few_shot)
        if self.job.trial:
            work = {
                "steps": training.steps,
                "rows_per_step": getattr(self.trainer, "rows_per_step", 0),
                "seconds": training.seconds,
            }
            self.job.trial.note(**{WORK: work})
            self.job.trial.finish(values)
        elif self.job.multirun:
            self._leave_result(run, references, values)
        return values

    def _leave_result(self, run: Run, references: References, values: Values) -> None:
        """Write into the job's folder what the end of the multirun compares."""
        from loraloop.evaluation import store

        champion = references.champion if references.champion_score else None
        if references.champion_score:
            store.write(references.champion_score, self.job.output / SCORES / "champion")
        result = results.Result(
            run=run.id,
            model=self.registry.name,
            objective=self._objectives[0],
            value=values[0] if isinstance(values, tuple) else values,
            overrides=self.job.overrides,
            champion=champion.manifest.weights_sha256 if champion else None,
        )
        results.write(result, self.job.output)

    def measure(
        self,
        run: Run,
        rows: Dataset,
        loaded: LoadedModel,
        base: Score,
        training: Training,
        few_shot: Score | None = None,
    ) -> tuple[Score, Manifest]:
        """Evaluate the saved adapter on the base and write its scores and its manifest; nothing is registered."""
        from loraloop.evaluation.general import instructions, lm_eval_tasks
        from loraloop.model import adapters

        template, general, tasks = self.dataset.template, None, None
        before = self.evaluation.score_general(loaded, template)
        tasks_before = self.evaluation.measure_tasks(loaded.model, loaded.tokenizer, template)
        with adapters.attached(loaded.model, training.adapter) as trained:
            score = self.evaluation.score(
                trained, loaded.tokenizer, rows.validation, self.source.correct, "evaluate adapter"
            )
            after = self.evaluation.score_general(loaded, template, trained)
            if before is not None and after is not None:
                general = instructions.compare(before, after)
            tasks_after = self.evaluation.measure_tasks(trained, loaded.tokenizer, template)
            if tasks_before is not None and tasks_after is not None:
                tasks = lm_eval_tasks.compare(tasks_before, tasks_after)
            made = self._manifest(run, loaded, rows, trained, training.adapter)
            manifest = replace(made, general=general, lm_eval=tasks)
        name = self._compared_by(score)
        run.metrics({f"heldout/{name}": score[name]}, training.steps)
        run.tags({description.TAG: self._description(rows, base, score)})
        references = References(base, few_shot=few_shot)
        drawn = self._leads(score, training)
        _log_result(run, self.job, self.evaluation, references, score, training, manifest, drawn)
        return score, manifest

    def _leads(self, score: Score, training: Training) -> bool:
        """Whether the run's figures are drawn: those of a trial that another has beaten already are not looked at."""
        values = self._values(score, training)
        return self.job.trial is None or self.job.trial.leads(values[0] if isinstance(values, tuple) else values)

    def _cached(self, name: str, groups: Sequence[str], make: Callable[[], T], fingerprint: str = "") -> T:
        """What ``make`` makes of the configuration of ``groups`` and of rows with that fingerprint, if any."""
        if self.job.cache is None:
            return make()
        config = {group: self.job.config.get(group) for group in groups}
        key = json.dumps([config, fingerprint], sort_keys=True, default=str)
        return self.job.cache.get(name, key, make)

    def _params(self) -> dict[str, str]:
        """The configuration, with the scaling as the one number that it comes to.

        MLflow's comparison opens on the first three parameters that differ: the ratio would repeat what rank and alpha
        say, in the place of the learning rate.
        """
        params = {**console.flatten(self.job.config), "seed": str(self.job.seed)}
        params.pop("lora.alpha_over_r", None)
        return params | {"lora.alpha": str(self.lora.effective_alpha)}

    def _compared_by(self, score: Score) -> str:
        """The metric of the held-out score: a sweep's objective, otherwise the gate's metric."""
        wanted = [*(self._objectives if self.job.trial else []), self.gate.metric, *score.values]
        return next(name for name in wanted if name in score.values)

    def _description(self, rows: Dataset, base: Score, score: Score) -> str:
        begun = description.begun(self.job, rows, self.lora)
        return f"{description.ended(self._compared_by(score), base, score)}\n{begun}"

    @property
    def _objectives(self) -> list[str]:
        return [self.objective] if isinstance(self.objective, str) else list(self.objective)

    def _values(self, score: Score, training: Training) -> Values:
        known = dict(score.values) | {
            name.removeprefix("cost/"): value for name, value in report.costs(training).items()
        }
        values = tuple(known.get(name, math.nan) for name in self._objectives)
        return values[0] if isinstance(self.objective, str) else values

    def _rows(self, skeleton: LoadedModel) -> Dataset:
        return data.prepare(self.source, self.ocr, self.dataset, skeleton.tokenizer, self.job.output)

    def _manifest(self, run: Run, loaded: LoadedModel, rows: Dataset, trained: PeftModel, adapter: Path) -> Manifest:
        from loraloop.model import adapters
        from loraloop.records import Manifest

        # What was saved: an adapter that began with a part of the base has twice the rank that it was trained with.
        saved = json.loads((adapter / CONFIG).read_bytes())
        targets = self.lora.targets
        return Manifest(
            base=loaded.base,
            rank=int(saved["r"]),
            alpha=float(saved["lora_alpha"]),
            targets=(targets,) if isinstance(targets, str) else tuple(targets),
            dataset_fingerprint=rows.fingerprint,
            template=self.dataset.template,
            run_id=run.id,
            parent_run_id=self.job.trial.parent if self.job.trial else None,
            weights_sha256=sha256(adapter / WEIGHTS),
            loraloop_version=__version__,
            probe=adapters.probe(trained, loaded.tokenizer),
            continued_from=continuation.name(self.beginning) if self.beginning else None,
        )


@contextmanager
def _interruptible(job: Job, beginning: Version | None = None) -> Iterator[None]:
    try:
        sys.stdout.flush()  # what to expect is seen before it takes its time
        yield
    except KeyboardInterrupt:
        if READER_GONE.is_set():
            _log.warning(
                "the reader of standard output has gone, as after `| head`, and the run ends: %s",
                _way_on(job, beginning),
            )
        elif job.trial is None and not job.multirun:  # going on alone, it would be judged and promoted alone
            print(_way_on(job, beginning))
        raise
    except LostProcessError:
        if job.trial is None and not job.multirun:
            print(_way_on(job, beginning), flush=True)
        raise


def _way_on(job: Job, beginning: Version | None) -> str:
    """What an interrupted job kept, and the command that goes on from there: with this version, wherever its alias is.

    A folder stays as it was given: it has no number.
    """
    try:
        kept = checkpoints.sound(job.output)
    except TrainingError:
        folder = ", in another hydra.run.dir if you named one"
        return f"interrupted before the first checkpoint: nothing was kept; give the command again{folder}"
    begin = continuation.name(beginning) if beginning and beginning.number else None
    return f"interrupted; {kept.name} was kept. To go on: {mask(resume_command(job.overrides, job.output, begin))}"


def _require_known(objectives: list[str]) -> None:
    unknown = [name for name in objectives if name not in OBJECTIVES]
    if unknown or not objectives:
        problems = [f"objective={name}: no such result{nearest(name, OBJECTIVES)}" for name in unknown]
        raise ConfigError(f"{'; '.join(problems) or 'objective=[] is empty'}; a run can return {', '.join(OBJECTIVES)}")


def _require_measurable(metrics: Set[str], rows: Dataset) -> None:
    rejected = any(row.rejected is not None for row in rows.validation)
    calls = any(message.tool_calls for row in rows.validation for message in row.example.messages)
    problems = [
        f"{name} is chosen by objective or gate.metric, and no held-out row has {needed}: choose another metric, or "
        f"data with {needed}"
        for name in sorted(metrics)
        for prefix, found, needed in (("preference_", rejected, "a rejected answer"), ("tool_", calls, "a tool call"))
        if name.startswith(prefix) and not found
    ]
    if problems:
        raise ConfigError(*problems)


def _own_folder(job: Job, resume: str | None) -> None:
    """Refuse a folder whose data, or with ``resume`` whose adapter, would be written over."""
    if (job.output / (ADAPTER if resume else DATA)).exists():
        raise DataError(f"{job.output} holds an earlier run: give this one a folder of its own, hydra.run.dir=FOLDER")


def _require_run(registry: MlflowRegistry, tracker: Tracker) -> None:
    """Refuse a registry that keeps an adapter with its run, where its server would not know the run."""
    server = registry.uri or ""
    tracked = getattr(tracker, "uri", None)
    if isinstance(tracker, NoTracker) and server:
        found = "tracker=none makes none"
    elif server and isinstance(tracker, Mlflow) and _place(tracked or "") != _place(server):
        found = f"tracker.uri={mask(tracked) if tracked else 'null'} makes it elsewhere"
    else:
        return
    raise ConfigError(
        f"registry.uri={mask(server)} keeps an adapter with its run, and {found}: set tracker=mlflow "
        f"tracker.uri={mask(server)}, or use the local registry with registry.uri=null"
    )


def _place(uri: str) -> str:
    """A server's address without the user, which may be given by MLflow's own variables too."""
    return re.sub(r"//[^/@]*@", "//", uri).replace("//localhost", "//127.0.0.1").rstrip("/")


def _name(job: Job) -> str:
    if job.trial:
        return f"trial-{job.trial.number}"
    return "-".join(job.choices[group] for group in ("experiment", "source", "model", "lora") if group in job.choices)


def _log_data(run: Run, job: Job, dataset: DatasetBuilder, rows: Dataset) -> None:
    import yaml

    from loraloop.dataset import exports

    run.text(yaml.safe_dump(dict(job.config), sort_keys=False), "config.yaml")
    source = job.choices.get("source", "data")
    run.dataset(source, rows.fingerprint, len(rows.train), "training")
    run.dataset(source, rows.fingerprint, len(rows.validation), "validation")
    run.artifact(exports.export(rows, job.output / DATA), "dataset")
    dataset.save(rows)


def _log_result(
    run: Run,
    job: Job,
    evaluation: Evaluation,
    references: References,
    score: Score,
    training: Training,
    manifest: Manifest,
    drawn: bool,
) -> None:
    from loraloop.evaluation import plots, store
    from loraloop.registry import manifest as manifests

    base, few_shot = references.base, references.few_shot
    final = report.score_metrics(score, "final") | report.score_metrics(base, "base")
    if few_shot is not None:
        final |= report.score_metrics(few_shot, FEW_SHOT)
        store.write(few_shot, job.output / SCORES / FEW_SHOT)
    for task, each in score.slices.items():
        final |= report.score_metrics(each, f"final/{task}") | {f"final/{task}/rows": float(each.rows)}
    final |= report.general_metrics(manifest.general) | report.task_metrics(manifest.lm_eval)
    run.metrics(final | report.costs(training), training.steps)
    store.write(base, job.output / SCORES / "base")
    store.write(score, job.output / SCORES / ADAPTER)
    run.artifact(job.output / SCORES, SCORES)
    run.table(evaluation.table(score, {"base": base, FEW_SHOT: few_shot}), f"{SCORES}/samples.json")
    if drawn:
        run.figure(plots.bars(base, score), "plots/base_vs_adapter.png")
        run.figure(plots.curves(training.history), "plots/loss.png")
    manifests.write(training.adapter, manifest)
    run.artifact(training.adapter, ADAPTER)
