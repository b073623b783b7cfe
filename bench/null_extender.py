"""The null extender: kube-scheduler's extender protocol with no decision inside.

The same server, codec, client and one Binding with as long annotations as ours, so that its speed
is the limit that the protocol leaves to anybody. Run it in our place beside kube-scheduler:
    uv run --frozen python bench/null_extender.py [host:port] [shortlist]
"""

import json
import sys

import falcon

from hami_extender.binding import binding_body
from hami_extender.wire import decode_bind, decode_filter, encode_bind, encode_priorities
from hamikit import names
from hamikit.cluster import Api, ApiError, Unreachable
from hamikit.objects import Metadata, Pod
from hamikit.service import serve

App = falcon.App[falcon.Request, falcon.Response]

GRANT = "GPU-node-00000-0,NVIDIA,3000,10:;"
TIME = "1787293239"


class Filter:
    """The first few nodes."""

    def __init__(self, shortlist: int) -> None:
        self._shortlist = shortlist

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        """ExtenderArgs in, ExtenderFilterResult out."""
        names_ = decode_filter(request.bounded_stream.read()).node_names or []
        response.data = json.dumps({"NodeNames": names_[: self._shortlist]}).encode()


class Prioritize:
    """The first node is the best."""

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        """ExtenderArgs in, HostPriorityList out."""
        names_ = decode_filter(request.bounded_stream.read()).node_names or []
        scores = {name: 10 if place == 0 else 0 for place, name in enumerate(names_)}
        response.data = encode_priorities(scores)


class Bind:
    """One write."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        """ExtenderBindingArgs in, ExtenderBindingResult out."""
        args = decode_bind(request.bounded_stream.read())
        annotations = {
            names.POD_NODE: args.node,
            names.POD_TIME: TIME,
            names.POD_DEVICES_TO_ALLOCATE: GRANT,
            names.POD_DEVICES_ALLOCATED: GRANT,
            names.POD_BIND_PHASE: names.BIND_SUCCESS,
            names.POD_BIND_TIME: TIME,
        }
        pod = Pod(Metadata(name=args.name, namespace=args.namespace, uid=args.uid))
        path = f"/api/v1/namespaces/{args.namespace}/pods/{args.name}/binding"
        error = ""
        try:
            body = binding_body(pod, args.node, annotations)
            self._api.request("POST", path, body=body, query={"timeout": "3s"}, timeout=5.0)
        except (ApiError, Unreachable) as wrong:
            error = str(wrong)
        response.data = encode_bind(error)


def null_app(api: Api, shortlist: int) -> App:
    """The protocol and nothing else."""
    app: App = falcon.App()
    app.add_route("/filter", Filter(shortlist))
    app.add_route("/prioritize", Prioritize())
    app.add_route("/bind", Bind(api))
    return app


def main() -> None:
    """Serve until killed."""
    host, _, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9380").rpartition(":")
    shortlist = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    app = null_app(Api.from_environment(connections=64), shortlist)
    at_once = ("/filter", "/prioritize").__contains__
    serve(app, host, int(port), threads=64, at_once=at_once).join()


if __name__ == "__main__":
    main()
