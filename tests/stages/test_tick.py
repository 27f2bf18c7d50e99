"""Stages ``tick``, ``rollout`` and ``rollback``: what a person sees of the loop, and what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from loraloop.feedback.settings import Feedback
from loraloop.loop.cycle import Event
from loraloop.loop.store import LoopStore
from loraloop.records import Example, Rating, Session
from loraloop.registry import connection
from loraloop.registry.mlflow import MlflowRegistry
from loraloop.source.flips import Flips
from loraloop.trainer import checkpoints
from loraloop.workflows.retraining import rollback

MODEL = "loraloop-ocr"
SMALL = ("source.runs=4", "evaluation.max_new_tokens=4", "gate.metric=loss", "gate.margin=0")
TICK = (
    "stage=tick", "policy=seed", *SMALL, "trainer.max_steps=4", "policy.mix.rows=40", "policy.golden_rows=20",
    "policy.max_forgetting=1", "tracker=none",
)  # fmt: skip
TRAIN = (f"registry.name={MODEL}", *SMALL, "tracker=none")
TRIGGER = Event(name="trigger", version=1, reason="rated badly")
CORRECTIVE = Event(name="corrective", version=1, reason="40 rows")
ROLLBACK = ("stage=rollback", "role=validator", "tracker=none")
SERVICE = "alerts.urls=json://127.0.0.1:9/nobody"
"""Where alerts are sent to, in vain: the log names each one."""
WORLD = (
    (*TRAIN, "trainer.max_steps=1"),
    ("stage=promote", f"registry.name={MODEL}", "version=1"),
    (*TRAIN, "trainer.max_steps=2", "gate.margin=0.9"),
)
"""Version 1 is the champion; version 2 is a candidate that the gate refused."""


@dataclass(frozen=True)
class Place:
    """A folder with two versions and a store of sessions."""

    give: Any
    folder: Path

    def tick(self, *more: str) -> str:
        """What a tick prints."""
        return str(self.give(*TICK, *more).out)

    def refused(self, *arguments: str) -> str:
        """What a command that changes nothing says."""
        before = self.traces()
        seen = self.give.attempt(*arguments)
        assert seen.code == 2, seen
        assert self.traces() == before
        return str(seen.err)

    def traces(self) -> tuple[Any, ...]:
        """Everything that a tick moves."""
        cycles = self.loop.cycles("validator")
        return self.registry.ledger.entries(), cycles, self.loop.rollouts()

    @property
    def registry(self) -> MlflowRegistry:
        """That of the role's model."""
        return MlflowRegistry(name=MODEL, folder=self.folder / "mlruns")

    @property
    def loop(self) -> LoopStore:
        """The loop's state."""
        return LoopStore(self.store.database)

    @property
    def store(self) -> Any:
        """The sessions."""
        return Feedback(folder=self.folder / "mlruns", review="none").open()

    def won(self) -> None:
        """A rollout of version 2 that was won, in a process that ended before it promoted."""
        won = Event(name="promote", version=2, reason="it won", numbers={"from": 1}, alias="champion")
        self.loop.advance(self.loop.open("validator"), won)

    def events(self) -> list[str]:
        """What the loop wrote into the ledger."""
        return [entry.event for entry in self.registry.history() if "decision" in entry.numbers]

    def serve(
        self, count: int, answered: str, stars: int, rollout: str | None = None, *, corrected: bool = True,
        examples: tuple[Example, ...] = (),
    ) -> None:  # fmt: skip
        """Sessions that were answered and rated, and perhaps corrected."""
        store = self.store
        asked = examples or Flips(runs=1, per_run=count, seed=7).collect(None).examples
        for number, example in enumerate(asked[:count]):
            name = f"{answered}-{rollout}-{stars}-{number}"
            prompt = [{"role": "user", "content": f"{example.instruction}\n{example.input}"}]
            store.keep(
                Session(
                    id=name, time=datetime.now(UTC).isoformat(timespec="milliseconds"), asked="agent:validator",
                    answered=answered, role="validator", prompt=prompt, answer="?", status="ok", duration=1.0,
                    first_token=0.1, prompt_tokens=9, completion_tokens=9, conversation=name, client=f"c{number}",
                    rollout=rollout,
                )
            )  # fmt: skip
            store.rate(name, Rating(stars=stars, comment="", issues=(), correction=example.output if corrected else ""))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, office: Any) -> Path:
    """Two versions, made once; only to be copied."""
    folder = tmp_path_factory.mktemp("world")
    for command in WORLD:
        type(office)(folder)(*command)
    return folder


