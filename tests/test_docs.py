"""The form of the documentation: what each page promises, where it ends, and the list of all pages."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
GENERATED = {"loop_state.md"}
"""Pages that a script makes from the code; tests of their own hold that they are there and up to date."""
LISTS = {"glossary.md"}
"""Pages to look something up in."""
PAGES = sorted((ROOT / "docs").glob("*.md"))
FORMED = [page for page in PAGES if page.name not in GENERATED | LISTS]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.M | re.S)


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text("utf8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """The targets of a page's links to this repository."""
    found = LINK.findall(FENCE.sub("", page.read_text("utf8")))
    return [target for target in found if "://" not in target]


def exists(name: str) -> bool:
    """Whether the glossary's ``module.Class.field`` exists; a class without its module is a record or a protocol."""
    words = name.split(".")
    if name[0].isupper():
        return any(holds(f"loraloop.{home}", words) for home in ("records", "protocols"))
    if words[0] != "hydra_plugins":
        words = ["loraloop", *words]
    split = next(at for at in range(len(words), 0, -1) if findable(".".join(words[:at])))
    return holds(".".join(words[:split]), words[split:])


def findable(module: str) -> bool:
    """Whether there is a module of that name."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def holds(module: str, words: list[str]) -> bool:
    """Whether a module has an attribute, whose class has a field, by the names in ``words``."""
    found: Any = importlib.import_module(module)
    for word in words:
        if not hasattr(found, word) and word not in getattr(found, "__dataclass_fields__", {}):
            return False
        found = getattr(found, word, None)
    return True


def test_the_glossary_names_what_the_code_has():
    """Every name in the glossary's column of the code is a module, class or field of the package."""
    rows = re.findall(r"^\|.*\|.*\|(.*)\|$", (ROOT / "docs" / "glossary.md").read_text("utf8"), re.M)
    names = [name for row in rows for name in re.findall(r"`([\w.]+)`", row)]
    assert len(names) > 50
    assert [name for name in names if not exists(name)] == []


def test_the_readme_is_short():
    """README.md has at most 250 lines, so that what is long lives in docs/."""
    assert len((ROOT / "README.md").read_text("utf8").splitlines()) <= 250


def test_contributing_fits_on_a_screen():
    """CONTRIBUTING.md has at most 60 lines."""
    assert len((ROOT / "CONTRIBUTING.md").read_text("utf8").splitlines()) <= 60


@pytest.mark.parametrize("page", FORMED, ids=lambda page: page.name)
def test_a_page_begins_with_its_promise_and_ends_with_its_limits(page):
    """A page has one title, then a paragraph on what it gives the reader, and its last section is ``Limits``."""
    text = FENCE.sub("", page.read_text("utf8"))
    title, promise, *_ = text.split("\n\n")
    assert re.fullmatch(r"# .+", title)
    assert re.match(r"This page (tells|walks) you ", promise)
    assert len(re.findall(r"^# ", text, re.M)) == 1
    last, _, limits = text.rpartition("\n## ")[2].partition("\n")
    assert last == "Limits"
    assert limits.strip()


def test_llms_txt_has_the_form_of_its_standard():
    """llms.txt is a title, a quoted summary, and sections of links, each with a description (llmstxt.org)."""
    text = (ROOT / "llms.txt").read_text("utf8")
    assert re.match(r"# loraloop\n\n(?:> .+\n)+\n", text)
    sections = text.split("\n## ")[1:]
    assert sections
    for section in sections:
        _, *lines = section.strip().splitlines()
        assert [line for line in lines if line and not re.fullmatch(r"- \[[^\]]+\]\([^)]+\): .+", line)] == []


def test_llms_txt_lists_every_page():
    """Every page of docs/ stands in llms.txt once, and what stands there exists."""
    listed = links(ROOT / "llms.txt")
    assert len(listed) == len(set(listed))
    assert {f"docs/{page.name}" for page in PAGES} <= set(listed)
    made = {f"docs/{name}" for name in GENERATED}
    assert [target for target in listed if target not in made and not (ROOT / target).is_file()] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    """A link of README, CONTRIBUTING or a page names a file that exists, and a heading that the file has."""
    for target in links(page):
        name, _, heading = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if file.name in GENERATED:
            continue
        assert file.exists(), f"{page.name}: {target}"
        assert not heading or heading in slugs(file), f"{page.name}: {target}"


def test_the_walk_of_a_source_works(desk, monkeypatch):
    """The class and the YAML file of docs/extending.md, in a package of one's own, collect what the page says."""
    page = (ROOT / "docs" / "extending.md").read_text("utf8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    (keys,) = [block for block in re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S) if "Riddles" in block]
    (desk.folder / "my_package.py").write_text(code)
    (desk.folder / "own" / "source").mkdir(parents=True)
    own = keys.replace("loraloop.source.riddles", "my_package")
    (desk.folder / "own" / "source" / "riddles.yaml").write_text(own)
    (desk.folder / "riddles.txt").write_text("\n".join([*(f"half of {2 * i} = {i}" for i in range(9)), "a riddle"]))
    monkeypatch.syspath_prepend(desk.folder)
    given = ("--config-dir", str(desk.folder / "own"), "allow_targets=[my_package.]")
    seen = desk(*given, "stage=collect", "source=riddles", "source.path=riddles.txt", "dataset.export=out.jsonl")
    assert "has no ' = ': riddles.txt:10" in seen.out
    assert seen.line("tasks") == "riddle 9"
