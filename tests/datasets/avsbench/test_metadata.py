"""Tables → clips: what is mended and told, what is refused."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avs_core.datasets.avsbench.findings import Finding
from avs_core.datasets.avsbench.metadata import Table, parse_avss, parse_labels, parse_ms3, parse_s4, source_video
from avs_core.errors import DataError

CLASSES = ("background", "girl", "guitar", "emergency-car")
LABELS = {"background": 0, **{f"class-{index}": index for index in range(1, 71)}}


def s4(*lines: str) -> Table:
    return parse_s4("\n".join(["name,start_time,category,split", *lines, ""]).encode())


def ms3(*lines: str) -> Table:
    return parse_ms3("\n".join(["video_id,split", *lines, ""]).encode())


def avss(*lines: str) -> Table:
    return parse_avss("\n".join(["vid,uid,s_min,s_sec,a_obj,split,label", *lines, ""]).encode(), CLASSES)


@pytest.mark.parametrize(
    ("clip_id", "video"),
    [
        ("A7N2Japi3-A_4", "A7N2Japi3-A"),
        ("mbGrFe9TUbI", "mbGrFe9TUbI"),  # no part number, while another clip of the video has one
        ("ygrrc2Saf_8_10", "ygrrc2Saf_8"),  # the id itself ends in _8
        ("jME9QyhHS_0_1", "jME9QyhHS_0"),
        ("_19NVGk6Zt8_0", "_19NVGk6Zt8"),
        ("_n-Ey8CoFlA", "_n-Ey8CoFlA"),
        ("baby_dog_2_1", "baby_dog_2"),  # no YouTube id
        ("__GOGlHL23s_4000_9000", "__GOGlHL23s"),
        ("--iSerV5DbY_119000_129000", "--iSerV5DbY"),
        ("ms3_train_00001", "ms3_train"),
        ("name", "name"),
    ],
)
def test_source_video(clip_id: str, video: str) -> None:
    assert source_video(clip_id) == video


def test_s4_labels_the_first_frame_of_train_alone() -> None:
    table = s4("-_wznbUu3DY,0,helicopter,train", "0d9u2CymIxc,5,helicopter,test", "__GOGlHL23s,4,dog_barking,val")
    assert [clip.ref.labelled for clip in table.clips] == [(0,), (0, 1, 2, 3, 4), (0, 1, 2, 3, 4)]
    assert [clip.ref.categories for clip in table.clips] == [("helicopter",), ("helicopter",), ("dog_barking",)]
    assert {clip.ref.seconds for clip in table.clips} == {5}
    assert [clip.folder for clip in table.clips] == ["helicopter", "helicopter", "dog_barking"]
    assert not table.findings


def test_avss_flags_follow_the_label() -> None:
    table = avss(
        "v1,v1_0_5000,0,0,girl,train,v1s",
        "v2,v2_0_5000,0,0,girl,val,v1s",
        "v3_0,v3_0,0,0,girl_guitar,train,v1m",
        "v4,v4_16000_26000,0,16,guitar_emergency-car,train,v2",
    )
    refs = [clip.ref for clip in table.clips]
    assert [(ref.seconds, len(ref.labelled)) for ref in refs] == [(5, 1), (5, 5), (5, 5), (10, 10)]
    assert refs[3].categories == ("guitar", "emergency-car")
    assert [ref.sources for ref in refs] == [1, 1, None, None]
    assert [ref.subsets for ref in refs] == [("v1s",), ("v1s",), ("v1m",), ("v2",)]
    assert not table.findings


def test_what_avss_hears_off_the_screen_is_no_class() -> None:
    (clip,) = (table := avss("v,-9-Jylm9GiA_440000_450000,7,20,off-the-screen,train,v2")).clips
    assert clip.ref.categories == ()
    assert clip.ref.subsets == ("v2", "off-screen")
    assert [finding.kind for finding in table.findings] == ["dirt"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xef\xbb\xbfname,start,category,split\na,0,dog_barking,train\n", "byte order mark"),
        (b"name,start,category,split\r\n\r\na,0,dog_barking,train\r\n", "without values"),
        (b"name,start,category,split\n a,0,dog_barking ,train\n", "spaces around"),
        (b"name,start,category,split\na,0,dog_barking,train,,\n", "6 values for 4 columns"),
        (b"name,start,category,split\na,0,dog_barking,Train\n", "capitals"),
        (b"name,start,category,split\na.mp4,0,dog_barking,train\n", "ends as a file's name"),
        (b"name,start,category,split\na,0,dog barking,train\n", "underscores"),
        (b"name,start,category,split\na,0,dog_barking,train\na,0,dog_barking,train\n", "again, with the same"),
    ],
)
def test_known_dirt_is_mended_and_told(data: bytes, message: str) -> None:
    table = parse_s4(data)
    (clip,) = table.clips
    assert (clip.name, clip.folder, clip.ref.split) == ("a", "dog_barking", "train")
    (finding,) = table.findings
    assert finding.kind == "dirt"
    assert message in finding.message
    assert finding.path.startswith("s4_meta_data.csv:")


@pytest.mark.parametrize(
    "data",
    [
        b"Unnamed: 0,name,start_time,category,split\n0,a,0,dog_barking,train\n",
        b"split,category,name\ntrain,dog_barking,a\n",
        b'name,start,category,split\n"a",0,dog_barking,train',
    ],
)
def test_columns_may_come_in_any_order_with_others_between(data: bytes) -> None:
    (clip,) = (table := parse_s4(data)).clips
    assert (clip.name, clip.folder, table.findings) == ("a", "dog_barking", ())


@pytest.mark.parametrize("column", ["video_id", "id", "name"])
def test_the_ids_of_ms3_have_several_names(column: str) -> None:
    assert parse_ms3(f"{column},more,split\na_0,x,val\n".encode()).clips[0].name == "a_0"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b,0,dog_barking,dev", "a split must be one of train, val, test, unseen, got 'dev'"),
        ("b,0", "4 values, it has 2"),
        (",0,dog_barking,train", "an id must be a file name, got ''"),
        ("../b,0,dog_barking,train", "an id must be a file name, got '../b'"),
        ("b,0,..,train", "must name a folder"),
        ("a,0,dog_barking,test", "a again, in test dog_barking and before in train dog_barking"),
        ("a,0,cat_meowing,train", "a again, in train cat_meowing and before in train dog_barking"),
    ],
)
def test_rows_that_contradict_are_left_out_and_told(line: str, message: str) -> None:
    table = s4("a,0,dog_barking,train", line)
    assert [clip.name for clip in table.clips] == ["a"]
    (finding,) = table.findings
    assert (finding.kind, finding.path) == ("contradicting", "s4_meta_data.csv:3")
    assert message in finding.message


def test_avss_rows_without_a_known_label_contradict() -> None:
    table = avss("v,u,0,0,girl,train,v3")
    assert not table.clips
    assert "v1s, v1m, v2, got 'v3'" in table.findings[0].message


def test_leaks_are_counted_over_part_numbers() -> None:
    table = ms3("mbGrFe9TUbI_0,train", "mbGrFe9TUbI,test", "kgw1OadfJWA,test", "UvHjKXLqmC8_1,val")
    expected = "1 of 2 test clips share a source video with train; test-leak-free has the others"
    assert table.findings == (Finding("dirt", "ms3_meta_data.csv", expected),)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfe\x00name", "UTF-8"),
        (b"", "a column name"),
        (b"video_id,split\na,train\n", "a column category"),
        (b'name,start,category,split\n"a,0,dog,train\n', "comma-separated"),
    ],
)
def test_what_is_no_table_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_s4(data)


@given(st.one_of(st.binary(), st.text().map(lambda text: b"name,category,split\n" + text.encode("utf-8", "replace"))))
def test_any_bytes_are_a_table_or_a_clear_error(data: bytes) -> None:
    with contextlib.suppress(DataError):
        for clip in parse_s4(data).clips:
            assert "/" not in clip.name + clip.folder
            assert clip.ref.split in ("train", "val", "test", "unseen")


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["train", "val", "test"])), max_size=12))
def test_each_id_is_kept_once(rows: list[tuple[int, str]]) -> None:
    """Against a dictionary: the first row of an id counts."""
    table = ms3(*(f"video{number:06d},{split}" for number, split in rows))
    first: dict[str, str] = {}
    for number, split in rows:
        first.setdefault(f"video{number:06d}", split)
    assert {clip.name: clip.ref.split for clip in table.clips} == first
    repeated = [finding for finding in table.findings if "again" in finding.message]
    assert len(repeated) == len(rows) - len(first)


def test_classes_are_in_the_order_of_their_numbers() -> None:
    shuffled = dict(sorted(LABELS.items(), reverse=True))
    names, findings = parse_labels(json.dumps(shuffled).encode())
    assert names == tuple(LABELS)
    assert not findings


def test_classes_may_count_from_1() -> None:
    names, findings = parse_labels(json.dumps({name: index + 1 for name, index in LABELS.items()}).encode())
    assert names == tuple(LABELS)
    assert [finding.kind for finding in findings] == ["dirt"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "JSON"),
        (b"[]", "map names"),
        (json.dumps(LABELS | {"class-70": "70"}).encode(), "to numbers"),
        (json.dumps(LABELS | {"class-70": 71}).encode(), "without gaps"),
        (json.dumps(LABELS | {"class-70": 69}).encode(), "without gaps"),
        (json.dumps({"background": 0, "dog": 1}).encode(), "71 classes"),
        (json.dumps(LABELS | {"background": 1, "class-1": 0}).encode(), "lowest number to the background"),
    ],
)
def test_what_is_no_list_of_classes_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_labels(data)
