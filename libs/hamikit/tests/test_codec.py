"""Behaviour of hamikit.codec: HAMi v2.10's annotation formats."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamikit.codec import (
    INT32_MAX,
    CodecError,
    GrantedDevice,
    RegisteredDevice,
    decode_grant,
    decode_pair_scores,
    decode_register,
    decode_register_csv,
    default_mode,
    encode_grant,
    encode_register,
    encode_register_csv,
    go_json,
    split_list,
)
from hamikit.instances import MigProfile, Placement

words = st.text(st.characters(codec="utf-8", exclude_characters=",:;"), min_size=1, max_size=12)
int32 = st.integers(0, INT32_MAX)
granted = st.builds(GrantedDevice, words, words, int32, int32)
registered = st.builds(
    RegisteredDevice,
    id=st.text(min_size=1, max_size=10),
    index=st.integers(0, 64),
    count=int32,
    devmem=int32,
    devcore=int32,
    type=st.text(max_size=10),
    numa=st.integers(-1, 8),
    mode=st.sampled_from(["", "hami-core", "mig", "mps"]),
    health=st.booleans(),
)

SAMPLE = (
    '[{"id":"GPU-0","count":10,"devmem":8192,"devcore":100,"type":"NVIDIA-A100",'
    '"mode":"hami-core","health":true}]'
)


def test_register_sample():
    """The published sample, byte for byte in both directions."""
    card = RegisteredDevice(
        id="GPU-0",
        count=10,
        devmem=8192,
        devcore=100,
        type="NVIDIA-A100",
        mode="hami-core",
        health=True,
    )
    assert decode_register(SAMPLE) == [card]
    assert encode_register([card]) == SAMPLE


@given(st.lists(registered, min_size=1, max_size=4))
def test_register_round_trip(devices):
    """What is written is read back, in order of index."""
    ordered = sorted(devices, key=lambda device: (device.index, device.id))
    assert decode_register(encode_register(devices)) == ordered


def test_register_is_stable_and_escaped_as_go_does():
    """Equal hardware gives equal text; `<`, `>` and `&` are escaped."""
    one = RegisteredDevice(id="a", index=0, type="<&>")
    two = RegisteredDevice(id="b", index=1)
    assert encode_register([two, one]) == encode_register([one, two])
    assert '"type":"\\u003c\\u0026\\u003e"' in encode_register([one])
    assert go_json("\u2028é") == '"\\u2028é"'


def test_register_reads_any_case_and_unknown_keys():
    """Go's decoder does not look at case, so other writers may differ in it."""
    text = '[{"ID":"g","Count":2,"devicevendor":"NVIDIA","custominfo":{"a":1},"migtemplate":[[]]}]'
    assert decode_register(text) == [RegisteredDevice(id="g", count=2, custominfo={"a": 1})]


def test_mig_profiles_of_a_card():
    """As HAMi's plugin writes them, and with keys in any case, as Go reads them."""
    text = (
        '[{"id":"g","count":7,"mode":"mig","migProfiles":[{"name":"2g.10gb","memoryMB":9984,'
        '"core":29,"sliceCount":2,"placements":[{"start":0,"size":2},{"start":2,"size":2}]}],'
        '"health":true}]'
    )
    places = (Placement(0, 2), Placement(2, 2))
    profile = MigProfile("2g.10gb", 9984, 29, 2, places)
    device = RegisteredDevice(id="g", count=7, mode="mig", mig_profiles=(profile,), health=True)
    assert decode_register(text) == [device]
    assert encode_register([device]) == text
    upper = text.replace('"id"', '"ID"').replace("migProfiles", "MIGPROFILES")
    upper = upper.replace("memoryMB", "Memorymb").replace("sliceCount", "slicecount")
    assert decode_register(upper.replace("placements", "Placements")) == [device]


def test_a_missing_health_is_unhealthy():
    """The encoder omits false, so absent must mean false."""
    assert not decode_register('[{"id":"g"}]')[0].health


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", "[1]", '[{"id":1}]', '[{"count":1}]', '[{"id":"g","count":"x"}]'],
)
def test_a_register_that_is_none_is_an_error(text):
    """One kind of error, whatever somebody wrote into the annotation."""
    with pytest.raises(CodecError):
        decode_register(text)


