"""What becomes champion, and against whom it was judged."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from loraloop.core.hashing import sha256
from loraloop.errors import AliasMovedError, ConfigError, UnservableError
from loraloop.evaluation import store
from loraloop.gate.gate import Gate
from loraloop.records import Base, Generation, Manifest, Score, Verdict, Version
from loraloop.registry import manifest as manifests
from loraloop.registry.mlflow import MlflowRegistry
from loraloop.tracker.mlflow import Mlflow
from loraloop.tracker.none import NoTracker
from loraloop.workflows.experiment import _require_run
from loraloop.workflows.promotion import Candidate, Promotion, of_run, promote_if_passed

BASE = Base(
    name="tiny",
    revision=None,
    sha256="b" * 64,
    tokenizer_sha256="c" * 64,
    chat_template_sha256=None,
    quantization="none",
    dtype="float32",
)
KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"


def score(right: int) -> Score:
    """Of 100 rows, so many right."""
    rows = tuple(Generation("t", str(place), "", "", place < right) for place in range(100))
    return Score(rows=100, values={"task_accuracy": right / 100}, generations=rows)


def adapter(folder: Path, rank: int = 2, **settings: Any) -> tuple[Path, Manifest]:
    """An adapter that is unlike the others by its folder's name."""
    folder.mkdir()
    rng = np.random.default_rng([*folder.name.encode()])
    shapes = {"A": (rank, 2), "B": (2, rank)}
    weights = {KEY.format(side): rng.normal(size=shape).astype(np.float32) for side, shape in shapes.items()}
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 4.0, "target_modules": ["q_proj"], **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    manifest = Manifest(
        base=BASE,
        rank=rank,
        alpha=4.0,
        targets=("q_proj",),
        dataset_fingerprint="d" * 64,
        template="{input}",
        run_id=None,
        parent_run_id=None,
        weights_sha256=sha256(folder / "adapter_model.safetensors"),
        loraloop_version="0.1.0",
    )
    return folder, manifest


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the database, whose migrations take seconds."""
    return tmp_path_factory.mktemp("registry")


@pytest.fixture
def registry(home: Path, tmp_path: Path) -> MlflowRegistry:
    """A model of its own; another alias than `champion` is served."""
    return MlflowRegistry(folder=home, name=tmp_path.name, serve_alias="prod")


@pytest.fixture
def put(registry: MlflowRegistry, tmp_path: Path) -> Callable[..., Any]:
    """Puts an adapter with so many right answers before the gate; others are known by the number of their version."""
    known: dict[int, int] = {}

    def put(right: int, meanwhile: Callable[[], object] = lambda: None, **settings: Any) -> Any:
        waiting = [meanwhile]

        def rescore(champion: Version) -> Score:
            if waiting:
                waiting.pop()()
            return score(known[champion.number])

        folder, manifest = adapter(tmp_path / f"a{right}", **settings)
        made = promote_if_passed(registry, Gate(), Candidate(folder, manifest, score(right), score(0), None, rescore))
        known[made.version.number] = right
        return made

    return put


def test_slices_that_got_worse_are_tagged():
    """The run's tags name the tasks that got worse beside the verdict; without any there is no such tag."""
    worse = Verdict(True, "why", {"worse_slices": {"sort": {"p": 0.01}, "upper": {"p": 0.02}}})
    assert Promotion(None, worse).tags() == {"gate": "passed", "gate.reason": "why", "gate.worse_slices": "sort, upper"}
    assert "gate.worse_slices" not in Promotion(None, Verdict(True, "why", {})).tags()


def active(registry: MlflowRegistry) -> int | None:
    champion = registry.champion()
    return champion.number if champion else None


def test_the_alias_that_is_served_is_moved(registry, put):
    """A version that passes gets registry.serve_alias, and the next one is judged against it."""
    assert put(50).version.aliases == ("candidate", "prod")
    assert not put(40).verdict.passed
    assert active(registry) == 1


@pytest.mark.fault("two promotions at once", "promote", "the second is judged again, against the first")
def test_the_worse_of_two_winners_at_once_does_not_stay(registry, put):
    """While 70 is judged against 50, 90 is promoted: 70 is judged again, against 90, and refused."""
    put(50)
    made = put(70, meanwhile=lambda: put(90))
    assert not made.verdict.passed
    assert "does not beat champion 0.9" in made.verdict.reason
    assert active(registry) == 3


