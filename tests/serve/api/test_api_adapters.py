"""Loading and unloading adapters by hand, in vLLM's form."""

from __future__ import annotations

import pytest


@pytest.fixture
def folder(tmp_path):
    """An adapter's folder, as the registry of these tests reads it."""
    made = tmp_path / "adapter"
    made.mkdir()
    (made / "rank").write_text("8")
    return made


def load(house, name, path):
    """VLLM's request to load an adapter."""
    return house.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})


@pytest.mark.parametrize("path", ["ocr@7", "loraloop-ocr@7", "models:/loraloop-ocr/7", "models:/ocr@champion"])
def test_a_registered_version_is_loaded(house, path):
    """A version is named as clients name it or as MLflow does; the answer is vLLM's text."""
    response = load(house, "ocr@7", path)
    assert (response.status_code, response.text) == (200, "Success: LoRA adapter 'ocr@7' added successfully.")
    assert house.backend.there == ["base", "ocr@7"]


def test_a_name_of_ones_own_means_one_version(house):
    """A name given by hand is pinned: the alias moves on, the name does not."""
    assert load(house, "mine", "ocr@champion").status_code == 200
    house.registry.aliases["loraloop-ocr@champion"] = 8
    assert house.chat(model="mine").json()["model"] == "ocr@7"
    models = {model.id: model.root for model in house.openai().models.list()}
    assert models["mine"] == "ocr@7"
    assert models["agent:validator"] == "ocr@8"


def test_a_folder_is_named_by_its_weights(house, folder):
    """An adapter from a folder answers under its name, and is told by the beginning of its weights' hash."""
    assert load(house, "mine", folder).status_code == 200
    assert house.chat(model="mine").json()["model"] == "mine@0123456789ab"
    assert house.chat(model="mine@0123456789ab").status_code == 200


@pytest.mark.parametrize(
    ("name", "path", "param"),
    [
        ("base", "ocr@7", "lora_name"),
        ("ocr@8", "ocr@7", "lora_name"),
        ("a b", "ocr@7", "lora_name"),
        ("agent:validator", "ocr@7", "lora_name"),
        ("mine", "ocr@99", "lora_path"),
        ("mine", "/nowhere", "lora_path"),
        ("mine", "", "lora_path"),
    ],
)
def test_what_cannot_be_loaded(house, name, path, param):
    """A name that is taken or would lie about what answers, and a path that leads nowhere, are refused by name."""
    response = load(house, name, path)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert house.backend.there == ["base"]


def test_an_adapter_that_does_not_verify(house, folder):
    """What the backend refuses is a 400 with its reason, and the name stays free."""
    (folder / "rank").write_text("128")
    response = load(house, "mine", folder)
    assert response.status_code == 400
    assert "max_rank=64" in response.json()["error"]["message"]
    assert house.chat(model="mine").status_code == 404
    (folder / "rank").write_text("8")
    assert load(house, "mine", folder).status_code == 200


def test_a_name_is_taken_once(house):
    """A second adapter of a name is refused until the first is unloaded."""
    load(house, "mine", "ocr@7")
    assert load(house, "mine", "ocr@8").status_code == 400
    assert house.post("/v1/unload_lora_adapter", {"lora_name": "mine"}).status_code == 200
    assert load(house, "mine", "ocr@8").status_code == 200


def test_unloading(house, folder):
    """An unloaded name is gone; the adapter stays while another name leads to it."""
    load(house, "one", folder)
    load(house, "two", "ocr@7")
    load(house, "three", "ocr@7")
    text = house.post("/v1/unload_lora_adapter", {"lora_name": "two"})
    assert text.text == "Success: LoRA adapter 'two' removed successfully."
    assert "ocr@7" in house.backend.there
    house.post("/v1/unload_lora_adapter", {"lora_name": "three"})
    house.post("/v1/unload_lora_adapter", {"lora_name": "one"})
    assert house.backend.there == ["base"]
    assert house.chat(model="one").status_code == 404
    assert house.chat(model="one@0123456789ab").status_code == 404


@pytest.mark.parametrize("name", ["nobody", "base", "ocr@7"])
def test_unloading_what_is_not_loaded(house, name):
    """A name that is not loaded is a 404; the base cannot be unloaded."""
    assert house.post("/v1/unload_lora_adapter", {"lora_name": name}).status_code == 404


def test_a_model_never_names_a_folder(house, folder):
    """A path in place of a model is a 404, and the disk is not looked at."""
    assert house.chat(model=str(folder)).status_code == 404
    assert house.registry.asked == []


def roots(house) -> dict[str, str]:
    """What the list of models says that answers for each."""
    return {card["id"]: card["root"] for card in house.get("/v1/models").json()["data"]}


def test_registered_aliases_are_listed(build):
    """The registry's aliases are listed, under a model's short name where it has one, and lead to what answers."""
    house = build(roles={}, names={"ocr": "loraloop-ocr"})
    found = roots(house)
    assert found == {"base": "base", "ocr@champion": "ocr@7", "loraloop-recovery@champion": "loraloop-recovery@2"}
    assert next(iter(found)) == "base"
    assert {name: house.chat(model=name).json()["model"] for name in found} == found


def test_every_version_is_listed(build):
    """Each registered version of this base is listed under its own name, the newest of a model first."""
    house = build(roles={}, names={"ocr": "loraloop-ocr"})
    house.registry.numbers = [("loraloop-ocr", 6), ("loraloop-ocr", 7), ("odd name", 1)]
    found = roots(house)
    assert [name for name in found if name.startswith("ocr@")] == ["ocr@champion", "ocr@7", "ocr@6"]
    assert house.chat(model="ocr@6").json()["model"] == found["ocr@6"] == "ocr@6"


def test_an_alias_that_no_client_can_write_is_not_listed(build):
    """A name that this server would not take as a model is left out of the list."""
    house = build(roles={}, names={})
    house.registry.aliases = {"odd name@champion": 1, "loraloop-ocr@champion": 7}
    assert set(roots(house)) == {"base", "loraloop-ocr@champion"}


def test_the_list_asks_the_registry_once_while_it_is_believed(build):
    """Any number of lists within ``alias_seconds`` cost one look at the registry's aliases; answers cost none."""
    house = build(roles={}, alias_seconds=60)
    for _ in range(3):
        house.get("/v1/models")
        house.chat()
    assert (house.registry.listings, house.registry.asked) == (1, [])


def test_the_list_stays_while_the_registry_is_away(build):
    """A registry that cannot be asked leaves the list as it was known, and a new server with the base alone."""
    house = build(roles={}, alias_seconds=0)
    known = roots(house)
    house.registry.down = True
    assert roots(house) == known
    fresh = build(roles={}, alias_seconds=0)
    fresh.registry.down = True
    assert roots(fresh) == {"base": "base"}