def test_grant_samples():
    """The published samples: two containers, and a plain container before the GPU's."""
    one = GrantedDevice("GPU-x", "NVIDIA", 3000, 0)
    two = GrantedDevice("GPU-x", "NVIDIA", 5000, 0)
    assert encode_grant([[one], [two]]) == "GPU-x,NVIDIA,3000,0:;GPU-x,NVIDIA,5000,0:;"
    third = GrantedDevice("GPU-x", "NVIDIA", 1000, 30)
    assert encode_grant([[], [third]]) == ";GPU-x,NVIDIA,1000,30:;"
    assert decode_grant(";GPU-x,NVIDIA,1000,30:;") == ((), (third,))


@given(st.lists(st.lists(granted, max_size=3), max_size=4))
def test_grant_round_trip(slots):
    """Empty slots keep their place."""
    assert decode_grant(encode_grant(slots)) == tuple(map(tuple, slots))


@given(st.lists(st.lists(granted, max_size=3), max_size=4), st.integers(0, 5))
def test_trailing_separators_change_no_device(slots, extra):
    """HAMi's plugin appends one `;` for each slot that it consumes."""
    found = decode_grant(encode_grant(slots) + ";" * extra)
    assert found[: len(slots)] == tuple(map(tuple, slots))
    assert not any(found[len(slots) :])


def test_extra_fields_and_pieces_without_comma_are_skipped():
    """As HAMi's decoder does."""
    assert decode_grant("g,NVIDIA,1,2,future:junk:;") == ((GrantedDevice("g", "NVIDIA", 1, 2),),)


@pytest.mark.parametrize(
    "text",
    ["g,NVIDIA,1:;", "g,NVIDIA,x,1:;", "g,NVIDIA,1,2147483648:;", "g,NVIDIA,1_0,1:;", "g,V, 1,1:;"],
)
def test_a_broken_grant_is_an_error(text):
    """A grant that cannot be read must not count as nothing."""
    with pytest.raises(CodecError, match="grant entry"):
        decode_grant(text)


@given(st.text(alphabet="g,:;1-x ", max_size=30))
def test_any_text_is_a_grant_or_one_kind_of_error(text):
    """Whatever the annotation holds."""
    with contextlib.suppress(CodecError):
        decode_grant(text)


def test_lists_are_trimmed():
    """Blanks and empty entries of a comma list mean nothing."""
    assert split_list(" a, ,b,,") == ("a", "b")
    assert split_list(" ") == ()


def test_an_entry_without_mode_is_shared_by_hami_core():
    """Old plugins did not write a mode."""
    assert default_mode(RegisteredDevice(id="g")) == "hami-core"
    assert default_mode(RegisteredDevice(id="g", mode="mig")) == "mig"


def test_the_register_is_plain_json():
    """Other readers use an ordinary JSON parser."""
    assert json.loads(encode_register([RegisteredDevice(id="é", type="&")])) == [
        {"id": "é", "type": "&"}
    ]


@pytest.mark.parametrize("text", ['{"a":1}', "[1]", '[{"id":1}]', "null", '"x"'])
def test_a_register_annotation_of_another_form_is_told_in_plain_words(text):
    """What a person reads is about the annotation, not about Python."""
    with pytest.raises(CodecError, match="is not an array of devices: Expected") as error:
        decode_register(text)
    assert "object has no attribute" not in str(error.value)


def test_the_text_form_of_a_register():
    """Hygon's form: nine fields, or the first seven in older plugins."""
    assert decode_register_csv("DCU-1,4,65520,100,DCU-K100,0,true,0,hami:") == [
        RegisteredDevice(
            id="DCU-1",
            count=4,
            devmem=65520,
            devcore=100,
            type="DCU-K100",
            mode="hami",
            health=True,
        )
    ]
    (old,) = decode_register_csv("a,1,2,3,T,-1,F:")
    assert (old.mode, old.index, old.numa, old.health) == ("hami-core", 0, -1, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,1,2,3,T,0,true",
        "a,1,2,3,T,0,true,0:",
        "a,1,2,3,T,0,yes:",
        "a,1,x,3,T,0,true:",
        "a,1,2,3,T,0,true,-1,hami:",
        "a,1,2,3,T,0,true:b:",
    ],
)
def test_a_broken_text_register_is_an_error(text):
    """One bad field fails the whole annotation."""
    with pytest.raises(CodecError, match="register"):
        decode_register_csv(text)


