"""Waiting for the cluster: what counts as missing, and what ends a wait early."""

import subprocess

import pytest

from e2e.kube import Deadline, not_running, wait_until


def test_a_command_that_fails_is_something_that_is_missing():
    """The API server may be away for a moment; what it said is told when it stays away."""
    answers = [subprocess.SubprocessError("refused"), "a pod", None]

    def missing():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    wait_until(missing, 60)
    assert answers == []

    def away():
        raise subprocess.SubprocessError("connection refused")

    with pytest.raises(Deadline, match="connection refused"):
        wait_until(away, 0)


def test_a_pod_that_has_failed_is_waited_for_no_longer():
    """It never will run; why it failed is told."""
    status = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no devices"}
    pods = [{"metadata": {"name": "p"}, "status": status}]
    with pytest.raises(Deadline, match=r"p.*UnexpectedAdmissionError.*no devices"):
        not_running(pods, ["p", "q"])
    assert not_running(pods, ["q"]) == "q is absent"
