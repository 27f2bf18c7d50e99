"""What a study was begun with, so that its trials stay comparable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loraloop.core.passwords import mask_all
from loraloop.errors import ConfigError

if TYPE_CHECKING:
    from optuna import Study

ATTRIBUTE = "loraloop"
ABSENT = "(absent)"
SHOWN = 6
INDIFFERENT = frozenset(
    f"trainer.{name}" for name in ("eval_steps", "eval_growth", "save_steps", "log_steps", "keep_checkpoints")
)
"""Keys by which a study may differ from its beginning, so that one without validations for a pruner goes on with them.

They decide when a training is looked at, and no result depends on that.
"""

Fingerprint = Mapping[str, Any]


def hold(study: Study, fingerprint: Fingerprint) -> None:
    """Write the fingerprint into a new study, or compare it with the one that the study was begun with.

    Args:
        study: The study.
        fingerprint: What all trials share: dotted keys and plain values.

    Raises:
        ConfigError: They differ; the message shows what was then and what is now.
    """
    then = study.user_attrs.get(ATTRIBUTE)
    if then is None:
        study.set_user_attr(ATTRIBUTE, mask_all(fingerprint))
        return
    changed = differences(mask_all(then), mask_all(fingerprint))
    if changed:
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        raise ConfigError(
            f"hydra.sweeper.study_name={study.study_name}: this study was begun otherwise, and its trials would not "
            f"compare: {'; '.join(changed[:SHOWN])}{more}. Give the new sweep a name of its own, "
            "hydra.sweeper.study_name=NAME"
        )


def differences(then: Fingerprint, now: Fingerprint) -> list[str]:
    """One ``key: then -> now`` for each key that is not the same, but for those of :data:`INDIFFERENT`."""
    keys = [*then, *(key for key in now if key not in then)]
    pairs = ((key, then.get(key, ABSENT), now.get(key, ABSENT)) for key in keys if key not in INDIFFERENT)
    return [f"{key}: {before} -> {after}" for key, before, after in pairs if before != after]
