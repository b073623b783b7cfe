"""What a cluster test said that failed first and passed when it was repeated.

Two processors and a real cluster: a test in a hundred meets a moment that nobody thought of. Once
more keeps that from stopping everybody; what is printed here keeps it from being forgotten.
"""

from typing import Any

import pytest

HEADING = "Repeated: what each said the first time is a finding to look into"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Everything a failure prints, for every test that was repeated."""
    reports: list[pytest.TestReport] = terminalreporter.stats.get("rerun", [])
    if not reports:
        return
    terminalreporter.section(HEADING, sep="!", red=True)
    for report in reports:
        terminalreporter.section(f"{report.nodeid} ({report.when})", sep="_", red=True)
        terminalreporter.line(report.longreprtext)
        for title, text in report.sections:
            terminalreporter.section(title, sep="-")
            terminalreporter.line(text.rstrip())
