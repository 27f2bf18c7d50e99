"""Stage ``ab``, as a person gives it."""

from __future__ import annotations

import re

import pytest

from loraloop.feedback.settings import Feedback
from loraloop.records import Rating, Session


def serve(desk, version: str, stars: list[int], status: str = "ok") -> None:
    """Keep sessions that a version answered, rated."""
    store = Feedback(folder=desk.folder / "mlruns").open()
    for number, given in enumerate(stars):
        name = f"{version}-{status}-{number}"
        store.keep(
            Session(
                id=name, time="2026-03-02T11:00:00.000+00:00", asked=version, answered=version, role=None,
                prompt="p", answer="a", status=status, duration=0.2, first_token=0.1, prompt_tokens=3,
                completion_tokens=5,
            )
        )  # fmt: skip
        store.rate(name, Rating(stars=given))
    store.close()


def rows(out: str, name: str) -> list[list[str]]:
    """The cells of every table row of ``name``, intervals left out."""
    plain = re.sub(r" \[[^]]*\]", "", out)
    return [line.split()[1:] for line in plain.splitlines() if line.split()[:1] == [name]]


def test_base_and_adapter_on_the_same_prompts(finished):
    """The trained adapter solves what its base does not, adds less than the bound, and live ratings stand below."""
    serve(finished, "base", [2, 3])
    serve(finished, "loraloop@1", [5, 5])
    out = finished("stage=ab", "adapters=[base,loraloop@champion]", "prompts=12", "tracker=none").out
    assert "12 held-out prompts" in out
    assert "another dataset" not in out
    base, live_base = rows(out, "base")
    tuned, against, live_tuned = rows(out, "loraloop@1")
    assert float(base[0]) == 0.0
    assert float(tuned[0]) >= 0.75
    assert float(against[0]) == float(tuned[0])
    assert "yes" in against
    assert (live_base[:3], live_tuned[:3]) == (["2", "2.50", "2"], ["2", "5.00", "2"])


def test_live_sessions_alone(finished):
    """With ``live=true`` nothing is asked: rating, success and latency come from the sessions of each version."""
    serve(finished, "base", [4, 4, 4])
    serve(finished, "base", [1], status="error")
    seen = finished("stage=ab", "adapters=[base,loraloop@1]", "live=true")
    ((sessions, rating, rated, implied, success, p50, _),) = rows(seen.out, "base")
    assert (sessions, rating, rated, implied, success, p50) == ("4", "3.25", "4", "4.00", "0.750", "200")
    assert rows(seen.out, "loraloop@1") == [["0", "-", "0", "-", "-", "-", "-"]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["adapters=[base]"], "two or more different ones"),
        (["adapters=base"], "two or more different ones"),
        (["adapters=[base,base]"], "two or more different ones"),
        (["adapters=[base,loraloop@9]"], "9"),
        (["adapters=[base,loraloop@1]", "live=true"], "nothing was served yet"),
    ],
)
def test_what_cannot_be_compared(finished, arguments, words):
    """One adapter alone, an unknown version, or sessions that are not there get one clear error."""
    seen = finished.attempt("stage=ab", *arguments)
    assert seen.code != 0
    assert words in seen.err
