"""The null extender: kube-scheduler's extender protocol with no decision inside.

The same falcon, waitress and one Binding as ours, so that its speed is the limit that the protocol
leaves to anybody. Run it in our place beside kube-scheduler:
    uv run --frozen python bench/null_extender.py [host:port] [shortlist]
"""

import json
import sys

import falcon
import waitress

from hami_extender.wire import decode_bind, decode_filter, encode_bind, encode_priorities
from hamikit.cluster import Api, ApiError, Unreachable


class Filter:
    """The first few nodes."""

    def __init__(self, shortlist: int) -> None:
        self._shortlist = shortlist

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        """ExtenderArgs in, ExtenderFilterResult out."""
        names = decode_filter(request.bounded_stream.read()).node_names or []
        response.data = json.dumps({"NodeNames": names[: self._shortlist]}).encode()


class Prioritize:
    """The first node is the best."""

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        """ExtenderArgs in, HostPriorityList out."""
        names = decode_filter(request.bounded_stream.read()).node_names or []
        scores = {name: 10 if place == 0 else 0 for place, name in enumerate(names)}
        response.data = encode_priorities(scores)


class Bind:
    """One write."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        """ExtenderBindingArgs in, ExtenderBindingResult out."""
        args = decode_bind(request.bounded_stream.read())
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": args.name, "namespace": args.namespace, "uid": args.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": args.node},
        }
        path = f"/api/v1/namespaces/{args.namespace}/pods/{args.name}/binding"
        error = ""
        try:
            self._api.create(path, body, {"timeout": "3s"})
        except (ApiError, Unreachable) as wrong:
            error = str(wrong)
        response.data = encode_bind(error)


def main() -> None:
    """Serve until killed."""
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9380"
    shortlist = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    app: falcon.App[falcon.Request, falcon.Response] = falcon.App()
    app.add_route("/filter", Filter(shortlist))
    app.add_route("/prioritize", Prioritize())
    app.add_route("/bind", Bind(Api.from_environment(connections=64)))
    waitress.serve(app, listen=address, threads=64)


if __name__ == "__main__":
    main()
