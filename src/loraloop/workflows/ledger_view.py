"""What the ledger says, for people to read."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.core.suggest import nearest
from loraloop.errors import ConfigError, RegistryError

if TYPE_CHECKING:
    from pathlib import Path

    from loraloop.registry.ledger import Entry

ALIASES = ("candidate", "canary", "champion")
WIDTH = 120
INDENT = " " * 4
NAMED = frozenset({"decision", "decided", "role", "policy", "cycle", "rollout"})
"""Entries of ``numbers`` that identify a decision; the others are what it was based on."""
LATE = timedelta(minutes=1)
"""A decision that was written down later than that is shown with the time at which it was taken."""


def require(path: Path) -> None:
    """Refuse a ledger that does not exist.

    Raises:
        RegistryError: There is no file at ``path``; the message names the ledgers beside it.
    """
    if path.exists():
        return
    kind = ".ledger.jsonl"
    others = [file.name.removesuffix(kind) for file in sorted(path.parent.glob(f"*{kind}"))]
    raise RegistryError(
        f"there is no ledger {path}: nothing was registered under that name"
        + (f"; there are those of {', '.join(others)} (registry.name=NAME, or role=ROLE)" if others else " yet")
    )


def print_chain(role: str, entries: Sequence[Entry]) -> None:
    """Print that the chain of hashes holds, and the hash of its last entry.

    Entries that were cut off at the end leave a chain that holds: only a hash that was noted earlier reveals that.
    """
    values = {"entries": f"{len(entries)} hold, each continues the one before it"}
    if entries:
        values["last"] = f"{entries[-1].time} {entries[-1].event}, sha256 {entries[-1].sha256}"
    console.facts(f"ledger of {role}", values)


def require_known(role: str, entries: Sequence[Entry], roles: Mapping[str, str]) -> None:
    """Refuse what is neither an agent role nor an alias that the ledger knows.

    Raises:
        ConfigError: With the nearest one and all there are.
    """
    known = [*roles, *sorted({*ALIASES, *(entry.alias for entry in entries if entry.alias)})]
    if role not in known:
        raise ConfigError(
            f"role={role} is neither an agent role nor an alias{nearest(role, known)}; there are {', '.join(known)}"
        )


def print_active(
    role: str, alias: str, model: str | None, at: str, entries: Sequence[Entry], roles: Mapping[str, str]
) -> None:
    """Print which version served a role at a time, since when, and why; of a time to come, which one serves now.

    Args:
        role: As it was asked for: an agent role or an alias.
        alias: The alias, or the number of a version, that answers for the role.
        model: The role's registered model; ``None`` for an alias of the registry's own.
        at: ISO 8601.
        entries: The ledger, oldest first.
        roles: What answers for each agent role.
    """
    from loraloop.registry.alias_history import active_version
    from loraloop.registry.ledger import moment

    then, now = moment(at), datetime.now(UTC)
    if then > now:
        print(f"{then.isoformat()} is in the future, which no ledger knows; this is how it is now:")
        then = now
    time = then.isoformat(timespec="seconds" if then == now else "auto")
    own = f"{model} " if model else ""
    if alias.isdecimal():
        print(f"{own}version {alias} was {role} at {time} if server.roles.{role}={roles[role]} was set then")
        return
    found = active_version(entries, alias, then)
    if found is None or found.version is None:
        print(f"no version was {role} at {time}")
        return
    title = f"{own}version {found.version} was {role} at {time}"
    console.facts(
        title, {"since": found.entry.time} | _why(found.why) | (_beside(found.canary) if found.canary else {})
    )


def _why(entry: Entry) -> dict[str, str]:
    """What an entry says of its decision, by name."""
    numbers = {name: value for name, value in entry.numbers.items() if name not in NAMED}
    facts = {
        "why": f"{entry.event}: {entry.reason}",
        "decided": _earlier(entry),
        "numbers": ", ".join(
            f"{name} {_short(value)}" for name, value in console.flatten(numbers).items() if value != "None"
        ),
        "policy": str(entry.numbers.get("policy") or ""),
        "decision": str(entry.numbers.get("decision") or ""),
    }
    return {name: value for name, value in facts.items() if value}


def _beside(entry: Entry) -> dict[str, str]:
    """What an entry says of the rollout that it began, by name."""
    share = entry.numbers.get("share")
    of = f" to {share:.0%} of conversations" if isinstance(share, float) else ""
    return {"canary": f"version {entry.version}{of}, since {_earlier(entry) or entry.time}: {entry.reason}"}


def _earlier(entry: Entry) -> str:
    """When an entry's decision was taken, where that was noticeably before it was written down."""
    from loraloop.registry.alias_history import decided

    taken = decided(entry)
    return taken.isoformat() if datetime.fromisoformat(entry.time) - taken > LATE else ""


def print_entries(entries: Sequence[Entry]) -> None:
    """Print the whole ledger, what happened on one line and the reason below it, and where the aliases point now."""
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
    if entries:
        console.facts("now", _now(entries))


def _now(entries: Sequence[Entry]) -> dict[str, str]:
    """The version behind each alias, and the rollout that runs."""
    from loraloop.registry.alias_history import active_version

    now = datetime.now(UTC)
    facts: dict[str, str] = {}
    rollout: dict[str, str] = {}
    for alias in dict.fromkeys(("champion", *(entry.alias for entry in entries if entry.alias))):
        found = active_version(entries, alias, now)
        if found is None or found.version is None:
            facts[alias] = "no version"
        else:
            facts[alias] = f"version {found.version}, since {found.entry.time.replace('+00:00', 'Z')}"
        if found and found.canary and alias == "champion":
            rollout = {"rollout": _beside(found.canary)["canary"]}
    return facts | rollout


def _short(value: str) -> str:
    """A fraction with four digits; whole numbers and ids as they are."""
    try:
        return f"{float(value):.4g}" if "." in value else value
    except ValueError:
        return value
