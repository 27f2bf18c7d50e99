"""Remake the Grafana dashboard in deploy/grafana/dashboards, which Compose provisions and any Grafana imports.

    python scripts/dashboard.py

Made with Grafana's own library (grafana-foundation-sdk: generated from Grafana's schema, no dependencies; grafanalib's
last release is older than the panels used here). The metrics are those of :mod:`loraloop.monitor.metrics`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as shapes

FILE = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboards" / "loraloop.json"
SOURCE = kinds.DataSourceRef(type_val="prometheus", uid="${datasource}")
TICK_SECONDS = 4 * 3600

VERSIONS = 'model=~"$model"'
EXPLICIT = f'kind="explicit",{VERSIONS}'
ANSWERS = f'route=~"/v1/.*completions",{VERSIONS}'
ROLES = 'role=~"$role"'
BY_VERSION, BY_ROLE, BY_ARM, BY_STATE = "{{model}}", "{{role}}", "{{role}} {{arm}}", "{{role}} {{state}}"

Levels = Sequence[tuple[float | None, str]]
STARS: Levels = [(None, "red"), (3.5, "orange"), (3.8, "green")]
"""Below 3.5 is an alert, below 3.8 the plain trigger's rule."""
SUCCESS: Levels = [(None, "red"), (0.9, "orange"), (0.95, "green")]
OVERDUE: Levels = [(None, "green"), (TICK_SECONDS, "orange"), (2 * TICK_SECONDS, "red")]
YES: Levels = [(None, "red"), (1, "green")]
NO: Levels = [(None, "green"), (1, "red")]
QUEUE: Levels = [(None, "green"), (16, "orange"), (48, "red")]
PLAIN: Levels = [(None, "blue")]


def over(metric: str, labels: str, by: str = "") -> str:
    """The increase of a counter over the window that the reader chose."""
    return f"sum by ({by}) (increase({metric}{{{labels}}}[$window]))"


def stars(by: str = "") -> str:
    """The mean of the stars that people gave; nothing where they gave none."""
    count = over("loraloop_ratings_total", EXPLICIT, by)
    return f"{over('loraloop_rating_stars_total', EXPLICIT, by)} / ({count} > 0)"


def success(by: str = "") -> str:
    """The share of sessions that ended well; nothing where there was none."""
    good = over("loraloop_sessions_total", f'status="ok",{VERSIONS}', by)
    every = f"({over('loraloop_sessions_total', VERSIONS, by)} > 0)"
    return f"({good} or {every} * 0) / {every}"


def quantiles(metric: str, labels: str) -> list[Any]:
    """Median and 95th percentile of a histogram, by version."""
    buckets = f"sum by (le, model) (rate({metric}_bucket{{{labels}}}[$__rate_interval]))"
    wanted = {0.5: "p50", 0.95: "p95"}
    return [query(f"histogram_quantile({q}, {buckets})", f"{BY_VERSION} {name}") for q, name in wanted.items()]


def last(metric: str) -> str:
    """A metric of the loop, of the roles that the reader chose."""
    return f"loraloop_{metric}{{{ROLES}}}"


def query(text: str, legend: str = "") -> Any:
    """A query over the whole range of time."""
    return prometheus.Dataquery().expr(text).legend_format(legend).range()


def now(text: str, legend: str = "") -> Any:
    """A query for the last moment of it."""
    return prometheus.Dataquery().expr(text).legend_format(legend).instant()


def levels(of: Levels) -> Any:
    """Colours, each from a value on."""
    return dashboard.ThresholdsConfig().steps([shapes.Threshold(value=value, color=color) for value, color in of])


def words(no: str, yes: str) -> list[Any]:
    """Texts for 0 and 1."""
    texts = {"0": shapes.ValueMappingResult(text=no), "1": shapes.ValueMappingResult(text=yes)}
    return [shapes.ValueMap(options=texts)]


def figure(title: str, about: str, target: Any, unit: str, colors: Levels) -> Any:
    """One number, as it is now."""
    panel = stat.Panel().title(title).description(about).datasource(SOURCE).with_target(target.ref_id("A"))
    panel.unit(unit).thresholds(levels(colors)).graph_mode(kinds.BigValueGraphMode.NONE).no_value("none")
    return panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"])).height(4).span(4)


