"""The registry on MLflow: versions, aliases, and a ledger that agrees with them."""

import dataclasses
import shutil
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from loraloop.errors import ConfigError, RegistryError, UnknownVersionError
from loraloop.registry import adapter_store
from loraloop.registry import manifest as manifests
from loraloop.registry.alias_history import active_version
from loraloop.registry.ledger import moment
from loraloop.registry.mlflow import MlflowRegistry


def serving(registry, alias, at):
    found = active_version(registry.history(), alias, moment(at))
    return found.version if found else None


@pytest.fixture
def registry(home, tmp_path):
    return MlflowRegistry(folder=home, name=tmp_path.name)


@pytest.fixture
def adapters(make_adapter, tmp_path):
    """Three different adapters."""
    return [make_adapter(tmp_path / f"adapter{seed}", seed) for seed in range(3)]


def client(registry):
    with registry._client() as client:
        return client


def now():
    return datetime.now(UTC).isoformat()


@pytest.mark.fault("one adapter registered twice at once", "register", "one version")
def test_two_processes_that_register_the_same_adapter_make_one_version(race):
    """On an empty folder, both create the database without a crash, both get version 1 and one of them made it."""
    home, told = race
    assert sorted(told) == [[1, False, ["candidate"]], [1, True, ["candidate"]]]
    assert MlflowRegistry(folder=home).ledger.verify() == 1


def test_versions_count_up_and_candidate_points_at_the_newest(registry, adapters):
    """Two adapters become versions 1 and 2 under the alias candidate, each with its manifest beside the weights."""
    first, second = (registry.register(*adapter) for adapter in adapters[:2])
    assert (first.number, second.number) == (1, 2)
    assert first.created
    assert second.aliases == ("candidate",)
    assert registry.resolve("1").aliases == ()
    assert registry.resolve("@candidate").manifest == adapters[1][1]
    names = {path.name for path in second.path.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "manifest.json"}


def test_the_version_page_says_what_the_adapter_is(registry, adapters):
    """MLflow's tags hold base, rank, alpha, dataset and run, and the version belongs to its run."""
    adapter, manifest = adapters[0]
    number = registry.register(adapter, dataclasses.replace(manifest, run_id="abc"), run="abc").number
    registry.record("gate", number, "task_accuracy 0.93 beats base 0", {"candidate": 0.93})
    version = client(registry).get_model_version(registry.name, str(number))
    assert version.run_id == version.tags["run_id"] == "abc"
    assert (version.tags["base"], version.tags["rank"], version.tags["alpha"]) == ("bundled:tiny", "2", "4")
    assert version.tags["dataset_fingerprint"] == "d" * 64
    assert version.tags["gate"] == "task_accuracy 0.93 beats base 0"


def test_equal_content_is_one_version_whichever_run_made_it(registry, adapters):
    """Registering again, from another folder and run, returns the first version and moves nothing."""
    adapter, manifest = adapters[0]
    registry.register(adapter, manifest)
    registry.register(*adapters[1])
    copy = shutil.copytree(adapter, adapter.with_name("copy"))
    again = registry.register(copy, dataclasses.replace(manifest, run_id="later"))
    assert (again.number, again.created, again.aliases) == (1, False, ())
    assert registry.resolve("@candidate").number == 2
    assert registry.ledger.verify() == 2


def test_a_later_change_of_the_source_folder_leaves_the_version_alone(registry, adapters):
    """A version is a copy: writing over the folder that it came from does not reach it."""
    adapter, manifest = adapters[0]
    registry.register(adapter, manifest)
    (adapter / "adapter_model.safetensors").write_bytes(b"another run")
    assert registry.resolve("1").manifest == manifest


def test_what_is_not_the_manifests_adapter_is_not_registered(registry, adapters):
    """Weights of another hash and adapters of a random base are refused and leave no version and no folder."""
    (adapter, manifest), (other, _) = adapters[:2]
    base = dataclasses.replace(manifest.base, weights="random")
    with pytest.raises(RegistryError, match="altered or cut short"):
        registry.register(other, manifest)
    with pytest.raises(RegistryError, match=r"random weights .*train on model.weights=pretrained"):
        registry.register(adapter, dataclasses.replace(manifest, base=base))
    with pytest.raises(RegistryError, match="has no versions yet"):
        registry.resolve("1")
    assert registry.champion() is None


