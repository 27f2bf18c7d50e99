"""Stage ``judge_report``: judges against people, where both rated the same answers, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loraloop.errors import DataError
from loraloop.feedback.agreement import measure
from loraloop.workflows import judge_report as report

if TYPE_CHECKING:
    from loraloop.feedback.agreement import Agreement, Rated
    from loraloop.feedback.settings import Feedback
    from loraloop.records import Job


def judge_report(job: Job, feedback: Feedback) -> None:
    """Print agreement, kappa and calibration of every judge, each with its interval, and its cost; draw it.

    Raises:
        ConfigError: There is no store.
        DataError: No judge has rated a session.
    """
    from loraloop.feedback import agreement_plot

    store = feedback.existing()
    try:
        judges = report.by_judge(store.judged())
        sessions = {each.id: each for each in store.all()}
    finally:
        store.close()
    if not judges:
        raise DataError(f"no judge has rated a session of {store.database.name}: loraloop stage=judge judge=openai")
    rng = np.random.default_rng(job.seed)
    drawn: dict[str, tuple[Agreement, list[Rated]]] = {}
    for (by, rule), said in judges.items():
        name, rated = f"{by} (rule {rule})", said.rated(sessions)
        if rated:
            found = measure(rated, rng)
            report.print_agreement(name, found)
            drawn[name] = found, rated
        else:
            print(f"{name}: people rated none of its {len(said.scores)} sessions (loraloop stage=feedback)")
        report.print_pairs(said.compared(sessions), rng)
        report.print_cost(said)
    if drawn:
        picture = job.output / "judge.png"
        agreement_plot.draw(picture, drawn)
        print(f"picture: {picture}")
