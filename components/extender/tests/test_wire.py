"""kube-scheduler's messages, byte for byte where they leave us."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami_extender.wire import (
    BindArgs,
    FilterResult,
    WireError,
    decode_bind,
    decode_filter,
    encode_bind,
    encode_priorities,
)

POD = {"metadata": {"name": "p", "uid": "u"}}


@pytest.mark.parametrize("keys", [("Pod", "NodeNames"), ("pod", "nodenames"), ("POD", "nodeNames")])
def test_keys_in_any_case(keys):
    """Go decodes case-insensitively, so do we."""
    args = decode_filter(json.dumps({keys[0]: POD, keys[1]: ["a"], "Nodes": None}).encode())
    assert (args.pod.metadata.name, args.node_names, args.nodes) == ("p", ["a"], None)


def test_a_node_list_is_passed_on_as_it_is():
    """Nodes stay raw; null names stay None."""
    args = decode_filter(
        json.dumps({"Pod": POD, "Nodes": {"items": []}, "NodeNames": None}).encode()
    )
    assert bytes(args.nodes) == b'{"items": []}'
    assert args.node_names is None
    assert b'"Nodes":{"items": []}' in FilterResult(nodes=args.nodes).encode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b"{}", "extender args missing pod"),
        (b'{"Pod":null}', "extender args missing pod"),
        (b'{"Pod":{"metadata":7}}', "extender args"),
        (b'{"Pod":{},"NodeNames":[1]}', "extender args"),
    ],
)
def test_bad_filter_args(body, said):
    """A clear error, no crash."""
    with pytest.raises(WireError, match=said):
        decode_filter(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    """Whatever comes, there is no other exception."""
    for decode in (decode_filter, decode_bind):
        try:
            decode(body)
        except WireError:
            continue


def test_bind_args():
    """The four fields, in any case; a missing one is named."""
    body = {"PodName": "p", "PodNamespace": "ns", "podUID": "u", "Node": "n"}
    assert decode_bind(json.dumps(body).encode()) == BindArgs("p", "ns", "u", "n")
    del body["Node"]
    with pytest.raises(WireError, match="miss 'node'"):
        decode_bind(json.dumps(body).encode())
    with pytest.raises(WireError, match="binding args"):
        decode_bind(json.dumps({**body, "Node": 5}).encode())


def test_results():
    """Exactly the capitalised keys of extender/v1."""
    result = FilterResult(node_names=["a"], failed={"b": "1/1 CardNotHealth"})
    assert result.encode() == (
        b'{"Nodes":null,"NodeNames":["a"],"FailedNodes":{"b":"1/1 CardNotHealth"},'
        b'"FailedAndUnresolvableNodes":{},"Error":""}'
    )
    assert encode_bind("") == b'{"Error":""}'
    assert encode_priorities({"a": 10}) == b'[{"Host":"a","Score":10}]'