@pytest.mark.parametrize("reference", ["models:/{}@champion", "models:/{}/1", "@champion", "1"])
def test_every_spelling_reaches_the_version(registry, adapters, reference):
    """A version is found by model and alias, model and number, alias alone and number alone."""
    registry.register(*adapters[0])
    registry.promote(1, "champion", "by hand")
    assert registry.number(reference.format(registry.name)) == 1
    version = registry.resolve(reference.format(registry.name))
    assert (version.name, version.number, version.aliases) == (registry.name, 1, ("candidate", "champion"))


def test_a_folder_is_a_reference_too(registry, adapters):
    """An adapter's folder with a manifest is a version without a number, verified like any other."""
    folder, manifest = adapters[0]
    manifests.write(folder, manifest)
    assert registry.resolve(str(folder)).number == 0
    (folder / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(RegistryError, match="altered or cut short"):
        registry.resolve(str(folder))


@pytest.mark.parametrize("reference", ["@canary", "3", "models:/{}@canary", "models:/{}/3"])
def test_unknown_versions_list_what_there_is(registry, adapters, reference):
    """An alias or number that does not exist is answered with the aliases and versions that do."""
    for adapter in adapters[:2]:
        registry.register(*adapter)
    registry.promote(1, "champion", "by hand")
    with pytest.raises(RegistryError, match=r"aliases: candidate -> 2, champion -> 1; versions: 1, 2$"):
        registry.resolve(reference.format(registry.name))
    with pytest.raises(UnknownVersionError, match="no such version"):
        registry.number(reference.format(registry.name))


@pytest.mark.parametrize("reference", ["nowhere", "models:/", "models:/x", "models:/a/b/1", "models:/../1", "@", "v1"])
def test_what_is_no_reference_shows_how_to_write_one(registry, reference):
    """Other text is neither a version nor a folder, and the error shows every spelling."""
    with pytest.raises(RegistryError, match=r"neither a version nor a folder; write models:/\S+@champion"):
        registry.resolve(reference)


@pytest.mark.fault(
    "tampered adapter", "promote, serve", "refused by its hash", "its files are not those that were registered"
)
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "manifest.json"])
def test_a_version_altered_on_disk_is_not_served(registry, adapters, name):
    """A kept file that changes is found; the version does not serve until its adapter is registered again."""
    version = registry.register(*adapters[0])
    text = (version.path / name).read_bytes()
    (version.path / name).write_bytes(text.replace(b"q_proj", b"k_proj"))
    for call in (lambda: registry.resolve("@candidate"), lambda: registry.promote(1, "champion", "by hand")):
        with pytest.raises(RegistryError, match="altered"):
            call()
    assert registry.champion() is None
    assert registry.register(*adapters[0]).created is False
    assert registry.promote(1, "champion", "restored").manifest == adapters[0][1]


def test_a_version_whose_folder_is_gone_is_told_and_comes_back(registry, adapters):
    """Without its folder a version is an error that names the folder; registering it again restores it."""
    version = registry.register(*adapters[0])
    shutil.rmtree(version.path)
    with pytest.raises(RegistryError, match=f"{version.path} is gone"):
        registry.resolve("1")
    assert registry.register(*adapters[0]).created is False
    assert registry.resolve("1").number == 1


def test_the_ledger_knows_who_served_when(registry, adapters):
    """Between two promotions the first version served, after them the second, before them none."""
    for adapter in adapters[:2]:
        registry.register(*adapter)
    times = [now()]
    for number in (1, 2):
        registry.promote(number, "champion", "gate")
        times.append(now())
    assert [serving(registry, "champion", time) for time in times] == [None, 1, 2]
    assert registry.champion().number == 2
    assert [entry.event for entry in registry.history()] == ["register", "register", "promote", "promote"]


