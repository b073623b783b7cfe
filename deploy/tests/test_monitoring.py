"""Dashboards in step with their source, and alerts that fire when they should."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from deploy.dashboards import PAGES
from deploy.dashboards.grafana import rendered
from e2e.lab.errors import LabError
from e2e.prometheus import program

DEPLOY = Path(__file__).parents[1]
RULES = DEPLOY / "features" / "monitoring" / "rules.yaml"
CONTRACT = (DEPLOY.parent / "docs" / "contract.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def promtool():
    """Prometheus' own checker."""
    try:
        return program("promtool")
    except LabError as error:
        pytest.skip(str(error))


@pytest.fixture
def rules(tmp_path):
    """The rules as Prometheus reads them, in a folder."""
    spec = YAML(typ="safe").load(RULES)["spec"]
    (tmp_path / "rules").write_text(json.dumps(spec))
    return tmp_path


def run(folder, *command):
    """Runs a program in a folder; its output when it fails."""
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.uid)
def test_a_dashboard_is_what_its_source_makes(page):
    """`python -m deploy.dashboards` writes it; the kustomization takes it along."""
    assert (DEPLOY / "dashboards" / f"{page.uid}.json").read_text() == rendered(page)
    assert f"- {page.uid}.json" in (DEPLOY / "dashboards" / "kustomization.yaml").read_text()


def series(text):
    """Names of our series in a text."""
    return {re.sub(r"_bucket$", "", name) for name in re.findall(r"\bhami_\w+", text)}


def test_what_is_shown_and_alerted_exists():
    """Every series is in the contract, so a renamed one is noticed."""
    used = series(RULES.read_text())
    for page in PAGES:
        for panel in page.panels:
            used |= series(" ".join(query for query, _ in panel.queries))
    assert used
    assert {name for name in used if f"`{name}`" not in CONTRACT} == set()


def test_the_queries_of_every_panel_are_promql(promtool, tmp_path):
    """Checked by Prometheus' own parser, as recording rules."""
    queries = [query for page in PAGES for panel in page.panels for query, _ in panel.queries]
    rules = [
        {"record": f"panel_{number}", "expr": re.sub(r"\$\w+", ".*", query)}
        for number, query in enumerate(queries)
    ]
    (tmp_path / "rules").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    run(tmp_path, promtool, "check", "rules", "rules")


def test_alerts_fire_when_they_should_and_not_before(promtool, rules):
    """deploy/tests/rules.yaml tells series over time, and what is to be said."""
    (rules / "test.yaml").write_text((DEPLOY / "tests" / "rules.yaml").read_text())
    run(rules, promtool, "check", "rules", "rules")
    run(rules, promtool, "test", "rules", "test.yaml")


def test_every_alert_is_tested():
    """With a case in which it fires."""
    spec = YAML(typ="safe").load(RULES)["spec"]
    named = {rule["alert"] for group in spec["groups"] for rule in group["rules"]}
    cases = YAML(typ="safe").load(DEPLOY / "tests" / "rules.yaml")["tests"]
    fires = {
        case["alertname"]
        for test in cases
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert named == fires
