"""What pods ask, worked out once for all that ask alike."""

import msgspec
import pytest
from extender_kit import CORES, GPU, MEM, container, make_pod, pod_object
from hypothesis import given
from hypothesis import strategies as st
from test_engine import pod_json, shapes

from hami_extender.question import QUESTIONS_KEPT, Questions, question_of
from hamikit import names
from hamikit.devices import NVIDIA
from hamikit.objects import Pod
from hamikit.shape import RequestError


def told(how, *args):
    """An answer, or the error in its place."""
    try:
        return how(*args)
    except RequestError as error:
        return str(error)


@given(st.lists(st.tuples(shapes, st.sampled_from(["spread", "binpack"])), max_size=8))
def test_what_is_remembered_is_what_is_asked(asked):
    """Whoever asked before, the answer is that of a fresh look."""
    questions = Questions([NVIDIA])
    for number, (shape, policy) in enumerate([*asked, *asked]):
        pod = msgspec.convert(pod_json(f"p{number}", shape), Pod)
        assert told(questions.of, pod, policy) == told(question_of, pod, [NVIDIA], policy)


def test_replicas_ask_the_very_same_question():
    """Names and annotations that say nothing about devices make no difference."""
    questions = Questions([NVIDIA])
    first, other = make_pod("a"), make_pod("b", POD_TIME="7")
    assert questions.of(first, "spread") is questions.of(other, "spread")
    assert questions.of(first, "binpack") != questions.of(first, "spread")


@pytest.mark.parametrize("wish", ["POD_USE_TYPE", "POD_NOUSE_UUID", "POD_GPU_POLICY"])
def test_a_wish_makes_another_question(wish):
    """The annotations that say which devices a pod wants."""
    questions = Questions([NVIDIA])
    plain = questions.of(make_pod("a"), "spread")
    assert questions.of(make_pod("b", **{wish: "numa"}), "spread") != plain


def test_numbers_that_are_equal_but_spelled_otherwise():
    """Whatever was asked before, 1.0 is taken as it is spelled."""
    questions = Questions([NVIDIA])
    for count in (1, 1.0, "1", 1.5, 1):
        value = pod_object("p", container(gpu=1))
        value["spec"]["containers"][0]["resources"]["limits"][GPU] = count
        pod = msgspec.convert(value, Pod)
        assert told(questions.of, pod, "x") == told(question_of, pod, [NVIDIA], "x")


def test_requests_count_beside_limits():
    """A pod that only requests asks something else than one that asks for nothing."""
    questions = Questions([NVIDIA])
    value = pod_object("p", container())
    assert questions.of(msgspec.convert(value, Pod), "spread") is None
    value["spec"]["containers"][0]["resources"]["requests"] = {GPU: "1", MEM: "5", CORES: "1"}
    assert questions.of(msgspec.convert(value, Pod), "spread") is not None
    value["spec"]["initContainers"] = value["spec"]["containers"]
    value["spec"]["containers"] = [container()]
    passing = questions.of(msgspec.convert(value, Pod), "spread")
    value["spec"]["initContainers"][0]["restartPolicy"] = "Always"
    assert questions.of(msgspec.convert(value, Pod), "spread") != passing


def test_a_request_that_cannot_be_is_refused_each_time():
    """With the name of the container that is wrong in this pod."""
    questions = Questions([NVIDIA])
    for name in ("first", "second"):
        pod = make_pod("p", container(name, gpu=1, percent=101))
        with pytest.raises(RequestError, match=name):
            questions.of(pod, "spread")


def test_what_is_remembered_is_bounded():
    """Pods that all ask differently do not fill the memory."""
    questions = Questions([NVIDIA])
    for number in range(2 * QUESTIONS_KEPT + 1):
        questions.of(make_pod("p", container(gpu=1, mem=1 + number)), "spread")
    assert len(questions._known) <= QUESTIONS_KEPT
    assert names.POD_GPU_POLICY in questions._annotations