def test_the_better_of_two_winners_at_once_replaces_the_other(registry, put):
    """While 90 is judged against 50, 70 is promoted: 90 is judged again, against 70, and passes."""
    put(50)
    made = put(90, meanwhile=lambda: put(70))
    assert "beats champion 0.7" in made.verdict.reason
    assert active(registry) == 2 == made.version.number


def test_an_alias_is_moved_only_from_where_it_was_seen(registry, put):
    """A promotion that expects another version, or none, changes nothing."""
    put(50)
    put(90)
    for expected in (0, 1):
        with pytest.raises(AliasMovedError, match="leads to 2, and this was decided against"):
            registry.promote(1, "prod", "late", expected=expected)
    assert active(registry) == 2
    assert registry.promote(1, "prod", "back", expected=2).aliases == ("prod",)


def test_where_the_loop_rolls_out_a_winner_stays_candidate(registry, put):
    """The first champion is promoted at once; a later winner waits, and the reason is how to begin its rollout."""
    put(10)
    assert registry.rollout_role() is None
    registry.mark_rollouts("validator")
    made = put(90)
    assert made.verdict.passed
    assert made.version.aliases == ("candidate",)
    assert made.verdict.reason.endswith("loraloop stage=rollout role=validator version=2")
    assert active(registry) == 1


def test_the_first_version_of_a_role_is_promoted_at_once(registry, put, tmp_path):
    """Without a champion there is nothing to roll out beside."""
    registry.register(*adapter(tmp_path / "other"))
    registry.mark_rollouts("validator")
    assert put(50).version.aliases == ("candidate", "prod")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"use_dora": True}, "sets use_dora, which cannot be served"),
        ({"bias": "all"}, "sets bias, which cannot be served"),
        ({"modules_to_save": ["lm_head"]}, "sets modules_to_save, which cannot be served"),
        ({"rank": 65}, "has rank 65 and registry.max_rank=64: raise registry.max_rank"),
    ],
)
def test_what_no_server_loads_takes_no_alias(registry, put, settings, why):
    """A winner that a server would refuse is registered, never promoted, and a person cannot promote it either."""
    put(10)
    made = put(90, **settings)
    assert not made.verdict.passed
    assert why in made.verdict.reason
    assert made.version.aliases == ("candidate",)
    with pytest.raises(UnservableError, match=why):
        registry.promote(2, "prod", "by hand")
    assert active(registry) == 1


def test_a_champions_stored_score_counts_on_the_same_rows_alone(tmp_path):
    """Of an earlier run, a champion's score counts if it is of the candidate's rows, and few-shot if it was kept."""
    runs = {"candidate": score(60), "equal": score(40), "other": score(40)}
    first, *rest = runs["other"].generations
    moved = (dataclasses.replace(first, prompt="another"), *rest)
    runs["other"] = dataclasses.replace(runs["other"], generations=moved)
    for run, measured in runs.items():
        (tmp_path / run).mkdir()
        manifests.write(*adapter(tmp_path / run / "adapter"))
        store.write(measured, tmp_path / run / "evaluation" / "adapter")
        store.write(score(0), tmp_path / run / "evaluation" / "base")
    tracker: Any = SimpleNamespace(artifacts=lambda run: tmp_path / run, read=lambda run: {"id": run})
    candidate = of_run("candidate", tracker)
    assert candidate.few_shot is None
    store.write(score(30), tmp_path / "candidate" / "evaluation" / "few_shot")
    assert of_run("candidate", tracker).few_shot == score(30)
    for run, found in (("equal", runs["equal"]), ("other", None)):
        manifest = dataclasses.replace(candidate.manifest, run_id=run)
        champion = Version(name="m", number=1, aliases=(), path=tmp_path, manifest=manifest)
        assert candidate.rescore(champion) == found


def test_a_registry_that_needs_a_run_is_refused_without_one(registry):
    """A server keeps an adapter with its run: without tracking, or with tracking elsewhere, the job does not begin."""
    there = dataclasses.replace(registry, uri="http://127.0.0.1:5000")
    with pytest.raises(ConfigError, match=r"tracker=none makes none: set tracker=mlflow tracker.uri=http://127"):
        _require_run(there, NoTracker())
    with pytest.raises(ConfigError, match=r"tracker\.uri=null makes it elsewhere"):
        _require_run(there, Mlflow())
    _require_run(there, Mlflow(uri="http://127.0.0.1:5000/"))
    _require_run(registry, NoTracker())
