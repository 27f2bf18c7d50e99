"""The config group ``source=sessions``: rated sessions become examples, and each that does not gets a reason."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

from loraloop.core import tool_calls
from loraloop.core.part import part
from loraloop.core.same_task import answer_key, collapse, question
from loraloop.errors import ConfigError, DataError
from loraloop.protocols import Ocr
from loraloop.records import Agent, Collection, Example, Message, Provenance, Quarantined, Session
from loraloop.source.screening import Policy
from loraloop.source.sessions import conversation, database, reading
from loraloop.source.sessions.family import Family, families, praised_by_itself, vouched
from loraloop.source.sessions.targets import Target, lacking, targets
from loraloop.source.sessions.text import answer, asked, usable

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

_log = logging.getLogger(__name__)
_SHOWN_IDS = 20

Stars = Annotated[int, Field(ge=1, le=5)]
_UNREAD = "not rated, or not rated so that they teach anything"
_NO_ANSWER = "neither an answer nor a tool call is recorded"

Fate = Literal["corrective", "positive", "negative", "pair", "quarantined", "filtered"]


@dataclass(frozen=True, slots=True)
class Labelled:
    """One session's examples, or the reason why it has none.

    Attributes:
        waiting: What it would be corrected to once a person accepts that in review.
        waits: Whether it has such a correction, or one that a person wrote and that waits for review.
    """

    id: str
    fate: Fate
    examples: tuple[Example, ...] = ()
    reason: str = ""
    waiting: Target | None = None
    waits: bool = False


@part
class Sessions:
    """Rated agent sessions, ``<path>/<id>/session.json``, or the database that a server keeps them in.

    A rating below ``below`` makes a corrective example, whose target is a person's correction, the answer of a
    sibling (same task and agent) rated ``min_positive_rating`` or more, or what the rule for its issue makes of the
    recorded calls. A rating of ``min_positive_rating`` or more makes a positive example. With ``pairs`` the examples
    are instead preference pairs: what a person accepted in review chosen over the answer that it corrects, and else
    high-rated answers over answers rated below ``rejected_below``.

    With ``negative`` in ``use`` every example has a label: an answer rated below ``rejected_below`` is a bad example,
    whether it has a correction or not, and all others are good ones. ``trainer=kto`` learns from both.

    What a person rejected in ``stage=review`` is no target, and neither is an answer that only the key that asked for
    it rated high. With ``review: required`` a sibling or a rule's answer of a database is a target after a person
    accepted it for its task; a folder has no review, and whoever made it chose what is in it.

    With ``form: calls`` a session that recorded calls is a conversation that calls tools: a good one is learned turn by
    turn, a bad one up to its failing step, where the corrected or the sibling's calls are learned.
    """

    path: Path | str = Path("examples/sessions")
    below: Annotated[Stars, Field(ge=2)] = 4
    min_corrective: Annotated[int, Field(ge=0)] = 5
    use: Annotated[tuple[Literal["corrective", "positive", "negative"], ...], Field(min_length=1)] = (
        "corrective",
        "positive",
    )
    min_positive_rating: Stars = 5
    review: Literal["required", "none"] = "required"
    form: Literal["text", "calls"] = "text"
    pairs: bool = False
    rejected_below: Annotated[Stars, Field(ge=2)] = 3
    agents: Annotated[tuple[Agent, ...], Field(min_length=1)] | None = None
    secrets: Policy = "quarantine"
    emails: bool = False

    @field_validator("path")
    @classmethod
    def _folder_or_url(cls, path: Path | str) -> Path | str:
        return path if "://" in str(path) else Path(path)

    @model_validator(mode="after")
    def _pairs_are_texts(self) -> Sessions:
        if self.pairs and self.form == "calls":
            raise ValueError("pairs=true sets answers against each other as texts: write form=text")
        return self

    @model_validator(mode="after")
    def _high_above_low(self) -> Sessions:
        for key, low in (("below", self.below), ("rejected_below", self.rejected_below)):
            if low > self.min_positive_rating:
                raise ValueError(
                    f"{key}={low} is above min_positive_rating={self.min_positive_rating}, so a rating could be low "
                    f"and high at once; write {key}={self.min_positive_rating} or less"
                )
        return self

    def check(self) -> None:
        """Check that the folder or the database is there.

        Raises:
            ConfigError: There is no such folder or database.
        """
        folder = Path(self.path)
        if database.address(self.path) is None and not folder.is_dir():
            found = "is a file" if folder.exists() else f"does not exist (seen from {Path.cwd()})"
            raise ConfigError(
                f"source.path={self.path} {found}; name the folder that holds <id>/session.json, "
                "such as source.path=examples/sessions in a checkout, or a server's database, mlruns/sessions.db"
            )

    def collect(self, ocr: Ocr | None = None) -> Collection:
        """Read the sessions and make the examples, in the order of the session ids.

        Raises:
            ConfigError: ``path`` is neither a folder nor a database.
            DataError: Fewer than ``min_corrective`` corrective examples or pairs, or no example at all.
        """
        self.check()
        url = database.address(self.path)
        sessions, broken = self._read(url)
        labelled = self.judge(sessions, reviewed=url is not None and self.review == "required")
        if url is not None:
            proposed = database.undecided(url)
            labelled = [_waiting(one, sessions[one.id]) if one.id in proposed else one for one in labelled]
        place = str(self.path) if url is None or "://" not in str(self.path) else url.render_as_string()
        unread = 0 if url is None else database.count(url) - len(labelled) - len(broken)
        self._demand_enough(place, labelled, broken, unread)
        _log.info("%s: %s", place, _summary(labelled, len(broken), unread))
        unusable = [Quarantined(one.id, one.reason) for one in labelled if one.fate == "quarantined"]
        return Collection(
            examples=tuple(example for one in labelled for example in one.examples),
            quarantined=tuple(sorted([*broken, *unusable], key=lambda one: one.item)),
        )

    def _read(self, url: URL | None) -> reading.Usable:
        """The sessions of a folder, or those of a database that examples can come from."""
        if url is None:
            return reading.read(Path(self.path))
        # A pair may come of a correction whatever the stars, so all that was decided is read.
        wanted = reading.rated if "positive" in self.use or self.pairs else reading.corrective
        return wanted(url, self._low, self.min_positive_rating)

    def correct(self, example: Example, answer: str) -> bool:
        """Whether ``answer`` is the target, white space aside; calls are read out of it as templates write them."""
        if example.messages[-1].tool_calls:
            return conversation.same_calls(example.messages[-1], answer)
        return collapse(answer) == collapse(example.output)

    def judge(self, sessions: Mapping[str, Session], *, reviewed: bool = False) -> list[Labelled]:
        """Examples or a reason for every session, in the order of the ids.

        Args:
            sessions: By id.
            reviewed: Whether siblings and answers of rules wait until a person accepts them.
        """
        counts = _may_be_proposed if reviewed else vouched
        kin = families(sessions, self._low, self.min_positive_rating, counts)
        decide = self._pair if self.pairs else self._label if "negative" in self.use else self._teach
        return [
            self._passed_over(name, session) or decide(name, session, kin[name], reviewed)
            for name, session in sorted(sessions.items())
        ]

    @property
    def _low(self) -> int:
        return self.rejected_below if self.pairs else self.below

    def _passed_over(self, name: str, session: Session) -> Labelled | None:
        if self.agents is not None and session.agent not in self.agents:
            return Labelled(name, "filtered", reason=f"agent {session.agent or 'unknown'} is not in source.agents")
        if session.rating is None:
            return Labelled(name, "filtered", reason="not rated")
        return None

    def _teach(self, name: str, session: Session, family: Family, reviewed: bool) -> Labelled:
        rating = session.stars or 0
        if self.below <= rating < self.min_positive_rating:
            return Labelled(name, "filtered", reason=f"rated {rating}: neither bad nor good enough to learn from")
        fate: Fate = "corrective" if rating < self.below else "positive"
        if fate not in self.use:
            return Labelled(name, "filtered", reason=f"rated {rating}: {fate} examples are not in source.use")
        if fate == "positive":
            said = conversation.whole(session) if self.form == "calls" else ()
            return _unwanted(name, session, family) or _labelled(
                name, fate, session, [answer(session)], _NO_ANSWER, said=said
            )
        waiting = None
        for each in targets(session, family):
            if not reviewed or each.source == "user" or answer_key(each.text) in family.accepted:
                said = conversation.corrected(session, each) if self.form == "calls" else ()
                return _labelled(name, fate, session, [each.text], "", said=said)
            waiting = waiting or each
        if waiting is not None:
            reason = f"rated {rating}, and the answer of a {waiting.source} waits for review (stage=review)"
            return Labelled(name, "quarantined", reason=reason, waiting=waiting, waits=True)
        missing = f"no person corrected it, {self._no_sibling}, and no rule applies: {lacking(session)}"
        return _labelled(name, fate, session, [], missing)

    def _label(self, name: str, session: Session, family: Family, reviewed: bool) -> Labelled:
        """What the session teaches, labelled good, and its own answer labelled bad where it was rated so."""
        taught = self._teach(name, session, family, reviewed)
        good = tuple(replace(example, label=True) for example in taught.examples)
        if (session.stars or 0) >= self.rejected_below:
            return replace(taught, examples=good)
        said = conversation.whole(session) if self.form == "calls" else ()
        own = _labelled(name, "negative", session, [answer(session)], _NO_ANSWER, said=said)
        bad = tuple(replace(example, label=False) for example in own.examples)
        if good or not bad:
            return replace(taught, examples=good + bad)
        return replace(taught, fate="negative", examples=bad, reason="")

    def _pair(self, name: str, session: Session, family: Family, reviewed: bool) -> Labelled:
        rating = session.stars or 0
        chosen = usable(session.correction)
        if rating >= self.rejected_below and not chosen:
            side = "the chosen side of pairs" if rating >= self.min_positive_rating else "neither chosen nor rejected"
            return Labelled(name, "filtered", reason=f"rated {rating}: {side}")
        if not (rejected := answer(session)):
            return _labelled(name, "pair", session, [], _NO_ANSWER)
        if reviewed:
            accepted = {key: text for key, text in family.good.items() if key in family.accepted}
            family = replace(family, good=accepted)
        if chosen and answer_key(chosen) != answer_key(rejected):  # a person said which of the two is right
            return _labelled(name, "pair", session, [chosen], "", rejected)
        if rating >= self.rejected_below:
            return Labelled(name, "filtered", reason=f"rated {rating}, and its correction is the answer itself")
        return _labelled(name, "pair", session, family.dealt(name, rejected), self._no_sibling, rejected)

    @property
    def _no_sibling(self) -> str:
        return f"no other answer rated {self.min_positive_rating} or more to the same task"

    def _demand_enough(
        self, place: str, labelled: Sequence[Labelled], broken: Sequence[Quarantined], unread: int
    ) -> None:
        fate: Fate = next(kind for kind in ("negative", "corrective", "positive") if kind in self.use)
        fate = "pair" if self.pairs else fate
        if fate == "negative":
            usable = sum(example.label is False for one in labelled for example in one.examples)
        else:
            usable = sum(len(one.examples) for one in labelled if one.fate == fate)
        needed = self.min_corrective if fate in {"pair", "corrective"} else 1
        if usable >= needed and any(one.examples for one in labelled):
            return
        others = [(one.id, one.reason or f"made a {one.fate} example") for one in labelled if one.fate != fate]
        others += [(one.item, one.reason) for one in broken]
        key = f" (source.min_corrective={needed})" if fate in {"pair", "corrective"} else ""
        waiting = sum(one.waits for one in labelled)
        raise DataError(
            f"{place} holds {len(labelled) + len(broken) + unread} sessions, from which came {usable} {fate} examples; "
            f"at least {max(1, needed)} are needed{key}: rate or correct more sessions"
            f"{', or lower it' if key else ''}."
            + (f" {waiting} wait for a person: stage=review, or source.review=none." if waiting else "")
            + (f" {unread} are {_UNREAD}." if unread else "")
            + (" The others:" + _reasons(others) if others else "")
        )


def _waiting(one: Labelled, session: Session) -> Labelled:
    """What is said of a session with a correction that nobody has decided on yet."""
    if one.fate != "quarantined" or one.waits:
        return one
    reason = f"rated {session.stars}, and its correction waits for review (stage=review)"
    return replace(one, reason=reason, waits=True)


def _may_be_proposed(session: Session) -> bool:
    return not praised_by_itself(session)


def _unwanted(name: str, session: Session, family: Family) -> Labelled | None:
    """Why a well-rated answer is not learned from; ``None`` if it may be."""
    if answer_key(answer(session)) in family.refused:
        return Labelled(name, "filtered", reason=f"rated {session.stars}, and rejected in review")
    if not vouched(session):
        return Labelled(name, "filtered", reason=f"rated {session.stars} by no other key than the one that asked")
    return None


def _labelled(
    name: str,
    fate: Fate,
    session: Session,
    outputs: Sequence[str],
    missing: str,
    rejected: str | None = None,
    said: tuple[Message, ...] = (),
) -> Labelled:
    """The examples with ``outputs``; ``said`` is the whole conversation of the one output, where there is one."""
    examples = tuple(
        Example(
            messages=said or (*past, _answered(session, output)),
            tools=tuple(session.tools or ()),
            raw=isinstance(session.prompt, str) and not session.iterations,
            rejected=None if rejected is None else _answered(session, rejected),
            task=session.agent or "session",
            origin=question(session),
            provenance=Provenance(source="sessions", session_id=name),
        )
        for past in [asked(session)]
        for output in outputs
        if output
    )
    if examples:
        return Labelled(name, fate, examples)
    return Labelled(name, "quarantined", reason=f"rated {session.stars}, but {missing}")


def _answered(session: Session, output: str) -> Message:
    """An answer as a message; its calls are calls where each fits a tool that the session offered, and else text."""
    tools = session.tools or ()
    text, calls = tool_calls.given(output, bool(tools))
    if not calls or any(tool_calls.problem(call, tools) for call in calls):
        return Message("assistant", (output,))
    return Message("assistant", (text,) if text else (), calls)


def _reasons(others: Iterable[tuple[str, str]]) -> str:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for name, reason in others:
        by_reason[reason].append(name)
    return "".join(
        f"\n  {len(ids)} x {reason}: {', '.join(ids[:_SHOWN_IDS])}{', ...' if len(ids) > _SHOWN_IDS else ''}"
        for reason, ids in sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
    )


def _summary(labelled: Sequence[Labelled], broken: int, unread: int) -> str:
    counts: dict[str, int] = defaultdict(int, quarantined=broken) | ({_UNREAD: unread} if unread else {})
    for one in labelled:
        counts[one.fate] += 1
    return ", ".join(f"{count} {fate}" for fate, count in sorted(counts.items()))
