"""What cannot be right is refused where the user sees it."""

import dataclasses
import json

import pytest
from ruamel.yaml import YAML

from e2e.kube import wait_until
from e2e.pods import GRANT, container, pod, slice_of

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(
    ("limits", "annotations", "expected"),
    [
        ({"nvidia.com/gpumem": "-1"}, {}, "nvidia.com/gpumem"),
        ({"nvidia.com/gpumem": "3000M"}, {}, "write 3000"),
        ({"nvidia.com/gpumem": "1000000000000"}, {}, "999999"),
        ({"nvidia.com/gpumem-percentage": "150"}, {}, "0 to 100"),
        ({"nvidia.com/gpucores": "101"}, {}, "0 to 100"),
        ({}, {"hami.io/node-scheduler-policy": "sideways"}, "binpack"),
        ({}, {GRANT: "GPU-x,NVIDIA,1,1:;"}, GRANT),
    ],
)
def test_bad_input_is_refused_with_a_remedy(kube, namespace, limits, annotations, expected):
    """The refusal names the field and says what is allowed."""
    asked = {"nvidia.com/gpu": "1", **limits}
    said = kube.refusal(pod("bad", namespace, container("c", asked), annotations=annotations))
    assert expected in said


def test_a_hundred_cards_wait_with_a_reason(kube, namespace):
    """No node has as many; the pod's event says so."""
    kube.create(pod("hundred", namespace, container("c", slice_of(gpu=100, memory=1000))))

    def explained():
        said = kube.said(namespace, "hundred")
        return None if "NodeInsufficientDevice" in said else f"the reason in {said!r}"

    wait_until(explained, 60)


EDITOR = ("--as=editor", "--as-group=system:authenticated")


@pytest.fixture
def editor(kube, namespace):
    """A user with the cluster role `edit` in the test's namespace."""
    arguments = ("--clusterrole=edit", "--user=editor", "-n", namespace)
    kube.kubectl("create", "rolebinding", "editor", *arguments)

    def powerless():
        said = kube.kubectl(
            *EDITOR, "auth", "can-i", "create", "pods", "-n", namespace, check=False
        )
        return None if said.strip() == "yes" else f"the rights of the role edit: {said!r}"

    # The API server hears of the binding by a watch of its own.
    wait_until(powerless, 60)
    return EDITOR


def test_a_user_cannot_write_a_grant(kube, namespace, editor):
    """Neither before the bind nor after it, neither on the pod nor through a Binding."""
    asked = container("c", slice_of(memory=1500))
    for key in (GRANT, "hami.io/dcu-devices-allocated", "hami.io/Ascend910B3-devices-to-allocate"):
        forged = pod("forged", namespace, asked, annotations={key: "GPU-x,NVIDIA,1,1:;"})
        assert key in kube.refusal(forged, *editor)
    kube.create(pod("mine", namespace, asked))
    kube.wait_running(namespace, "mine")
    for change in (f"{GRANT}=GPU-x,NVIDIA,9,9:;", f"{GRANT}-"):
        said = kube.kubectl(
            *editor, "annotate", "--overwrite", "pod", "-n", namespace, "mine", change, check=False
        )
        assert said == ""
    found = kube.get("pod", "-n", namespace, "mine")["metadata"]["annotations"][GRANT]
    assert ",1500,0:" in found


AGENT = "system:serviceaccount:hami-system:hami-device-plugin"


@pytest.fixture
def agent(kube, tmp_path):
    """Kubectl as the worker's device plugin: its token says on which node it runs."""
    config = YAML(typ="safe").load(kube.kubectl("config", "view", "--raw"))
    where = {"authentication.kubernetes.io/node-name": ["hami-worker"]}
    config["users"][0]["user"].update({"as": AGENT, "as-user-extra": where})
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    yield dataclasses.replace(kube, environment={**kube.environment, "KUBECONFIG": str(path)})
    kube.kubectl("annotate", "node", "hami-worker", "hami.io/test-")


def test_a_node_agent_changes_its_own_nodes_annotations_only(agent):
    """No other node, and nothing but annotations."""
    annotate = '{"metadata":{"annotations":{"hami.io/test":"x"}}}'
    label = '{"metadata":{"labels":{"hami.io/test":"x"}}}'

    def patched(node, patch):
        change = ("patch", "node", node, "--type=merge", "-p", patch)
        return agent.kubectl(*change, check=False) != ""

    assert patched("hami-worker", annotate)
    assert not patched("hami-worker", label)
    assert not patched("hami-control-plane", annotate)


def test_without_the_policy_running_limits_do_not_move(kube, namespace, without_grant_policy):
    """The first grant of a pod is pinned on the node: a later one changes nothing."""
    kube.create(pod("pinned", namespace, container("c", slice_of(memory=1500))))
    kube.wait_running(namespace, "pinned")
    found = kube.get("pod", "-n", namespace, "pinned")["metadata"]["annotations"][GRANT]
    more = found.replace(",1500,", ",9000,")
    kube.kubectl("annotate", "--overwrite", "pod", "-n", namespace, "pinned", f"{GRANT}={more}")
    query = ("--query-gpu=memory.total", "--format=csv,noheader,nounits")
    assert kube.exec(namespace, "pinned", "nvidia-smi", *query).split() == ["1500"]
    kube.exec(namespace, "pinned", "sh", "-c", "kill 1", check=False)

    def restarted():
        status = kube.pods(namespace)[0]["status"]["containerStatuses"][0]
        running = status["restartCount"] == 1 and "running" in status["state"]
        return None if running else f"a second run: {status}"

    wait_until(restarted, 90)
    assert kube.exec(namespace, "pinned", "nvidia-smi", *query).split() == ["1500"]