def test_a_crash_between_alias_and_ledger_heals(registry, adapters):
    """An alias that MLflow has and the ledger lacks is entered as observed by the next look at it, and only once."""
    for adapter in adapters[:2]:
        registry.register(*adapter)
    registry.promote(1, "champion", "gate")
    client(registry).set_registered_model_alias(registry.name, "champion", "2")
    assert serving(registry, "champion", now()) == 1
    for _ in range(2):
        assert registry.champion().number == 2
    assert serving(registry, "champion", now()) == 2
    observed = [entry for entry in registry.history() if entry.event == "observed"]
    assert [(entry.alias, entry.version) for entry in observed] == [("champion", 2)]


def test_an_alias_deleted_in_mlflow_serves_no_more(registry, adapters):
    """After an alias is deleted in MLflow's own pages the ledger says that nobody serves it."""
    registry.register(*adapters[0])
    registry.promote(1, "champion", "gate")
    client(registry).delete_registered_model_alias(registry.name, "champion")
    assert registry.champion() is None
    assert serving(registry, "champion", now()) is None


@pytest.mark.fault("crash before the ledger's entry", "register", "the next look at the registry enters it")
def test_a_crash_after_the_version_was_made_heals(registry, adapters):
    """A version without alias and entry, as a kill leaves it, is completed by registering the adapter again."""
    adapter, manifest = adapters[0]
    content = manifests.content_sha256(adapter, manifest)
    adapter_store.save(registry._kept(registry.name, content), adapter, manifest, content)
    registry._create(client(registry), content, manifest, None)
    version = registry.register(adapter, manifest)
    assert (version.number, version.created, version.aliases) == (1, True, ("candidate",))
    assert serving(registry, "candidate", now()) == 1


def test_an_alias_that_was_released_points_nowhere(registry, adapters):
    """A released alias is gone in MLflow and in the ledger, once; one that points elsewhere by now stays."""
    for adapter in adapters[:2]:
        registry.register(*adapter)
    registry.promote(2, "canary", "tried")
    before = now()
    registry.release("canary", 1, "over")
    assert registry.resolve("@canary").number == 2
    for _ in range(2):
        registry.release("canary", 2, "over")
    assert (serving(registry, "canary", before), serving(registry, "canary", now())) == (2, None)
    assert [entry.event for entry in registry.history()][-2:] == ["promote", "release"]
    with pytest.raises(RegistryError, match="no such version"):
        registry.resolve("@canary")


@pytest.mark.parametrize("alias", ["latest", "v3", "a b"])
def test_aliases_that_mlflow_reserves_are_refused(registry, adapters, alias):
    """A reserved or malformed alias is an error of the registry, and the ledger gets no entry."""
    registry.register(*adapters[0])
    with pytest.raises(RegistryError, match="refused"):
        registry.promote(1, alias, "by hand")
    assert registry.ledger.verify() == 1


@pytest.mark.parametrize("content", ["", "../../../../etc", "E" * 64])
def test_a_version_made_by_somebody_else_is_told(registry, adapters, content):
    """A version whose tag does not name a content, such as a path out of the folder, is refused."""
    registry.register(*adapters[0])
    client(registry).set_model_version_tag(registry.name, "1", "content_sha256", content)
    with pytest.raises(RegistryError, match="version 1 was not registered by loraloop"):
        registry.resolve("1")


def test_promoting_what_does_not_exist_changes_nothing(registry, adapters):
    """An unknown version number is an error that lists the versions."""
    registry.register(*adapters[0])
    with pytest.raises(RegistryError, match=r"versions: 1$"):
        registry.promote(7, "champion", "by hand")
    assert registry.champion() is None


def test_a_moved_home_still_resolves(home, adapters, tmp_path):
    """A copy of the whole folder elsewhere serves its versions from there."""
    registry = MlflowRegistry(folder=home, name="moved")
    registry.register(*adapters[0])
    other = shutil.copytree(home, tmp_path / "elsewhere")
    assert MlflowRegistry(folder=other, name="moved").resolve("1").path.is_relative_to(other)


