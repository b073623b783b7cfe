"""Writes the go.mod of a Kubernetes version: `python3 pin.py 1.34.4 FOLDER`, then `go build`.

Kubernetes replaces its staging modules by folders of its own repository, so whoever builds it from
outside repeats each of them with its version.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

MODULE = "k8s.io/kubernetes"
COMMANDS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubeadm",
    "kubectl",
    "kubelet",
)


def gomod(upstream: str, version: str) -> str:
    """Our go.mod, from the text of Kubernetes' own and its version, as in "1.34.4"."""
    language = re.search(r"^go (\S+)", upstream, re.MULTILINE)
    if not language:
        raise SystemExit(f"the go.mod of {MODULE} names no Go version")
    staging = re.findall(r"^\s*(\S+) => \./staging", upstream, re.MULTILINE)
    tools = "".join(f"\t{MODULE}/cmd/{command}\n" for command in COMMANDS)
    minor = version.partition(".")[2]
    replaced = "".join(f"\t{name} => {name} v0.{minor}\n" for name in staging)
    return (
        f"module hami.io/e2e/kubernetes\n\ngo {language[1]}\n\nrequire {MODULE} v{version}\n\n"
        f"tool (\n{tools})\n\nreplace (\n{replaced})\n"
    )


def main(version: str, folder: str) -> None:
    """Fetches Kubernetes' go.mod and writes ours."""
    download = ("go", "mod", "download", "-json", f"{MODULE}@v{version}")
    found = json.loads(subprocess.run(download, capture_output=True, check=True).stdout)
    text = gomod(Path(found["GoMod"]).read_text(), version)
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "go.mod").write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
