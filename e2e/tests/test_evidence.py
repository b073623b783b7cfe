"""What a failed test prints: complaints before the rest, each line short, all of it short."""

import json
import subprocess

from e2e.evidence import LINES, WIDTH, chosen, evidence


def line(second, said, who="pod-1/extender"):
    """A line as `kubectl logs --prefix --timestamps` prints it."""
    return f"[pod/{who}] 2026-01-01T12:00:{second:02}.5Z {said}"


def ours(second, level, event, **more):
    """A line of one of our programs."""
    said = {"event": event, "level": level, "timestamp": "x", **more}
    return line(second, json.dumps(said))


def test_complaints_come_first_and_each_part_by_time():
    """Whoever wrote them; kube-scheduler's complaints are told by their letter."""
    printed = [
        ours(3, "warning", "event lost", error="no"),
        ours(4, "info", "serving", port=1),
        line(1, "E0101 12:00:01.0 1 x.go:1] broken", "pod-2/kube-scheduler"),
        line(2, "I0101 12:00:02.0 1 x.go:1] bound", "pod-2/kube-scheduler"),
        "no line of a program's",
    ]
    assert chosen(printed) == [
        "12:00:01 pod-2/kube-scheduler E0101 12:00:01.0 1 x.go:1] broken",
        "12:00:03 pod-1/extender warning event lost error=no",
        "12:00:02 pod-2/kube-scheduler I0101 12:00:02.0 1 x.go:1] bound",
        "12:00:04 pod-1/extender info serving port=1",
    ]


def test_the_last_ones_are_kept_and_cut():
    """Never more lines than agreed, none longer; complaints are the last to go."""
    printed = [ours(n, "info", f"note {n}") for n in range(60)]
    assert [told.split()[-1] for told in chosen(printed)] == [str(n) for n in range(35, 60)]
    printed += [ours(n, "error", f"fault {n}", text="x" * 500) for n in range(20)]
    told = chosen(printed)
    assert len(told) == LINES
    assert [" error fault " in each for each in told] == [True] * 20 + [False] * 5
    assert {len(each) for each in told[:20]} == {WIDTH}
    printed += [ours(n, "error", f"fault {n}") for n in range(20, 60)]
    assert all(" error fault " in each for each in chosen(printed))


def test_what_is_said_again_and_again_is_one_line():
    """The last, with how often; who else says it has a line of his own."""
    printed = [ours(n, "warning", "refused", pod=n) for n in range(9)]
    printed += [line(n, f"I0101 x.go:7] bound {n}", "pod-2/kube-scheduler") for n in (3, 1)]
    printed.append(line(20, '{"event": "refused", "level": "warning"}', "pod-3/extender"))
    assert chosen(printed) == [
        "12:00:08 pod-1/extender (9 times) warning refused pod=8",
        "12:00:20 pod-3/extender warning refused",
        "12:00:03 pod-2/kube-scheduler (2 times) I0101 x.go:7] bound 3",
    ]


class Silent:
    """A cluster that is gone."""

    def kubectl(self, *_arguments, check=True):
        """No answer."""
        raise subprocess.TimeoutExpired("kubectl", 300)


def test_a_cluster_that_does_not_answer_hides_no_failure():
    """The report of the test goes on with what went wrong."""
    assert evidence(Silent(), "some-test").startswith("the cluster says nothing: ")
