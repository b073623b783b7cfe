"""Pictures of the dashboards from their JSON and a real Prometheus, drawn by a real browser.

They are not Grafana's: where that cannot be had they show which panels there are and what their
queries return.
"""

import json
import re
import time
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from selenium.webdriver.common.by import By

from e2e.browser import browser
from e2e.lab.config import CHECKOUT
from e2e.prometheus import Prometheus

DASHBOARDS = CHECKOUT / "deploy" / "dashboards"
NOTE = (
    "Not Grafana: drawn from the dashboard's JSON by e2e/pictures.py, values of a real Prometheus"
)
COLUMN, ROW, WINDOW_S, STEP_S = 48, 34, 60, 2
COLOURS = ("#3274d9", "#e0752d", "#629e51", "#ba43a9", "#c15c17", "#5195ce")
STYLE = """
body { font: 13px sans-serif; background: #f4f5f5; margin: 8px; width: 1170px; position: relative }
h1 { font-size: 17px; margin: 0 } p { margin: 2px 0 6px; color: #555 }
section { position: absolute; background: #fff; border: 1px solid #ddd; overflow: hidden }
h2 { font-size: 13px; margin: 4px 8px } b { font-size: 26px; margin: 8px }
td { padding: 1px 8px; font-size: 11px } td:last-child { text-align: right }
i { display: inline-block; height: 9px }
"""
Found = list[tuple[str, float]]


def everything(query: str) -> str:
    """A panel's query with every variable set to all."""
    return re.sub(r"\$\w+", ".*", query)


def written(value: float, unit: str) -> str:
    """A number as people read it."""
    if unit == "bytes":
        return f"{value / (1 << 30):.2f} GiB"
    if unit == "percentunit":
        return f"{100 * value:.1f} %"
    return f"{value:.3g} s" if unit == "s" else f"{value:g}"


def named(legend: str, labels: dict[str, str]) -> str:
    """A series' legend as Grafana makes it."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend)


def _now(prometheus: Prometheus, panel: Any) -> Found:
    return [
        (named(target["legendFormat"], labels), value)
        for target in panel["targets"]
        for labels, value in prometheus.query(everything(target["expr"]))
    ]


def _rows(found: Found, unit: str, *, bars: bool) -> str:
    most = max((value for _, value in found), default=0) or 1
    rows = ""
    for number, (name, value) in enumerate(sorted(found, key=lambda one: -one[1])):
        bar = f"width:{max(250 * value / most, 1):.0f}px;background:{COLOURS[number % 6]}"
        drawn = f'<td><i style="{bar}"></i></td>' if bars else ""
        rows += f"<tr><td>{escape(name)}</td>{drawn}<td>{written(value, unit)}</td></tr>"
    return f"<table>{rows}</table>"


def _lines(prometheus: Prometheus, panel: Any, unit: str) -> str:
    now = time.time()
    span = {"start": str(now - WINDOW_S), "end": str(now), "step": str(STEP_S)}
    curves = [
        (named(target["legendFormat"], one["metric"]), [(t, float(v)) for t, v in one["values"]])
        for target in panel["targets"]
        for one in prometheus.ask("query_range", query=everything(target["expr"]), **span)["result"]
    ]
    most = max((value for _, points in curves for _, value in points), default=0) or 1
    drawn = ""
    for number, (_, points) in enumerate(curves):
        places = " ".join(
            f"{540 * (t - now + WINDOW_S) / WINDOW_S:.0f},{118 - 112 * v / most:.0f}"
            for t, v in points
        )
        drawn += f'<polyline points="{places}" fill="none" stroke="{COLOURS[number % 6]}"/>'
    axis = f'<text x="4" y="12" fill="#888" font-size="10">{written(most, unit)}</text>'
    last = [(name, points[-1][1]) for name, points in curves]
    return f'<svg width="550" height="120">{axis}{drawn}</svg>{_rows(last, unit, bars=False)}'


def _panel(prometheus: Prometheus, panel: Any) -> str:
    place, unit = panel["gridPos"], panel["fieldConfig"]["defaults"]["unit"]
    if panel["type"] == "timeseries":
        body = _lines(prometheus, panel, unit)
    elif panel["type"] == "stat":
        body = "".join(f"<b>{written(v, unit)}</b>" for _, v in _now(prometheus, panel))
    else:
        body = _rows(_now(prometheus, panel), unit, bars=panel["type"] == "bargauge")
    left, top = place["x"] * COLUMN, 44 + place["y"] * ROW
    size = f"width:{place['w'] * COLUMN - 8}px;height:{place['h'] * ROW - 8}px"
    title = f"<h2>{escape(panel['title'])}</h2>"
    return f'<section style="left:{left}px;top:{top}px;{size}">{title}{body}</section>'


def drawn(prometheus: Prometheus, board: Any) -> str:
    """A dashboard as one HTML page of this moment, the curves of the last minute."""
    panels = "".join(_panel(prometheus, panel) for panel in board["panels"])
    end = max(44 + ROW * (p["gridPos"]["y"] + p["gridPos"]["h"]) for p in board["panels"])
    head = f'<meta charset="utf-8"><style>{STYLE} body {{ height: {end}px }}</style>'
    return f"{head}<h1>{escape(board['title'])}</h1><p>{NOTE}.</p>{panels}"


def take(prometheus: Prometheus, names: Iterable[str], folder: Path) -> list[Path]:
    """A picture of each of these dashboards, in a folder."""
    pictures = []
    with browser(folder / "profile") as window:
        for name in names:
            board = json.loads((DASHBOARDS / f"{name}.json").read_text(encoding="utf-8"))
            page = folder / f"{name}.html"
            page.write_text(drawn(prometheus, board), encoding="utf-8")
            window.get(page.as_uri())
            body = window.find_element(By.TAG_NAME, "body")
            # A picture shows what the window does.
            window.set_window_size(1200, body.size["height"] + 250)
            pictures.append(folder / f"{name}.png")
            body.screenshot(str(pictures[-1]))
    return pictures
