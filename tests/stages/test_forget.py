"""Stage ``forget``, as a person gives it."""

from __future__ import annotations

import pytest

from loraloop.dataset import exports
from loraloop.feedback.settings import Feedback
from loraloop.records import Example, Provenance, Rating, Session


@pytest.fixture
def served(desk):
    """A desk at which two clients were answered, with an export of the first one's session."""
    store = Feedback(folder=desk.folder / "mlruns").open()
    for name in ("ann", "bob"):
        store.keep(Session(id=name, prompt="x", answer="y", answered="base", client=name, status="ok", duration=1.0))
        store.rate(name, Rating(stars=2, correction="z"))
    store.close()
    row = Example.one_turn(input="x", output="z", provenance=Provenance(source="sessions", session_id="ann"))
    exports.save([row], desk.folder / "rows.jsonl")
    return desk


def left(desk):
    """Ids of the sessions that are there."""
    store = Feedback(folder=desk.folder / "mlruns").open()
    found = [each.id for each in store.all()]
    store.close()
    return found


def test_a_client_is_forgotten(served):
    """It is shown first and erased with ``confirm=true``, once; exports are named also afterwards."""
    asked = ("stage=forget", "client=ann", "exports=[rows.jsonl]", "tracker=none")
    shown = served(*asked)
    counted = "1 sessions, 1 ratings, 1 corrections, 0 signals, 0 cached pages"
    assert (shown.line("would be erased"), left(served)) == (counted, ["ann", "bob"])
    assert shown.line("exports") == f"{served.folder}/rows.jsonl (1 sessions)"
    assert shown.line("trained on them") == "no version"
    assert "loraloop stage=forget client=ann 'exports=[rows.jsonl]' tracker=none confirm=true" in shown.out
    assert (served(*asked, "confirm=true").line("erased"), left(served)) == (counted, ["bob"])
    assert served(*asked, "confirm=true").out.startswith("There is nothing of client=ann to erase in sqlite:")
    later = served("stage=forget", "exports=[rows.jsonl]", "tracker=none")
    assert later.out.startswith("1 sessions were erased")
    assert later.line("exports").endswith("rows.jsonl (1 sessions)")


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        (["client=Anne", "confirm=true"], "client: there are ann, bob (did you mean ann?)"),
        (["client=ann", "key=desk"], "nothing of client=ann and key=desk to erase"),
        (["conversation=nobody", "confirm=true"], "conversation: there are none"),
        (["confirm=true"], "0 sessions were erased"),
    ],
)
def test_nothing_is_meant(served, choice, says):
    """A client or a conversation that is not there, or ``confirm`` alone, erases nothing and says what there is."""
    assert says in served("stage=forget", *choice, "tracker=none").out
    assert left(served) == ["ann", "bob"]