words = st.text("abc-1", min_size=1, max_size=5)


@given(
    st.lists(
        st.builds(
            RegisteredDevice,
            id=words,
            index=st.integers(0, 99),
            count=st.integers(0, 99),
            devmem=st.integers(0, 10**6),
            devcore=st.integers(0, 200),
            type=words,
            numa=st.integers(-1, 7),
            mode=words,
            health=st.booleans(),
        ),
        min_size=1,
    )
)
def test_the_text_form_round_trips(devices):
    """What is written is read."""
    assert decode_register_csv(encode_register_csv(devices)) == devices


def test_pair_scores():
    """By card, then by the other card; anything else is an error."""
    text = '[{"uuid":"a","score":{"b":210}},{"uuid":"b"}]'
    assert decode_pair_scores(text) == {"a": {"b": 210}, "b": {}}
    for bad in ("", "{}", '[{"uuid":1}]', '[{"uuid":"a","score":{"b":"x"}}]'):
        with pytest.raises(CodecError, match="pair scores"):
            decode_pair_scores(bad)


@pytest.mark.parametrize("decode", [decode_register, decode_register_csv, decode_pair_scores])
@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"a":' * 40_000,
        '[{"id":"x","custominfo":' + '{"a":' * 40_000,
        '[{"ID":' + "[" * 200_000,
        '[{"uuid":' + "[" * 200_000,
        "\ud800",
    ],
    ids=["lists", "objects", "free data", "any case", "scores", "no text"],
)
def test_no_annotation_ends_its_reader(decode, text):
    """Whatever depth a node writes: one that no decoder bears ended the whole scheduler."""
    with pytest.raises(CodecError):
        decode(text)


def test_what_a_register_entry_leaves_out_is_nothing():
    """Go's encoder leaves zero values out."""
    (found,) = decode_register('[{"id":"a"}]')
    numbers = (found.index, found.count, found.devmem, found.devcore, found.numa)
    assert numbers == (0, 0, 0, 0, 0)
    assert (found.type, found.mode, found.health, found.custominfo) == ("", "", False, None)


@pytest.mark.parametrize(
    ("word", "health"),
    [(w, True) for w in ("1", "t", "T", "TRUE", "true", "True")]
    + [(w, False) for w in ("0", "f", "F", "FALSE", "false", "False")],
)
def test_every_word_of_go_for_true_and_false(word, health):
    """Writers differ."""
    assert decode_register_csv(f"a,1,2,3,T,0,{word}:")[0].health is health


def test_the_largest_numbers():
    """32 bits, and one more is an error; the sign may be written."""
    (slot,) = decode_grant("a,V,2147483647,+5:;")
    assert (slot[0].memory_mib, slot[0].cores) == (INT32_MAX, 5)
    assert decode_grant("a,V,-2147483647,0:;")[0][0].memory_mib == -INT32_MAX
    with pytest.raises(CodecError, match="does not fit 32 bits"):
        decode_grant("a,V,2147483648,0:;")


def test_grants_share_the_names_of_cards():
    """A hundred thousand pods name some ten thousand cards."""
    (one,), (two,) = decode_grant("GPU-0,NVIDIA,1,1:;GPU-0,NVIDIA,2,2:;")
    assert one.uuid is two.uuid
    assert one.vendor is two.vendor


def test_go_leaves_other_scripts_as_they_are():
    """Only what could end a script or a line is escaped."""
    assert go_json({"é": "\u2028<"}) == '{"é":"\\u2028\\u003c"}'


def test_one_device_without_id_is_one_too_many():
    """However the others are written; names of keys in any case are looked at again."""
    with pytest.raises(CodecError, match="without id"):
        decode_register('[{"id":"a"},{"count":3}]')
    first, second = decode_register('[{"id":"a"},{"ID":"b","Count":3}]')
    assert (first.id, second.id, second.count) == ("a", "b", 3)