@pytest.fixture
def place(world: Path, desk: Any) -> Place:
    """A copy of the two versions."""
    shutil.copytree(world / "mlruns", desk.folder / "mlruns", ignore=shutil.ignore_patterns("jobs"))
    return Place(desk, desk.folder)


@pytest.fixture
def unhappy(place: Place) -> Place:
    """Sixteen sessions of the champion, rated badly and corrected."""
    place.serve(16, "ocr@1", 2)
    return place


@pytest.fixture(scope="module")
def gated(world: Path, tmp_path_factory: pytest.TempPathFactory, office: Any) -> tuple[Place, str]:
    """A cycle that the gate ended, and what the tick printed. Only to be read."""
    folder = tmp_path_factory.mktemp("gated")
    shutil.copytree(world / "mlruns", folder / "mlruns", ignore=shutil.ignore_patterns("jobs"))
    place = Place(type(office)(folder), folder)
    place.serve(16, "ocr@1", 2)
    tracked = [each for each in TICK if each != "tracker=none"]
    return place, place.give(*tracked, "tracker.system_metrics=false", "gate.margin=0.99").out


@pytest.fixture
def rolling(place: Place) -> Place:
    """A running rollout of version 2."""
    seen = place.give("stage=rollout", "role=validator", "version=2", "policy=seed", "tracker=none")
    assert seen.out == "validator: rollout: version 2 answers 15% of the conversations, version 1 the others"
    return place


def test_a_tick_erases_what_is_too_old(place):
    """With ``feedback.keep_days`` a tick erases older sessions before it looks at the roles, and says how many."""
    place.store.keep(Session(id="old", prompt="x", time="2020-03-02T11:00:00.000+00:00", answered="base"))
    place.store.keep(Session(id="new", prompt="x", time=datetime.now(UTC).isoformat(), answered="base"))
    said = place.tick("feedback.keep_days=30").splitlines()
    assert said[0].startswith("older than feedback.keep_days=30: erased 1 sessions")
    assert said[1].startswith("validator: nothing to do")
    assert [each.id for each in place.store.all()] == ["new"]


def test_without_ratings_there_is_nothing_to_do(place):
    """A tick without ratings says that there is nothing to do and why, and changes nothing."""
    before = place.traces()
    assert place.tick().startswith("validator: nothing to do: 0 ratings of 0 raters")
    assert place.traces() == before


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("policy.roles=[validatr]", "there is no role validatr (did you mean validator?)"),
        ("policy.roles=[actor]", "actor has no champion: loraloop-action has no version under the alias champion"),
        ("server.roles.validator=ocr@1", "the loop moves the alias champion, which this role does not follow"),
        (
            "server.roles.actor=ocr@champion",
            "actor and validator are both answered by loraloop-ocr, and the loop retrains",
        ),
        ("policy.golden=nowhere.jsonl", "policy.golden=nowhere.jsonl does not exist"),
    ],
)
def test_a_role_that_cannot_be_retrained_is_refused_before_anything_moves(unhappy, override, said):
    """A role without a deployment, a champion or a golden set is refused, with the way out, before anything moves."""
    more = ["policy.roles=[validator,actor]"] if "actor=ocr" in override else []
    assert said in unhappy.refused(*TICK, override, *more)


@pytest.mark.fault("tampered adapter", "promote", "nothing moves until it is restored")
def test_a_damaged_champion_stops_the_tick_before_anything_moves(unhappy):
    """A champion whose weights were altered is refused by name; no cycle begins."""
    with (unhappy.registry.champion().path / "adapter_model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x55")
    assert "it was altered or cut short" in unhappy.refused(*TICK)


