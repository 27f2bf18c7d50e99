"""Stage ``ledger``: every decision that was taken, and which version served a role at a time, and why."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.core.suggest import nearest
from loraloop.errors import ConfigError, RegistryError
from loraloop.workflows.retraining.deployment import registry_of

if TYPE_CHECKING:
    from pathlib import Path

    from loraloop.records import Job
    from loraloop.registry.ledger import Entry
    from loraloop.registry.mlflow import MlflowRegistry

ALIASES = ("candidate", "canary", "champion")
WIDTH = 120
INDENT = " " * 4
NAMED = frozenset({"decision", "decided", "role", "policy", "cycle", "rollout"})
"""What an entry's numbers say of the loop, beside the numbers that it decided on."""
LATE = timedelta(minutes=1)
"""A decision that was written down later than that is shown with the time at which it was taken."""


def ledger(
    job: Job,
    role: str,
    at: str | None,
    verify: bool,
    roles: dict[str, str],
    names: dict[str, str],
    registry: MlflowRegistry,
) -> None:
    """Print the ledger, whether it is as it was written, or which version served a role at a time, and why.

    Args:
        job: Of the stage.
        role: An agent role, or an alias of the registry's own model.
        at: ISO 8601; UTC where it names no zone.
        verify: Only check the chain of hashes.
        roles: What answers for each agent role.
        names: Short names of registered models.
        registry: Whose model is that of an alias; a role has its own.

    Raises:
        ConfigError: There is no such role or alias.
        RegistryError: There is no ledger, or it was altered; the message names the first line that does not hold.
    """
    alias, model, answers = role, None, roles.get(role)
    if answers is not None:
        short, _, alias = answers.partition("@")
        if not alias:
            print(f"{answers} answers for {role} (server.roles.{role}): no version serves it")
            return
        model = names.get(short, short)
        registry = registry_of(role, short, names, registry)
    entries = registry.history()
    if at is not None and not verify:
        _tell(role, alias, model, str(at), entries, roles)
        return
    _demand(registry.ledger.path)
    if verify:
        _hold(role, entries)
    else:
        _list(entries)


def _demand(path: Path) -> None:
    """Refuse a ledger that there is not: nothing was altered in it, and nothing was ever written."""
    if path.exists():
        return
    kind = ".ledger.jsonl"
    others = [file.name.removesuffix(kind) for file in sorted(path.parent.glob(f"*{kind}"))]
    raise RegistryError(
        f"there is no ledger {path}: nothing was registered under that name"
        + (f"; there are those of {', '.join(others)} (registry.name=NAME, or role=ROLE)" if others else " yet")
    )


def _hold(role: str, entries: Sequence[Entry]) -> None:
    """That the chain holds, and its end: what was cut off there, only somebody who noted the hash can tell."""
    values = {"entries": f"{len(entries)} hold, each continues the one before it"}
    if entries:
        values["last"] = f"{entries[-1].time} {entries[-1].event}, sha256 {entries[-1].sha256}"
    console.facts(f"ledger of {role}", values)


def _tell(
    role: str, alias: str, model: str | None, at: str, entries: Sequence[Entry], roles: Mapping[str, str]
) -> None:
    from loraloop.registry.alias_history import active_version
    from loraloop.registry.ledger import moment

    then = moment(at)
    time = then.isoformat()
    own = f"{model} " if model else ""
    if alias.isdecimal():
        print(f"{own}version {alias} was {role} at {time} if server.roles.{role}={roles[role]} was set then")
        return
    known = {*ALIASES, *(entry.alias for entry in entries if entry.alias)}
    if model is None and alias not in known:
        raise ConfigError(
            f"role={role} is neither an agent role nor an alias{nearest(role, [*roles, *known])}; "
            f"there are {', '.join([*roles, *sorted(known)])}"
        )
    found = active_version(entries, alias, then)
    if found is None or found.version is None:
        print(f"no version was {role} at {time}")
        return
    title = f"{own}version {found.version} was {role} at {time}"
    console.facts(
        title, {"since": found.entry.time} | _why(found.why) | (_beside(found.canary) if found.canary else {})
    )


def _why(entry: Entry) -> dict[str, str]:
    """The decision of an entry, as facts."""
    numbers = {name: value for name, value in entry.numbers.items() if name not in NAMED}
    told = {
        "why": f"{entry.event}: {entry.reason}",
        "decided": _earlier(entry),
        "numbers": ", ".join(
            f"{name} {_short(value)}" for name, value in console.flatten(numbers).items() if value != "None"
        ),
        "policy": str(entry.numbers.get("policy") or ""),
        "decision": str(entry.numbers.get("decision") or ""),
    }
    return {name: value for name, value in told.items() if value}


def _beside(entry: Entry) -> dict[str, str]:
    """The rollout that an entry began, as a fact."""
    share = entry.numbers.get("share")
    of = f" to {share:.0%} of conversations" if isinstance(share, float) else ""
    return {"canary": f"version {entry.version}{of}, since {_earlier(entry) or entry.time}: {entry.reason}"}


def _earlier(entry: Entry) -> str:
    """When an entry's decision was taken, where that was noticeably before it was written down."""
    from loraloop.registry.alias_history import decided

    taken = decided(entry)
    return taken.isoformat() if datetime.fromisoformat(entry.time) - taken > LATE else ""


def _list(entries: Sequence[Entry]) -> None:
    """The whole ledger, as a log: what happened on one line, why below it."""
    print(f"{len(entries)} entries; each continues the one before it")
    width = min(shutil.get_terminal_size().columns, WIDTH)
    for entry in entries:
        role, policy = (entry.numbers.get(name) for name in ("role", "policy"))
        head = [
            entry.event,
            f"version {entry.version}" if entry.version else "",
            f"-> {entry.alias}" if entry.alias else "",
            f"({role}, policy {policy})" if role and policy else "",
            f"decided {earlier.replace('+00:00', 'Z')}" if (earlier := _earlier(entry)) else "",
        ]
        print(entry.time.replace("+00:00", "Z"), " ".join(filter(None, head)))
        print(textwrap.fill(entry.reason, width, initial_indent=INDENT, subsequent_indent=INDENT))


def _short(value: str) -> str:
    """A fraction with the digits that a person reads; whole numbers and ids as they are."""
    try:
        return f"{float(value):.4g}" if "." in value else value
    except ValueError:
        return value
