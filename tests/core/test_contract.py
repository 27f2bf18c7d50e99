"""Methods that a part promises, looked at before one is called."""

from __future__ import annotations

import pytest

from loraloop.core import contract
from loraloop.core.build import build
from loraloop.records import Example, Provenance


def stage(job, source: Source, tracker: Tracker | None = None):  # type: ignore[name-defined]  # noqa: F821 - as stages are annotated
    """What the tests build parts for."""


class Held:
    """A part that takes sources by name."""

    def __init__(self, sources: dict[str, Source]):  # type: ignore[name-defined]  # noqa: F821
        self.sources = sources


class Whole:
    """A source with all that one must have; its unused argument has a name of its own."""

    def collect(self, _reader):
        """Nothing."""
        return []


class Fixed(Whole):
    """A source with a rule of its own, which takes more than it must."""

    def correct(self, example, answer, *, strict=False):
        """Whether it is the one answer."""
        return answer == "fixed"


class Misspelt:
    """A source whose method has another name."""

    def colect(self, ocr):
        """Nothing."""
        return []


class Narrow:
    """A source whose methods take too little."""

    correct = None

    def collect(self):
        """Nothing."""
        return []


class Nameless:
    """A tracker that takes options under other names."""

    ui_command = None

    def check(self):
        """Nothing."""

    def start(self, name, above=None, again=None):
        """Nothing."""

    def artifacts(self, run):
        """Nothing."""

    def read(self, run):
        """Nothing."""


COLLECT = "a Source has `def collect(self, ocr: Ocr | None) -> Collection | Iterable[Example | Mapping[str, Any]]`"
CORRECT = "a Source has `def correct(self, example: Example, answer: str) -> bool`"


def test_a_part_with_all_methods_is_fit():
    """Names of arguments that are given by place, and more arguments with defaults, are the part's own affair."""
    assert contract.unmet(stage, {"source": Whole(), "tracker": None}) == []
    assert contract.unmet(stage, {"source": Fixed()}) == []


def test_a_missing_method_is_named_with_its_signature():
    """The sentence holds the class, the method that was probably meant, and what is expected."""
    (problem,) = contract.unmet(stage, {"source": Misspelt()})
    assert problem == f"source: {__name__}.Misspelt has no collect (did you mean colect?); {COLLECT}"


def test_every_method_that_cannot_be_called_is_named():
    """A method with too few arguments, and a name that is no method, are told together."""
    assert contract.unmet(stage, {"source": Narrow()}) == [
        f"source: {__name__}.Narrow.collect(self) cannot be called as loraloop does; {COLLECT}",
        f"source: {__name__}.Narrow.correct cannot be called as loraloop does; {CORRECT}",
    ]


def test_options_are_given_by_their_names():
    """A method that calls an argument with a default otherwise is named; a property may be a plain value."""
    (problem,) = contract.unmet(stage, {"source": Whole(), "tracker": Nameless()})
    assert problem.startswith(
        f"tracker: {__name__}.Nameless.start(self, name, above=None, again=None) cannot be called"
    )


def test_a_part_within_a_part_is_looked_at():
    """A source within a mix is named by its place, before the mix is made of it."""
    nodes = {"good": {"_target_": f"{__name__}.Whole"}, "bad": {"_target_": f"{__name__}.Misspelt"}}
    problems: list[str] = []
    build({"_target_": f"{__name__}.Held", "sources": nodes}, "source", (__name__,), problems)
    assert [problem.partition(" has no ")[0] for problem in problems] == [f"source.sources.bad: {__name__}.Misspelt"]


@pytest.mark.parametrize("value", [{"path": "my.csv"}, 3, [1]])
def test_what_is_no_part_is_told_from_one(value):
    """A group whose YAML names no class is refused with the key that names one."""
    (problem,) = contract.unmet(stage, {"source": value})
    assert problem == "source is no Source: its YAML names the class, such as _target_: my_package.MyClass"


def test_a_source_without_a_rule_judges_by_equality():
    """Where a source has no ``correct``, the text without white space around it must be the output's."""
    example = Example.one_turn(input="a", output=" b\n", provenance=Provenance(source="own"))
    bare, ruled = Whole(), Fixed()
    contract.unmet(stage, {"source": bare})
    contract.unmet(stage, {"source": ruled})
    assert [bare.correct(example, answer) for answer in ("b ", "B", "")] == [True, False, False]
    assert ruled.correct(example, "fixed")