def test_an_altered_ledger_stops_the_tick_and_people_are_alerted(unhappy):
    """A ledger whose chain does not hold is an alert and a metric, and no cycle begins on it."""
    path = unhappy.registry.ledger.path
    path.write_text(path.read_text().replace('"version":1', '"version":2', 1))
    seen = unhappy.give.attempt(*TICK, SERVICE)
    assert (seen.code, unhappy.loop.cycles("validator")) == (2, [])
    assert seen.err.count("the ledger was altered after it was written") == 1
    assert "alert to 1 services: loraloop validator: the loop cannot go on" in seen.err
    assert ("loraloop_ledger_intact", {"model": MODEL}, 0.0) in unhappy.loop.stats()


def test_too_few_corrections_end_the_cycle_until_there_are_more(place):
    """Bad ratings without corrections are refused once, with the way out; taking it is all that the next tick needs."""
    place.serve(16, "ocr@1", 2, corrected=False)
    few = "0 sessions of validator rated below 4 have an answer to learn from"
    assert f"refuse: {few}" in place.tick()
    assert place.loop.cycles("validator")[-1].state == "refused"
    assert f"nothing to do: {few}" in place.tick()
    assert place.events() == ["trigger", "refuse"]
    place.serve(16, "ocr@1", 1)
    assert "refuse: the gate" in place.tick("policy.daily_cap=1", "gate.margin=0.99")
    assert "nothing to do: 0 ratings" in place.tick("policy.cooldown=0.001s")
    place.serve(16, "ocr@1", 3)
    assert "nothing to do: the last retraining began at" in place.tick()
    capped = place.tick("policy.cooldown=0.001s", "policy.daily_cap=1")
    assert "nothing to do: 1 retrainings began in 24 hours (policy.daily_cap=1)" in capped


def test_stars_alone_go_on_with_the_champion_by_kto(place):
    """With policy.learn=kto a cycle goes on with the champion by answers' stars, and the ledger says so."""
    examples = Flips(runs=1, per_run=24, seed=8).collect(None).examples
    place.serve(16, "ocr@1", 1, corrected=False, examples=examples[:16])
    place.serve(8, "ocr@1", 5, corrected=False, examples=examples[16:])
    assert "policy.learn=kto makes examples for trainer=kto, and trainer=sft is set" in place.refused(
        *TICK, "policy.learn=kto"
    )
    out = place.tick("policy.learn=kto", "trainer=kto", "gate.margin=0.99")
    assert "24 corrective rows of 24 sessions and 0 earlier ones" in out
    entry = next(each for each in place.registry.history() if each.event == "corrective")
    assert (entry.numbers["learn"], entry.numbers["learn_why"]) == ("kto", "policy.learn=kto")
    assert entry.reason.endswith("; learned by kto (policy.learn=kto)")
    (manifest,) = (place.folder / "mlruns/loop").glob("*/training/adapter/manifest.json")
    assert json.loads(manifest.read_text())["continued_from"] == f"models:/{MODEL}/1"


def test_corrections_go_on_with_the_champion(unhappy):
    """With policy.learn=sft_continue a cycle goes on with the champion by corrections alone, at a fifth of the rate."""
    out = unhappy.tick("policy.learn=sft_continue", "trainer.learning_rate=1e-3", "gate.margin=0.99")
    assert "16 corrective rows of 16 sessions and 0 earlier ones" in out
    (folder,) = (unhappy.folder / "mlruns/loop").glob("*/training")
    manifest = json.loads((folder / "adapter/manifest.json").read_text())
    assert manifest["continued_from"] == f"models:/{MODEL}/1"
    (state,) = [json.loads(each.read_text()) for each in folder.glob("checkpoints/*/trainer_state.json")][-1:]
    assert max(each.get("learning_rate", 0) for each in state["log_history"]) <= 2e-4


