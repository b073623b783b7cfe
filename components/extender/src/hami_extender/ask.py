"""`hami-explain [namespace/pod]`: asks the extender of this container, for use by kubectl exec."""

import argparse
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from hamikit import names

TOKEN_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105
TIMEOUT_S = 30


def main() -> None:
    """Print why a pod waits, or all pods that wait."""
    sys.exit(ask(sys.argv[1:]))


def ask(argv: Sequence[str], token_file: str = TOKEN_FILE) -> int:
    """Ask and print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="hami-explain", description=__doc__)
    parser.add_argument("pod", nargs="?", help="namespace/pod; without it all pods that wait")
    parser.add_argument("--limit", default="20", help="nodes told in full (default 20)")
    parser.add_argument("--port", default=str(names.PORT_EXTENDER_EXPLAIN))
    options = parser.parse_args(argv)
    query = {"format": "text", "limit": options.limit}
    if options.pod:
        query["pod"] = options.pod
    request = urllib.request.Request(
        f"http://127.0.0.1:{options.port}/explain?{urllib.parse.urlencode(query)}"
    )
    try:
        token = Path(token_file).read_text(encoding="utf-8").strip()
        request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            sys.stdout.write(answer.read().decode())
    except urllib.error.HTTPError as error:
        sys.stderr.write(f"hami-explain: {error.read().decode().strip()}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"hami-explain: {error}; run it in the extender's container\n")
        return 1
    return 0
