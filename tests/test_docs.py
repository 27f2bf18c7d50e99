"""The form of the documentation: what each page promises, where it ends, and the list of all pages."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from loraloop.records import Example, Provenance

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


BLOCK = re.compile(r"(?:^`([\w./]+)`\n\n)?^```(\w+)\n(.*?)^```", re.M | re.S)
"""The file that a block is, its language and its text."""


def test_the_walk_of_a_source_works(desk):
    """The blocks of docs/extending.md on a source, in their order and as printed, list, preview and train it."""
    page = (ROOT / "docs" / "extending.md").read_text("utf8")
    section = page.partition("\n## Add a source\n")[2].partition("\n## ")[0]
    said, promised = [], ""
    for file, language, text in BLOCK.findall(section):
        if file:
            (desk.folder / file).write_text(text)
        elif language == "text":
            promised = text
        elif text.startswith("loraloop"):
            said += [desk(*shlex.split(line)[1:]).out for line in text.splitlines()]
        elif language == "bash":
            subprocess.run(["bash", "-euc", text], cwd=desk.folder, check=True)
    listed, preview, trained = said
    assert "source=riddles           riddles from a text file, question = answer" in listed
    assert promised
    assert promised in preview
    assert "20 held-out rows" in trained


def test_the_judge_of_the_page_judges(tmp_path, monkeypatch):
    """The method of docs/extending.md takes a number however it is written, and no other answer."""
    page = (ROOT / "docs" / "extending.md").read_text("utf8")
    (code,) = [text for _, language, text in BLOCK.findall(page) if language == "python" and "def correct" in text]
    (tmp_path / "judging_riddles.py").write_text(f"class Judge:\n{code}")
    monkeypatch.syspath_prepend(tmp_path)
    correct = importlib.import_module("judging_riddles").Judge().correct
    example = Example.one_turn(input="half of 14", output="7", provenance=Provenance(source="riddles"))
    right = [answer for answer in ("7", "7.0", "It is 7.", "8", "seven", "") if correct(example, answer)]
    assert right == ["7", "7.0", "It is 7."]
