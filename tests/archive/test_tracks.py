from collections import Counter, defaultdict
from typing import Any

import pytest

from avs_core.archive.compact import compact
from avs_core.archive.read import open_archive, open_tracks
from avs_core.archive.schema import ROW_SCHEMA, TRACK_SCHEMA, FrameRow, instance_table
from avs_core.archive.tracks import tracks_of
from tests.archive import sample

UNIT = sample.units(sample.video())[0]


def by_hand(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tracks of rows with a loop."""
    objects = defaultdict(list)
    for row in rows:
        objects[row["video_uri"], row["object_id"]].append(row)
    tracks = []
    for (uri, object_id), of_object in sorted(objects.items()):
        names = Counter(row["category"] for row in of_object if row["category"] is not None)
        x0, y0 = min(row["x0"] for row in of_object), min(row["y0"] for row in of_object)
        tracks.append(
            {
                "video_id": of_object[0]["video_id"],
                "video_uri": uri,
                "object_id": object_id,
                "category": min(names, key=lambda name: (-names[name], name)) if names else None,
                "first_time_us": min(row["frame_time_us"] for row in of_object),
                "last_time_us": max(row["frame_time_us"] for row in of_object),
                "frames": len(of_object),
                "sounding_frames": sum(row["sounding"] for row in of_object),
                "score": pytest.approx(sum(row["score"] for row in of_object) / len(of_object)),
                "area_share": pytest.approx(
                    sum(row["area"] / row["height"] / row["width"] for row in of_object) / len(of_object)
                ),
                "x0": x0,
                "y0": y0,
                "w": max(row["x0"] + row["w"] for row in of_object) - x0,
                "h": max(row["y0"] + row["h"] for row in of_object) - y0,
            }
        )
    return tracks


@pytest.mark.parametrize("compacted", [False, True], ids=["on the fly", "from files"])
def test_tracks_are_those_of_a_loop(archive: str, compacted: bool) -> None:
    writer = sample.opened(archive)
    for number, name in enumerate("cab"):
        for unit in sample.units(sample.video(name), number + 1):
            sample.commit(writer, unit, seed=number * 10 + unit.index)
    if compacted:
        compact(archive)
    tracks = open_tracks(archive)
    assert tracks.schema == TRACK_SCHEMA
    assert tracks.to_pylist() == by_hand(open_archive(archive).to_table().to_pylist())
    assert tracks.num_rows == 6


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["dog", "cat", "dog"], "dog"), (["dog", "cat"], "cat"), ([None, None, "dog"], "dog"), ([None], None)],
)
def test_the_commonest_category_names_a_track(names: list[str | None], expected: str | None) -> None:
    frames = [
        FrameRow(
            second, 0, second, second * 1_000_000, 36, 64, True, (), (sample.instance(sample.picture(1), 1, name),)
        )
        for second, name in enumerate(names)
    ]
    (track,) = tracks_of(instance_table(UNIT.video, frames)).to_pylist()
    assert track["category"] == expected


def test_no_rows_are_no_tracks() -> None:
    assert tracks_of(ROW_SCHEMA.empty_table()).equals(TRACK_SCHEMA.empty_table())
