"""Writes the dashboards beside this file."""

from pathlib import Path

from deploy.dashboards import PAGES
from deploy.dashboards.grafana import rendered

for page in PAGES:
    (Path(__file__).parent / f"{page.uid}.json").write_text(rendered(page))
