"""Grafana's dashboards from one source of panels; `python -m deploy.dashboards` writes them."""

from deploy.dashboards.detail import CARDS, PODS
from deploy.dashboards.overview import CLUSTER, NODES, WASTE

PAGES = (CLUSTER, NODES, CARDS, PODS, WASTE)
