"""The story that `make demo` tells: two pods share a card, a third waits and is told why.

Every line that is shown is the cluster's own answer to the command above it.
"""

import json
import shutil
import sys
import textwrap
from collections.abc import Callable

from e2e.kube import Kube, wait_until
from e2e.pods import container, pod, slice_of
from e2e.product import connect, told

NAMESPACE = "demo"
NODE = "hami-worker"
REGISTER = "hami.io/node-nvidia-register"


def say(text: str) -> None:
    """Tell what comes next."""
    width = min(shutil.get_terminal_size().columns, 100)
    print("\n" + textwrap.fill(text, width), flush=True)


def show(kube: Kube, *arguments: str, check: bool = True) -> str:
    """Print a kubectl command and what it answers."""
    print(f"$ kubectl {' '.join(arguments)}", flush=True)
    out = kube.kubectl(*arguments, check=check)
    print(textwrap.indent(out.rstrip(), "    "), flush=True)
    return out


def until(what: str, missing: Callable[[], str | None], seconds: float = 120) -> None:
    """Wait, and say for what."""
    print(f"  waiting until {what} ...", flush=True)
    wait_until(missing, seconds)


def tell(kube: Kube) -> None:
    """The story, from an empty namespace to a pod that takes another's place."""
    annotations = kube.get("node", NODE)["metadata"]["annotations"]
    cards = json.loads(annotations[REGISTER])
    card, total = cards[0]["id"], cards[0]["devmem"]
    say(f"Node {NODE} announces {len(cards)} cards; the first is a {cards[0]['type']} with")
    print(f"    {total} MiB: {card}")
    wish = {"nvidia.com/use-gpuuuid": card}

    say("Two pods ask for 3000 MiB and 30 percent of that card each.")
    for name in ("alice", "bob"):
        asked = slice_of(memory=3000, cores=30)
        kube.create(pod(name, NAMESPACE, container("train", asked), annotations=wish))
    until("both run", lambda: _running(kube, "alice", "bob"))
    show(kube, "get", "pods", "-n", NAMESPACE, "-o", "wide")

    say("Each sees a card of 3000 MiB. This is nvidia-smi inside alice:")
    show(kube, "exec", "-n", NAMESPACE, "alice", "--", "nvidia-smi")

    say("An allocation of 2000 MiB fits; another 1000 MiB do not. The pod lives on.")
    show(kube, "exec", "-n", NAMESPACE, "alice", "--", "cuprobe", "alloc", "2000", "1000")
    show(kube, "get", "pod", "-n", NAMESPACE, "alice")

    third = total - 6000 + 1000
    say(f"carol asks for {third} MiB of the same card, which has {total - 6000} left.")
    asked = slice_of(memory=third)
    kube.create(pod("carol", NAMESPACE, container("train", asked), annotations=wish))
    until("its event says why it waits", lambda: _told(kube, "carol", card))
    show(kube, "get", "pod", "-n", NAMESPACE, "carol")
    show(kube, "get", "events", "-n", NAMESPACE, "--field-selector=involvedObject.name=carol")

    say("alice goes. carol takes its place, without anybody doing anything.")
    show(kube, "delete", "pod", "-n", NAMESPACE, "alice")
    until("carol runs", lambda: _running(kube, "bob", "carol"))
    show(kube, "get", "pods", "-n", NAMESPACE)

    say("What the monitor says about bob:")
    until("the monitor has seen bob", lambda: None if _metrics(kube, "bob") else "bob's series")
    print(textwrap.indent("\n".join(_metrics(kube, "bob")), "    "))


def _running(kube: Kube, *names: str) -> str | None:
    phases = {p["metadata"]["name"]: p["status"].get("phase") for p in kube.pods(NAMESPACE)}
    waiting = [name for name in names if phases.get(name) != "Running"]
    return ", ".join(waiting) or None


def _told(kube: Kube, name: str, card: str) -> str | None:
    return None if any(card in text for text in kube.events(NAMESPACE, name)) else "the event"


def _metrics(kube: Kube, name: str) -> list[str]:
    lines = []
    for item in kube.get("pods", "-n", "hami-system", "-l", "app.kubernetes.io/name=hami-monitor")[
        "items"
    ]:
        path = f"/api/v1/namespaces/hami-system/pods/{item['metadata']['name']}:9394/proxy/metrics"
        lines += kube.kubectl("get", "--raw", path).splitlines()
    return [line for line in lines if line.startswith("hami_vgpu_memory") and f'"{name}"' in line]


def story() -> None:
    """Tell the story in a namespace of its own, and take it away afterwards."""
    kube = connect()
    kube.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")
    kube.kubectl("create", "namespace", NAMESPACE)
    try:
        tell(kube)
    finally:
        kube.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    say("What to try next:")
    print("""    eval "$(make env)"                      use kubectl with this cluster
    kubectl apply -f deploy/examples/         your own slices
    kubectl get node hami-worker -o yaml      what the node announces
    make test                                 every test this machine can run
    make down                                 remove everything""")


if __name__ == "__main__":
    sys.exit(told(story))