def golden(place: Place, rows: slice) -> str:
    """A golden set of questions that users asked too."""
    examples = Flips(runs=1, per_run=16, seed=7).collect(None).examples[rows]
    path = place.folder / "golden.jsonl"
    named = [{"input": each.input, "output": each.output, "instruction": each.instruction} for each in examples]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in named))
    return f"policy.golden={path}"


def test_a_session_that_asks_what_a_golden_row_asks_is_left_out(unhappy):
    """Corrections of golden questions are left out, counted and named in the ledger, and the retraining goes on."""
    out = unhappy.tick(golden(unhappy, slice(2, 4)), "gate.min_rows=2", "gate.margin=0.99")
    assert "8 corrective rows of 8 sessions" in out
    assert "6 corrected sessions have no place in policy.mix.rows; 2 corrected sessions were left out" in out
    entry = next(each for each in unhappy.registry.history() if each.event == "corrective")
    assert (entry.numbers["overlap"], entry.numbers["sessions"]) == (2, 8)
    assert entry.numbers["overlap_sessions"] == ["ocr@1-None-2-2", "ocr@1-None-2-3"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [(slice(14), "2 corrected sessions are left to learn from"), (slice(2), "the golden set has 2 rows")],
)
def test_where_rows_are_missing_the_loop_waits(unhappy, rows, said):
    """With too few rows to learn from or to measure on, one cycle is refused with one alert; later ticks wait."""
    override, more = golden(unhappy, rows), ("gate.min_rows=3", "policy.cooldown=0.001s")
    seen = [unhappy.give(*TICK, SERVICE, override, *more) for _ in range(3)]
    assert f"validator: refuse: {said}" in seen[0].out
    assert all(f"validator: nothing to do: {said}" in each.out for each in seen[1:])
    assert ["alert to 1 services" in each.err for each in seen] == [True, False, False]
    assert len(unhappy.loop.cycles("validator")) == 1
    assert unhappy.events() == ["trigger", "refuse"]


def test_a_training_that_fails_is_alerted_and_not_begun_again(unhappy):
    """A training that fails ends the cycle with an alert; the next tick does not begin another one."""
    seen = unhappy.give(*TICK, SERVICE, "trainer.max_length=8")
    assert "validator: fail: " in seen.out
    assert "alert to 1 services: loraloop validator: fail" in seen.err
    assert unhappy.loop.cycles("validator")[-1].state == "failed"
    assert "policy.cooldown=24h" in unhappy.tick()
    assert unhappy.events() == ["trigger", "corrective", "fail"]


def test_a_training_that_never_ends_is_given_up(unhappy):
    """A training that was started three times without progress is not started a fourth time."""
    cycle = unhappy.loop.begin("validator", MODEL, 1, "seed", TRIGGER)
    unhappy.loop.note(unhappy.loop.advance(cycle, CORRECTIVE), attempts=3)
    assert "fail: the training was started 3 times without progress" in unhappy.tick()
    assert unhappy.loop.cycles("validator")[-1].state == "failed"


def test_what_was_rolled_back_is_not_tried_again(unhappy):
    """The same training set trains the same weights; a version that was rolled back once gets no second rollout."""
    assert "rollout: version 3 answers 15% of the conversations" in unhappy.tick()
    unhappy.give("stage=rollback", "role=validator", "tracker=none")
    unhappy.serve(16, "ocr@1", 1, corrected=False)
    out = unhappy.tick("policy.cooldown=0.001s")
    assert "refuse: the training made version 3 again: rollback, the rollout of version 3 was ended: by hand" in out
    assert unhappy.loop.rollouts() == []
    assert unhappy.events() == [
        "trigger", "corrective", "train", "gate", "rollout", "rollback", "trigger", "corrective", "train", "refuse",
    ]  # fmt: skip


def test_a_candidate_that_does_not_beat_the_champion_is_refused(gated):
    """The gate measures on the golden rows, against base and champion; what it refuses is never registered."""
    place, out = gated
    assert "validator: refuse: the gate: loss" in out
    assert "forgets 0.000 of the golden rows" in out
    assert len(place.give.versions(MODEL)) == 2
    gate = next(entry for entry in place.registry.history() if entry.event == "gate" and "cycle" in entry.numbers)
    assert {"base", "champion", "candidate", "forgetting", "drops"} <= gate.numbers.keys()


