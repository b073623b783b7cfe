"""Dashboards as Grafana reads them (its 10.1 schema), made with Grafana's own library."""

from typing import Any

from grafana_foundation_sdk.builders import bargauge, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

from deploy.dashboards.panels import Page, Panel, Variable

BUILDERS = {
    "stat": stat.Panel,
    "lines": timeseries.Panel,
    "bars": bargauge.Panel,
    "table": table.Panel,
}
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
HEIGHTS = {"stat": 4}


def query(expression: str, legend: str, kind: str) -> prometheus.Dataquery:
    """One target: over time for lines, of this moment for the rest."""
    made = prometheus.Dataquery().datasource(SOURCE).expr(expression).legend_format(legend)
    return made.range() if kind == "lines" else made.instant()


def picture(panel: Panel) -> Any:
    """The builder of a panel."""
    made = BUILDERS[panel.kind]().title(panel.title).datasource(SOURCE).unit(panel.unit).min(0)
    made = made.description(panel.text) if panel.text else made
    made = made.span(panel.width).height(HEIGHTS.get(panel.kind, 8))
    for number, (expression, legend) in enumerate(panel.queries):
        target = query(expression, legend, panel.kind).ref_id("ABCDEF"[number])
        made = made.with_target(target)
    return made


def chooser(variable: Variable) -> dashboard.QueryVariable:
    """A variable with any number of values."""
    return (
        dashboard.QueryVariable(variable.name)
        .datasource(SOURCE)
        .query(f"label_values({variable.series}, {variable.label})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
    )


def rendered(page: Page) -> str:
    """The JSON of a dashboard."""
    made = (
        dashboard.Dashboard(page.title)
        .uid(page.uid)
        .description(page.text)
        .tags(["hami"])
        .time("now-1h", "now")
        .refresh("30s")
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
    )
    for variable in page.variables:
        made = made.with_variable(chooser(variable))
    for panel in page.panels:
        made = made.with_panel(picture(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"
