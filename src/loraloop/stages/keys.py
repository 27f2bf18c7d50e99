"""Stage ``keys``: who may use the server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.errors import ConfigError

if TYPE_CHECKING:
    from loraloop.records import Job


def keys(job: Job, name: str | None, scopes: str | Sequence[str], revoke: str | None, file: str) -> None:
    """Make a key, which is shown once; revoke one; or, without a name, list them.

    Raises:
        ConfigError: No scope is given, or one that does not exist.
    """
    from loraloop.serve.keys import SCOPES, Keys

    kept = Keys(Path(file))
    if revoke is not None:
        kept.revoke(str(revoke))
        print(f"the key {revoke} opens nothing any more")
        return
    if name is None:
        rows = [[key.name, ", ".join(key.scopes), key.created] for key in kept.all()]
        console.table(f"keys in {file}", ["name", "scopes", "made"], rows, numbers=False)
        return
    wanted = [scopes] if isinstance(scopes, str) else list(scopes)
    unknown = [scope for scope in wanted if scope not in SCOPES]
    if unknown or not wanted:
        raise ConfigError(f"scopes={wanted}: take some of {', '.join(SCOPES)}, such as scopes=[infer,feedback]")
    secret = kept.add(str(name), wanted)
    console.facts(f"key {name} (it is not shown again)", {"key": secret, "scopes": ", ".join(wanted)})