def test_a_cycle_is_a_run_with_its_training_below(gated):
    """A cycle is one finished run with every decision as a tag and its numbers as metrics; its training is nested."""
    cycle, training = gated[0].give.runs()
    assert (cycle.info.run_name, training.info.run_name) == (f"loop-{(name := _cycle(gated))}", f"train-{name}")
    assert {cycle.info.status, training.info.status} == {"FINISHED"}
    assert training.data.tags["mlflow.parentRunId"] == cycle.info.run_id
    assert [cycle.data.tags[key] for key in ("loop.role", "loop.policy", "loop.state")] == [
        "validator", "seed", "refused",
    ]  # fmt: skip
    assert cycle.data.tags["decision.1-trigger"].startswith("mean rating 2.00 is below 3.8")
    assert {"decision.2-corrective", "decision.3-train", "decision.4-gate", "decision.5-refuse"} <= {*cycle.data.tags}
    assert cycle.data.metrics["gate/forgetting"] == 0
    assert training.data.params["policy.name"] == "seed"
    assert not [key for key in training.data.params if key.startswith(("alerts", "feedback"))]


def _cycle(gated: tuple[Place, str]) -> str:
    return str(gated[0].loop.cycles("validator")[0].id)


def test_ratings_that_were_learned_from_do_not_trigger_again(gated, desk):
    """After a training that came to nothing it takes new ratings to begin another one, not the cooldown alone."""
    shutil.copytree(gated[0].folder / "mlruns", desk.folder / "mlruns")
    place = Place(desk, desk.folder)
    assert "nothing to do: 0 ratings of 0 raters" in place.tick("policy.cooldown=0.001s")


def test_a_golden_set_is_frozen(gated, desk):
    """The golden set is drawn once, its hash is in the ledger, and an altered one is refused before anything moves."""
    shutil.copytree(gated[0].folder / "mlruns", desk.folder / "mlruns")
    golden = desk.folder / "mlruns" / "loop" / "golden" / "validator.jsonl"
    assert len(golden.read_text().splitlines()) == 20
    golden.write_text(golden.read_text().replace("H", "T", 1))
    said = Place(desk, desk.folder).refused(*TICK, "policy.cooldown=0.001s")
    assert "is not the one that validator's versions were measured on" in said
    assert "policy.golden=FILE" in said


def test_a_retraining_learns_in_the_shares_of_the_mix(gated):
    """Corrected sessions fill their share by repetition, earlier examples the rest; none of them is a golden row."""
    (facts,) = gated[0].folder.glob("mlruns/loop/validator-1-*/set/facts.json")
    assert {"corrective": 8, "earlier": 32, "golden": 20}.items() <= json.loads(facts.read_text()).items()
    sides = {side: facts.with_name(f"{side}.jsonl").read_text() for side in ("corrective", "earlier", "golden")}
    asked = {side: {json.loads(line)["input"] for line in text.splitlines()} for side, text in sides.items()}
    assert not asked["golden"] & (asked["earlier"] | asked["corrective"])


def test_a_version_chosen_by_hand_is_judged_by_ticks(rolling):
    """A rollout begun by hand waits while there is too little data, and is promoted when its users are happy."""
    assert "the rollout of version 2 goes on: 0 sessions" in rolling.tick()
    (rollout,) = rolling.loop.rollouts()
    rolling.serve(12, "ocr@2", 5, rollout.id)
    out = rolling.tick()
    assert "validator: promote: the last 12 sessions of version 2" in out
    assert "validator: version 2 is the champion" in out
    assert rolling.give.aliases(MODEL) == {"candidate": 2, "champion": 2}
    assert rolling.events() == ["rollout", "promote"]
    assert rolling.loop.rollouts() == []


