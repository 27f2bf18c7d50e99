"""Whether an adapter forgot what its base could do beside the task."""

from __future__ import annotations

from loraloop.records import Change, General

GENERAL = "general"
"""Under which a verdict's numbers hold what was measured."""
FORGOT = "forgot"
"""Under which they name what was forgotten."""
ALL, RULES = "all", "rules"
MAX_P = 0.025
"""Largest probability with which chance may explain kept rules that are fewer: one end of a 95% interval."""


def forgot(general: General, margin: float) -> list[str]:
    """What an adapter forgot: ``all`` or a kind of instruction by its loss, ``rules`` by the rules that are kept.

    Args:
        general: Before and after.
        margin: Nats a token by which the loss may rise.
    """
    losses = {ALL: general.loss, **general.slices}
    found = [name for name, each in losses.items() if not each.low <= margin]  # what is no number was not kept
    return found + [RULES] * (general.rules_p <= MAX_P)


def describe(general: General, forgotten: list[str]) -> str:
    """The changes with their intervals, those of kinds only where they were forgotten."""
    said = f"general ability on {general.rows} instructions: loss {_told(general.loss)}"
    said += f", rules kept {_told(general.rules)}"
    kinds = [f"{name} (loss {_told(general.slices[name])})" for name in forgotten if name in general.slices]
    whole = [name for name in forgotten if name not in general.slices]
    return said + ("; it forgets " + " and ".join([*whole, *kinds]) if forgotten else "")


def _told(change: Change) -> str:
    return f"{change.after:.3g} after {change.before:.3g} ({change.low:+.2g} to {change.high:+.2g})"
