"""Stages on the registry: ``register``, ``promote``, ``publish``."""

from __future__ import annotations

import json
import re


def test_an_earlier_run_is_registered_and_judged(finished):
    """stage=register makes a version of a finished run's adapter, in a registry that does not have it yet."""
    run = finished.run()
    seen = finished("stage=register", f"run={run.info.run_name}", "registry.name=second")
    assert seen.line("registry") == "second version 1 (candidate, champion)"
    assert re.match(r"passed: task_accuracy \S+ beats base 0, ", seen.line("gate"))
    (version,) = finished.versions("second")
    assert version.run_id == run.info.run_id


def test_registering_twice_makes_one_version(finished):
    """A run whose adapter is registered already gives the same version again, and says so."""
    seen = finished("stage=register", f"run={finished.run().info.run_id}")
    assert seen.line("registry") == "loraloop version 1 (candidate, champion), registered before"
    assert len(finished.versions()) == 1


def test_a_run_without_an_adapter_is_refused(finished):
    """A run that was made by another stage cannot be registered, and the message says that it holds no adapter."""
    finished("stage=evaluate", "adapter=1", "source.runs=1")
    seen = finished.attempt("stage=register", f"run={finished.runs()[-1].info.run_id}")
    assert seen.code == 1
    assert "holds no adapter" in seen.err


def test_a_person_promotes_and_the_ledger_remembers_why(compared):
    """stage=promote moves the alias, says so, and the ledger holds the reason and who served before and after."""
    compared("stage=promote", "version=2")
    seen = compared("stage=promote", "version=1", "reason='answers shorter'")
    assert seen.line("aliases") == "champion"
    assert compared.aliases() == {"candidate": 3, "champion": 1}
    entries = [json.loads(line) for line in (compared.folder / "mlruns/loraloop.ledger.jsonl").read_text().splitlines()]
    earlier, last = [entry for entry in entries if entry["event"] == "promote"]
    assert (last["version"], last["alias"], last["reason"]) == (1, "champion", "answers shorter")
    then = compared("stage=ledger", f"at={earlier['time']}").out
    now = compared("stage=ledger", f"at={last['time']}").out
    before = compared("stage=ledger", "at=2020-01-01T00:00:00").out
    assert then.startswith("version 2 was champion at ")
    assert now.startswith("version 1 was champion at ")
    assert before.startswith("no version was champion at ")


def test_promoting_what_does_not_exist_changes_nothing(compared):
    """A version that does not exist is refused with those that do, and no alias moves."""
    seen = compared.attempt("stage=promote", "version=9")
    assert seen.code == 1
    assert "versions: 1, 2, 3" in seen.err
    assert compared.aliases() == {"candidate": 3}


def test_a_role_leads_to_its_model(compared):
    """With role= a stage on the registry acts on that role's model; an unknown role or model names those there are."""
    own = "server.roles.tickets=loraloop@champion"
    assert (
        compared("stage=promote", "registry.name=other", "role=tickets", "version=1", own).line("aliases") == "champion"
    )
    seen = compared.attempt("stage=publish", "role=ticket", own, "publish.path=out")
    assert "there is no role ticket (did you mean tickets?): server.roles has validator" in seen.err
    seen = compared.attempt("stage=promote", "registry.name=other", "version=1")
    assert "other has no versions yet; there are loraloop; register one" in seen.err


def test_a_published_folder_is_the_champion_with_a_card(finished):
    """stage=publish copies the champion with manifest and a model card that shows its scores; PEFT loads it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from loraloop.model import causal

    seen = finished("stage=publish", "publish=folder", "publish.path=shared")
    assert seen.line("published to") == "shared/loraloop-v1"
    folder = finished.folder / "shared" / "loraloop-v1"
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "manifest.json", "README.md"} <= names
    score = finished.run().data.metrics["final/exact_match"]
    assert f"{score:.4f}" in (folder / "README.md").read_text()
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(causal.BUNDLED / "tiny"), folder)
    finished("stage=publish", "publish=folder", "publish.path=shared")  # an equal copy is left as it is


def test_publishing_is_entered_where_the_version_is_registered(finished):
    """A version of another model than registry.name is published in that model's own ledger."""
    finished("stage=register", f"run={finished.run().info.run_name}", "registry.name=theirs")
    finished("stage=publish", "publish=folder", "publish.path=theirs", "adapter=models:/theirs@champion")
    events = {}
    for name in ("theirs", "loraloop"):
        lines = (finished.folder / f"mlruns/{name}.ledger.jsonl").read_text().splitlines()
        events[name] = [entry["reason"] for entry in map(json.loads, lines) if entry["event"] == "publish"]
    assert events == {"theirs": ["published to theirs/theirs-v1"], "loraloop": []}