def test_a_canary_that_fails_is_rolled_back_with_an_alert(rolling):
    """A canary whose users are unhappy gets no session any more, the champion stays, and people are told."""
    (rollout,) = rolling.loop.rollouts()
    rolling.serve(12, "ocr@2", 1, rollout.id)
    seen = rolling.give(*TICK, SERVICE)
    assert "validator: rollback: " in seen.out
    assert "alert to 1 services: loraloop validator: rollback" in seen.err
    assert rolling.loop.rollouts() == []
    assert rolling.give.aliases(MODEL)["champion"] == 1
    assert ("loraloop_canary_failing", {"role": "validator"}, 1.0) in rolling.loop.stats()


def test_a_champion_moved_by_hand_ends_the_rollout(rolling):
    """A champion that was moved during a rollout ends it, as the comparison has lost its other side."""
    rolling.give("stage=promote", f"registry.name={MODEL}", "version=2")
    assert "stop: the champion was moved by hand from 1 to 2" in rolling.tick()
    assert rolling.loop.rollouts() == []
    assert rolling.loop.cycles("validator")[-1].state == "stopped"


def test_a_second_rollout_is_refused(rolling):
    """A role with a rollout gets no second one, and the champion is no candidate."""
    hand = ("stage=rollout", "role=validator", "policy=seed", "tracker=none")
    assert "validator has an open cycle already" in rolling.give.attempt(*hand, "version=2").err
    assert "version=1 of loraloop-ocr is the champion already" in rolling.give.attempt(*hand, "version=1").err


def test_a_rollback_by_hand_ends_the_rollout_first_and_then_goes_back(rolling):
    """A rollback ends the running rollout; a second one restores the previous champion; a third finds none left."""
    back = ("stage=rollback", "role=validator", "tracker=none")
    assert "validator: rollback: the rollout of version 2 was ended: by hand" in rolling.give(*back).out
    assert rolling.loop.rollouts() == []
    rolling.give("stage=promote", f"registry.name={MODEL}", "version=2")
    assert (
        "version 1 is the champion again instead of 2: too slow"
        in rolling.give(*back, "version=2", "reason='too slow'").out
    )
    assert rolling.give.aliases(MODEL)["champion"] == 1
    last = rolling.registry.history()[-1]
    assert (last.event, last.alias, last.version, last.numbers["from"]) == ("rollback", "champion", 1, 2)
    assert "validator has nothing to go back to" in rolling.give.attempt(*back, "version=1").err
    assert (
        "version=2 of loraloop-ocr is not the candidate of a rollout and not the champion"
        in rolling.give.attempt(*back, "version=2").err
    )


def test_a_rollback_reverts_a_promotion_that_has_begun(rolling):
    """A promotion that a process left half done is completed and reverted at once: the ledger has both events."""
    rolling.won()
    out = rolling.give("stage=rollback", "role=validator", "tracker=none").out
    assert out == "validator: rollback: the rollout of version 2 was ended: by hand; version 1 is the champion again"
    assert rolling.events() == ["rollout", "promote", "rollback"]
    assert (rolling.give.aliases(MODEL)["champion"], rolling.loop.open("validator")) == (1, None)
    assert rolling.loop.cycles("validator")[-1].state == "rolled_back"


def test_a_candidate_that_is_gone_is_not_promoted(rolling):
    """A canary that won and whose files are gone is rolled back with the reason, and blocks nothing."""
    (rollout,) = rolling.loop.rollouts()
    rolling.serve(12, "ocr@2", 5, rollout.id)
    shutil.rmtree(rolling.registry.resolve("2").path)
    out = rolling.tick()
    assert "rollback: it won, but it cannot be promoted: loraloop-ocr version 2: its folder" in out
    assert rolling.loop.rollouts() == []
    assert "nothing to do" in rolling.tick()
    assert rolling.events() == ["rollout", "rollback"]


@pytest.mark.parametrize("command", [TICK, ROLLBACK], ids=["tick", "rollback"])
def test_a_promotion_that_cannot_be_carried_out_blocks_nothing(rolling, command):
    """A candidate whose files are lost during its promotion ends as rolled back, by the next tick and by hand."""
    rolling.won()
    shutil.rmtree(rolling.registry.resolve("2").path)
    rolling.give(*command)
    assert rolling.events() == ["rollout", "refuse", "rollback"]
    assert (rolling.give.aliases(MODEL)["champion"], rolling.loop.rollouts()) == (1, [])
    assert rolling.loop.cycles("validator")[-1].state == "rolled_back"