def curves(title: str, about: str, unit: str, *targets: Any, most: float | None = None, colors: Levels = ()) -> Any:
    """Series over time, with a dashed line where the colours change."""
    panel = timeseries.Panel().title(title).description(about).datasource(SOURCE).unit(unit).height(8).span(12)
    for letter, target in zip("ABCDEF", targets, strict=False):
        panel.with_target(target.ref_id(letter))
    panel.legend(common.VizLegendOptions().show_legend(True).placement(kinds.LegendPlacement.BOTTOM))
    panel.tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI))
    if colors:
        style = common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED)
        panel.thresholds(levels(colors)).thresholds_style(style)
    if most is not None:
        panel.max(most)
    return panel.min(0).line_width(2).fill_opacity(8).span_nulls(True)


def stacked(panel: Any) -> Any:
    """Series on top of each other."""
    return panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL)).fill_opacity(60).line_width(1)


def bars(title: str, about: str, target: Any) -> Any:
    """A count for each value of a label, as it is now."""
    panel = bargauge.Panel().title(title).description(about).datasource(SOURCE).with_target(target.ref_id("A"))
    panel.orientation(kinds.VizOrientation.HORIZONTAL).display_mode(kinds.BarGaugeDisplayMode.BASIC)
    panel.unit("none").decimals(0).min(0).thresholds(levels(PLAIN)).no_value("none")
    return panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"])).height(8)


def states(title: str, about: str, target: Any) -> Any:
    """Which state held when: each series is 1 while it does."""
    panel = statetimeline.Panel().title(title).description(about).datasource(SOURCE).with_target(target.ref_id("A"))
    return panel.thresholds(levels(PLAIN)).show_value(kinds.VisibilityMode.NEVER).height(8).span(12)


def summary() -> list[Any]:
    """What a glance should tell."""
    age = now(f"max(time() - {last('loop_tick_timestamp_seconds')})")
    failing = now(last("canary_failing"), BY_ROLE)
    intact = now("min(loraloop_ledger_intact)")
    waiting = now("sum(loraloop_backend_queue)")
    return [
        figure("Average rating", "Stars that people gave, in the window.", now(stars()), "none", STARS).decimals(2),
        figure("Success", "Share of sessions that ended well, in the window.", now(success()), "percentunit", SUCCESS),
        figure("Since the last tick", "Of the role that waits longest.", age, "s", OVERDUE),
        figure("Canary", "What the latest ruling says of it.", failing, "none", NO).mappings(words("holds", "fails")),
        figure("Ledger", "Every chain of hashes.", intact, "none", YES).mappings(words("broken", "intact")),
        figure("Waiting", "Requests that wait for a place.", waiting, "none", QUEUE),
    ]


def ratings() -> list[Any]:
    """What people say of the answers."""
    rated = query(stars("model"), BY_VERSION)
    ended = query(success("model"), BY_VERSION)
    counts = query(over("loraloop_ratings_total", EXPLICIT, "model"), BY_VERSION)
    each = now(f"sort_desc({over('loraloop_ratings_total', EXPLICIT, 'stars')})", "{{stars}}")
    few = "How many people gave; a mean of few says little."
    return [
        curves("Average rating by version", "Stars that people gave.", "none", rated, most=5, colors=STARS),
        curves("Success by version", "Sessions that ended well.", "percentunit", ended, most=1, colors=SUCCESS),
        stacked(curves("Ratings by version", few, "none", counts)).decimals(0).span(16),
        bars("Ratings by stars", "How many of each, in the window.", each).span(8),
    ]