def test_a_database_of_another_version_is_told(home, tmp_path):
    """A database that another MLflow made is an error that names it, without a traceback of migrations."""
    other = tmp_path / "mlruns"
    other.mkdir()
    shutil.copyfile(home / "mlflow.db", other / "mlflow.db")
    with sqlite3.connect(other / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'deadbeef'")
    with pytest.raises(RegistryError, match=r"mlflow\.db refused"):
        MlflowRegistry(folder=other).resolve("@champion")


def test_a_file_that_is_no_database_is_told(tmp_path):
    """A damaged database file is an error that names it."""
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(RegistryError, match=r"mlflow\.db refused"):
        MlflowRegistry(folder=tmp_path).resolve("@champion")


def test_a_file_as_home_is_told(tmp_path):
    """A folder that is a file is refused in the pre-flight."""
    (tmp_path / "mlruns").touch()
    with pytest.raises(ConfigError, match=r"registry.folder=.* must be a folder"):
        MlflowRegistry(folder=tmp_path / "mlruns").check()


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "a@b", "it's", ".."])
def test_names_that_a_reference_could_not_hold_are_refused(name):
    """A registered model's name is letters, digits, dot, dash and underscore."""
    with pytest.raises(ValidationError):
        MlflowRegistry(name=name)


def test_importing_and_building_loads_no_mlflow():
    """The registry, the gate and the publishers import and build without mlflow, peft, torch, boto3 or the hub."""
    script = """
import sys
from loraloop.gate.gate import Gate
from loraloop.publish.folder import Folder
from loraloop.publish.hub import Hub
from loraloop.publish.s3 import S3
from loraloop.registry.mlflow import MlflowRegistry
for part in (Gate, Folder, Hub, S3, MlflowRegistry):
    part()
heavy = {"mlflow", "peft", "torch", "boto3", "huggingface_hub", "sqlalchemy", "filelock", "safetensors"}
print(sorted(heavy & set(sys.modules)))
"""
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"


def test_the_aliases_of_a_base(registry, adapters, other_base):
    """Aliases and versions of every model are told for one base, by its hashes or its name, and no adapter is read."""
    base = adapters[0][1].base
    registry.register(*adapters[0])
    registry.promote(1, "champion", "by hand")
    registry.register(*adapters[1])
    second = dataclasses.replace(registry, name=f"{registry.name}-second")
    second.register(*adapters[2])
    foreign = dataclasses.replace(registry, name=f"{registry.name}-foreign")
    adapter, manifest = adapters[2]
    foreign.register(adapter, dataclasses.replace(manifest, base=other_base))
    shutil.rmtree(registry.resolve("1").path)

    def of(wanted):
        return [each for each in registry.aliases(wanted) if each[0].startswith(registry.name)]

    ours = [(registry.name, "candidate", 2), (registry.name, "champion", 1), (second.name, "candidate", 1)]
    assert of(base) == of(base.name) == ours
    every = [each for each in registry.versions(base) if each[0].startswith(registry.name)]
    assert every == [(registry.name, 1), (registry.name, 2), (second.name, 1)]
    assert of(other_base) == of(other_base.name) == [(foreign.name, "candidate", 1)]
    assert of(dataclasses.replace(base, quantization="nf4")) == []
    assert of(dataclasses.replace(base, tokenizer_sha256="0" * 64)) == []


def test_the_aliases_of_versions_that_lack_tags(registry, adapters):
    """A version of an earlier loraloop goes by the tags that it has; one that loraloop did not register is left out."""
    registry.register(*adapters[0])
    own = client(registry)
    for tag in ("quantization", "tokenizer_sha256"):
        own.delete_model_version_tag(registry.name, "1", tag)
    version = own.create_model_version(registry.name, source="elsewhere")
    own.set_registered_model_alias(registry.name, "theirs", version.version)
    found = [each for each in registry.aliases(adapters[0][1].base) if each[0] == registry.name]
    assert found == [(registry.name, "candidate", 1)]