def test_a_rollout_is_ended_while_the_registry_is_away(rolling, monkeypatch):
    """A rollback needs the database alone to end the traffic; the next tick writes the ledger."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    seen = rolling.give(*ROLLBACK, "registry.uri=http://127.0.0.1:9")
    assert "rollback: the rollout of version 2 was ended: by hand" in seen.out
    assert "the next tick writes it to the registry and the tracker" in seen.out
    assert rolling.loop.rollouts() == []
    rolling.tick()
    assert rolling.events() == ["rollout", "rollback"]


@pytest.mark.parametrize(
    "override",
    ["policy.golden=nowhere.jsonl", "policy.roles=[actor,validator]", "server.roles.actor=ocr@champion", "ledger"],
)
def test_broken_bookkeeping_does_not_keep_a_failing_canary(rolling, override):
    """Whatever else is wrong, of this role or another one, a canary that fails is rolled back by the tick."""
    (rollout,) = rolling.loop.rollouts()
    rolling.serve(12, "ocr@2", 1, rollout.id)
    path = rolling.registry.ledger.path
    if override == "ledger":
        path.write_text(path.read_text().replace('"version":1', '"version":2', 1))
    more = [override] if "=" in override else []
    more += ["policy.roles=[actor,validator]"] if "actor=ocr" in override else []
    seen = rolling.give.attempt(*TICK, SERVICE, *more)
    assert seen.code == 2
    assert "the loop cannot go on" in seen.err
    assert "validator: rollback: " in seen.out
    assert rolling.loop.rollouts() == []


def test_broken_bookkeeping_promotes_nothing(rolling):
    """A canary that wins while the golden set is gone goes on, and is promoted by the tick that finds it again."""
    (rollout,) = rolling.loop.rollouts()
    rolling.serve(12, "ocr@2", 5, rollout.id)
    seen = rolling.give.attempt(*TICK, "policy.golden=nowhere.jsonl")
    assert "the rollout of version 2 is won, but the loop cannot go on: the last 12 sessions" in seen.out
    assert "version 2 is the champion" in rolling.tick()


def test_an_own_role_is_found(place):
    """A tick without a champion names the roles that have one; with role= it goes on with that role alone."""
    own = ("~server.roles.validator", "server.roles.tickets=ocr@champion", "policy.roles=[actor]")
    seen = place.give.attempt(*TICK, *own)
    assert "policy.roles=[actor] does not name tickets, which has a champion: role=tickets goes on with it" in seen.err
    few = "tickets: nothing to do: 0 ratings of 0 raters; 10 more ratings needed (trigger.min_ratings=10)"
    assert few in place.give(*TICK, *own, "role=tickets").out


def test_two_rollbacks_at_once_roll_back_one_version(place):
    """The second of two rollbacks does not go on to the champion, unless it names the version that it means."""
    place.give("stage=promote", f"registry.name={MODEL}", "version=2")
    place.give("stage=rollout", "role=validator", "version=1", "policy=seed", "tracker=none")
    place.give(*ROLLBACK)
    assert "another rollback of loraloop-ocr was decided within 10 s" in place.refused(*ROLLBACK)
    assert place.give.aliases(MODEL)["champion"] == 2
    place.give(*ROLLBACK, "version=2")
    assert place.give.aliases(MODEL)["champion"] == 1


def test_a_rollback_that_was_interrupted_is_completed_alone(place):
    """Repeating a rollback that was decided and not carried out carries that one out, and no second one."""
    place.give("stage=promote", f"registry.name={MODEL}", "version=2")
    back = Event(name="rollback", version=1, reason="1 again", numbers={"from": 2}, alias="champion")
    place.loop.record("validator", MODEL, "seed", back)
    assert place.give(*ROLLBACK).out == "validator: rollback: 1 again"
    assert place.events() == ["rollback"]


def test_a_champion_is_rolled_back_while_the_tracker_is_away(place):
    """Events that the tracker cannot take block no rollback: the next tick publishes them."""
    place.give("stage=promote", f"registry.name={MODEL}", "version=2")
    place.loop.begin("validator", MODEL, 2, "seed", TRIGGER)
    (place.folder / "tracked").mkdir()
    (place.folder / "tracked" / "mlflow.db").write_text("no database" * 1000)
    seen = place.give(*ROLLBACK[:2], "tracker.folder=tracked")
    assert "version 1 is the champion again instead of 2: by hand" in seen.out
    assert "the next tick writes it to the registry and the tracker" in seen.out
    assert place.give.aliases(MODEL)["champion"] == 1
    assert place.events() == ["trigger", "rollback"]


def test_a_rollback_says_when_somebody_was_faster(place, monkeypatch):
    """An alias that is moved while a rollback is decided stays; ledger and person learn that nothing was done."""
    place.give("stage=promote", f"registry.name={MODEL}", "version=2")
    record = LoopStore.record

    def slow(*args: Any) -> str:
        connection.connect((place.folder / "mlruns").resolve(), None).delete_registered_model_alias(MODEL, "champion")
        return record(*args)

    monkeypatch.setattr(LoopStore, "record", slow)
    seen = place.give.attempt(*ROLLBACK)
    assert (seen.code, seen.out, place.registry.champion()) == (1, "", None)
    assert "the rollback of version 1 was not carried out: the alias champion was moved meanwhile" in seen.err
    assert place.events() == ["refuse"]
    monkeypatch.undo()
    monkeypatch.setattr(rollback, "AT_ONCE", timedelta(0))
    assert "version 2 is the champion again: by hand" in place.give(*ROLLBACK).out


def test_a_rollout_of_a_role_that_left_is_named_and_can_be_ended(rolling):
    """A rollout whose role left the policy is named by every tick, and a rollback ends it."""
    gone = ("~server.roles.validator", "policy.roles=[actor]")
    seen = rolling.give.attempt(*TICK, SERVICE, *gone)
    assert "validator: the rollout of version 2 is not over, and no tick goes on with it" in seen.out
    assert "alert to 1 services: loraloop validator: not in the policy" in seen.err
    assert "the rollout of version 2 was ended" in rolling.give(*ROLLBACK, *gone).out
    assert rolling.loop.rollouts() == []
    assert rolling.events() == ["rollout", "rollback"]


def test_an_alias_does_not_lead_back_to_what_was_rolled_back(rolling):
    """A version that was rolled back is tried again only by its number: an alias that is still there means another."""
    rolling.give(*ROLLBACK)
    again = ("stage=rollout", "role=validator", "policy=seed", "tracker=none")
    said = rolling.refused(*again)
    assert "version=@candidate is version 2 of loraloop-ocr, which was rolled back: the rollout of version 2" in said
    assert "version 2 answers 15%" in rolling.give(*again, "version=2").out


def test_a_training_that_makes_progress_is_not_given_up(unhappy):
    """Attempts count from the newest checkpoint: a training that is stopped often and makes progress goes on."""
    cycle = unhappy.loop.begin("validator", MODEL, 1, "seed", TRIGGER)
    unhappy.loop.note(unhappy.loop.advance(cycle, CORRECTIVE), attempts=3)
    made = unhappy.folder / "mlruns" / "loop" / cycle.id / "training" / "checkpoints" / "checkpoint-2"
    made.mkdir(parents=True)
    checkpoints.write_manifest(made, {})
    assert "without progress" not in unhappy.tick()
    assert unhappy.loop.cycle(cycle.id).attempts == 1


def test_a_rollback_leaves_a_damaged_champion(place):
    """A champion whose file is gone can still be rolled back to a sound version."""
    place.give("stage=promote", f"registry.name={MODEL}", "version=2")
    shutil.rmtree(place.registry.champion().path)
    place.give("stage=rollback", "role=validator", "tracker=none")
    assert place.registry.champion().number == 1