def traffic() -> list[Any]:
    """Who answers, how fast, and how much waits."""
    every = over("loraloop_sessions_total", VERSIONS)
    shares = f"{over('loraloop_sessions_total', VERSIONS, 'model')} / ignoring (model) group_left () ({every} > 0)"
    statuses = "sum by (status) (rate(loraloop_requests_total[$__rate_interval]))"
    whole = quantiles("loraloop_request_duration_seconds", ANSWERS)
    first = quantiles("loraloop_time_to_first_token_seconds", VERSIONS)
    queue = {"requests_in_flight": "in flight", "backend_active": "being answered", "backend_queue": "waiting"}
    waits = [query(f"sum(loraloop_{name})", legend) for name, legend in queue.items()]
    return [
        stacked(curves("Sessions by version", "Shares.", "percentunit", query(shares, BY_VERSION), most=1)),
        stacked(curves("Requests by status", "Of all routes.", "reqps", query(statuses, "{{status}}"))),
        curves("Latency by version", "From request to the end of the answer.", "s", *whole).span(8),
        curves("Time to first token", "From request to the first token.", "s", *first).span(8),
        curves("Queue", "Requests in the server and in its backend.", "none", *waits).span(8),
    ]


def loop() -> list[Any]:
    """What the loop did."""
    cycles = now(f"sum by (outcome) ({last('loop_cycles_total')})", "{{outcome}}")
    decisions = now(f"sum by (decision) ({last('loop_decisions_total')})", "{{decision}}")
    age = query(f"time() - {last('loop_tick_timestamp_seconds')}", BY_ROLE)
    told = "All so far; each is in the ledger with its numbers."
    return [
        states("State", "Where each role is in its trip through the loop.", query(last("loop_state"), BY_STATE)),
        curves("Time since the last tick", "Two that are missed are an alert.", "s", age, colors=OVERDUE),
        bars("Retrains by outcome", "Trips through the loop so far.", cycles).span(12),
        bars("Decisions", told, decisions).span(12),
    ]


def canary() -> list[Any]:
    """The rollout in progress: both arms over the same time."""
    rated = query(last("canary_stars"), BY_ARM)
    ended = query(last("canary_success_ratio"), BY_ARM)
    sessions = query(last("canary_sessions"), BY_ARM)
    wanted = query(last("canary_share"), "{{role}} set")
    came = query(f"{arm('canary')} / ({arm('canary')} + {arm('stable')})", "{{role}} so far")
    return [
        curves("Stars by arm", "Mean of the rollout's sessions.", "none", rated, most=5, colors=STARS),
        curves("Success by arm", "Share of the rollout's sessions.", "percentunit", ended, most=1, colors=SUCCESS),
        curves("Sessions by arm", "What the rule has to judge by.", "none", sessions).decimals(0),
        curves("Share of the canary", "As it is set, and as it came out.", "percentunit", wanted, came, most=1),
    ]


def arm(name: str) -> str:
    """The sessions of one arm."""
    return f'sum by (role) (loraloop_canary_sessions{{arm="{name}",{ROLES}}})'


def variables() -> list[Any]:
    """What the reader chooses: where from, which roles and versions, over how long."""
    made = []
    role = 'label_values({__name__=~"loraloop_adapter_info|loraloop_loop_state"}, role)'
    model = 'label_values(loraloop_adapter_info{role=~"$role"}, model)'
    for name, label, values in (("role", "Role", role), ("model", "Version", model)):
        variable = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(values).multi(True)
        variable.refresh(shapes.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(shapes.VariableSort.NATURAL_ASC)
        made.append(variable.include_all(True).current(shapes.VariableOption(text="All", value="$__all")))
    made[0].all_value(".*")  # also what has no role
    window = dashboard.CustomVariable("window").label("Window").values("1h,6h,1d,7d")
    window.current(shapes.VariableOption(text="1d", value="1d"))
    return [dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"), *made, window]


def build() -> str:
    """The dashboard's JSON."""
    made = dashboard.Dashboard("loraloop").uid("loraloop").tags(["loraloop"]).variables(variables())
    made.description("Ratings, versions and the loop; made by scripts/dashboard.py")
    made.time("now-7d", "now").refresh("1m").timezone("browser").tooltip(shapes.DashboardCursorSync.CROSSHAIR)
    rows = {"Now": summary, "Ratings": ratings, "Traffic": traffic, "Loop": loop, "Canary": canary}
    number = itertools.count(1)
    for title, panels in rows.items():
        made.with_row(dashboard.Row(title).id(next(number)))
        for panel in panels():
            made.with_panel(panel.id(next(number)))
    return json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(build())
