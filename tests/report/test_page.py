import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from avs_core.archive.findings import Finding, findings
from avs_core.archive.read import DEAD_SCHEMA
from avs_core.archive.schema import FrameRow, frame_table, instance_table
from avs_core.clip import AUDIO_RATE, Clip, Unit, VideoRef
from avs_core.errors import ConfigError
from avs_core.report import page
from avs_core.report.page import VideoRows, clock, join, section, spoken_span, write_page
from tests.report import sample

NO_DEAD = DEAD_SCHEMA.empty_table()


class Seen(HTMLParser):
    """Which elements a page has, and what an id's text is."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def count(self, tag: str, css_class: str = "") -> int:
        """Elements of a tag that have the class among theirs."""
        return sum(
            name == tag and (not css_class or css_class in (attrs.get("class") or "").split())
            for name, attrs in self.tags
        )


def whole_page(folder: Path, seconds: int = 7) -> str:
    """The page of the sample archive, made as the main job makes it."""
    archive = str(folder / "archive")
    key, dead = sample.archive(archive, seconds=seconds)
    sections = [section(archive, key, uri, sample.clip(seconds), 0) for uri in (sample.BITING, sample.PLAIN)]
    write_page(folder / "page.html", sample.facts(), sections, findings(archive, key), dead)
    return (folder / "page.html").read_text()


def written(
    folder: Path, sections: list[page.VideoSection], found: list[Finding] | None = None, **facts: object
) -> str:
    write_page(folder / "page.html", sample.facts(**facts), sections, found or [], NO_DEAD)
    return (folder / "page.html").read_text()


def test_the_page_holds_every_frame_mask_finding_and_dead_letter(tmp_path: Path) -> None:
    seen = Seen(whole_page(tmp_path))
    assert seen.count("section", "video") == 2
    assert seen.count("figure", "frame") == 14
    assert seen.count("figure", "silent") == 6  # seconds 0, 3, 6 of each
    assert seen.count("path", "outline") == 8
    assert seen.count("svg", "wave") == 2
    text = " ".join(seen.text).replace("\N{NO-BREAK SPACE}", " ")
    assert "truncated" in text
    assert "the file ends <u>before</u> its index & so on" in text
    assert "7.0 × real time" in text


def test_no_outside_string_becomes_markup(tmp_path: Path) -> None:
    seen = Seen(whole_page(tmp_path))
    assert seen.count("script") == 1
    assert not {tag for tag, _ in seen.tags} & {"u", "em", "run"}
    html = (tmp_path / "page.html").read_text()
    for text in ("<script>alert", "<i>cut", "<u>before", "<em>kept", "Sample <run>"):
        assert text not in html
    assert any("<script>alert('1')<b>.mp4" in part for part in seen.text)


def test_a_category_is_escaped_and_named_in_its_colour(tmp_path: Path) -> None:
    mask = sample.disc(1)
    shown = [sample.instance(mask), *(sample.instance(mask, n, f"<b>cat{n}") for n in (1, 2, 9))]
    html = written(tmp_path, [sample.one_frame("a.mp4", *shown)])
    assert "<b>cat" not in html
    chips = re.findall(r'<span class="chip c(\d)">&lt;b&gt;cat(\d) (\d)</span>', html)
    assert chips == [("1", "1", "1"), ("2", "2", "2"), ("1", "9", "9")]
    assert re.findall(r'<svg class="c(\d)( whole)?"', html) == [("0", " whole"), ("1", ""), ("2", ""), ("1", "")]


def test_an_object_is_called_what_it_is_called_where_it_sounds(tmp_path: Path) -> None:
    """One whose name changes from frame to frame: three times a silent horse, twice a sounding cow, once a deer."""
    calls = [("cow", True), ("cow", True), ("horse", False), ("horse", False), ("horse", False), ("deer", True)]
    mask = sample.disc(1)
    frames = [sample.shot(replace(sample.instance(mask, 3, name), sounding=sounds)) for name, sounds in calls]
    html = written(tmp_path, [page.VideoSection("a.mp4", frames, (0.0,) * 20)])
    assert re.findall(r'<span class="chip c3">([^<]*)</span>', html) == ["cow 3"]


def test_seconds_of_one_frame_have_what_sounded_in_each(tmp_path: Path) -> None:
    """A slide of four seconds with a silent object, in which something sounds in the second and the last."""
    seen = sample.instance(sample.disc(1), 1, "dog")
    early, late = sample.instance(sample.disc(1), score=0.5), sample.instance(sample.disc(2), score=0.75)
    looks = [(seen,), (early, seen), (seen,), (late, seen)]
    size = (seen.height, seen.width)
    rows = [FrameRow(second, 0, 0, 0, *size, True, (), found) for second, found in enumerate(looks)]
    writer, unit = sample.opened(str(tmp_path)), Unit(VideoRef("/slide.mp4", 7, "f-7", 1), 0, 4)
    writer.commit_unit(unit, instance_table(unit.video, rows), frame_table(unit.video, rows))
    read = page.read_rows(str(tmp_path), writer.run_key, [unit.video.uri])[unit.video.uri]
    assert [[(one.object_id, one.score) for one in found] for _, found in read.frames] == [
        [(one.object_id, one.score) for one in found] for found in looks
    ]


def test_a_page_of_a_job_that_had_nothing_to_do_counts_no_zeros(tmp_path: Path) -> None:
    key, _ = sample.archive(archive := str(tmp_path / "archive"))
    html = written(tmp_path, [], list(findings(archive, key)), frames=0, instances=0, pending=0)
    text = " ".join(Seen(html).text)
    assert "all of it was done before" in text
    assert "frames looked at" not in text
    died = " ".join(Seen(written(tmp_path, [], list(findings(archive, key)), frames=0, pending=1)).text)
    assert "done before" not in died
    assert "frames looked at" in died


def test_settings_stand_by_the_names_of_their_flags(tmp_path: Path) -> None:
    html = written(tmp_path, [], settings={"resources": {"decode": {"cpus": 0.5}}, "threshold": None})
    found = re.findall(r"<dt>([^<]*)</dt><dd class=\"mono\">([^<]*)</dd>", html)
    assert found[-2:] == [("resources.decode.cpus", "0.5"), ("threshold", "not set")]


def test_the_page_asks_nobody_for_anything(tmp_path: Path) -> None:
    seen = Seen(whole_page(tmp_path))
    sources = [value for _, attrs in seen.tags for name, value in attrs.items() if name in {"src", "href"} and value]
    assert len(sources) >= 14
    assert all(source.startswith(("data:image/jpeg;base64,", "#")) for source in sources)
    policy = next(attrs["content"] for _, attrs in seen.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    sections = [sample.one_frame("a.mp4", sample.instance(sample.disc(1)))]
    assert written(tmp_path, sections) == written(tmp_path, sections)


def test_frames_are_shown_at_the_aspect_ratio_of_the_source(tmp_path: Path) -> None:
    tall = page.VideoSection("a.mp4", [sample.shot(height=1920, width=1080)], ())
    html = written(tmp_path, [tall])
    assert re.findall(r'width="(\d+)" height="(\d+)"', html) == [("135", "240")]
    assert "--ratio:135/240" in html


def test_sections_beyond_the_limit_are_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = [sample.one_frame(f"{n}.mp4", sample.instance(sample.disc(1))) for n in range(5)]
    one = sum(frame["bytes"] for frame in page._drawn_section(sections[0], "x")["frames"])
    monkeypatch.setattr(page, "MOST_BYTES", 3 * one)
    html = written(tmp_path, sections, videos_left_out=4)
    assert Seen(html).count("section", "video") == 3
    assert "6 more videos are left out" in html
    assert "left out here to keep" not in written(tmp_path, sections[:3])


def test_long_tables_are_cut_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_FINDINGS", 2)
    rows = [Finding(f"s3://v/{n}.mp4", 5, 2, 0.125, 0.5, "no_audio") for n in range(5)]
    html = written(tmp_path, [], rows)
    assert html.count('<td class="name"') == 2
    assert "and 3 more videos" in html
    assert "12.5 %" in html


def test_a_finding_links_to_its_section_if_that_is_shown(tmp_path: Path) -> None:
    rows = [Finding(f"s3://v/{name}.mp4", 1, 0, 0.0, 0.0, "") for name in "ab"]
    html = written(tmp_path, [sample.one_frame("s3://v/b.mp4")], rows)
    assert re.findall(r'href="#(.+?)">(.+?)</a>', html) == [("video-1", "b.mp4")]
    assert 'id="video-1"' in html


def test_a_section_joins_rows_and_frames_by_time(tmp_path: Path) -> None:
    archive = str(tmp_path / "archive")
    key, _ = sample.archive(archive)
    joined = section(archive, key, sample.PLAIN, sample.clip(7, flags=("damaged",)), 0)
    assert [frame.time_us for frame in joined.frames] == [second * 1_000_000 + 920_000 for second in range(7)]
    assert [frame.instances for frame in joined.frames] == [sample.found(second) for second in range(7)]
    assert [frame.sounding for frame in joined.frames] == [bool(second % 3) for second in range(7)]
    assert joined.flags == ("damaged",)
    assert len(joined.energy) == 140
    assert (joined.frame_s, joined.left_out, joined.name) == (1.0, 0, "plain.mp4")


def test_a_section_of_a_video_the_run_does_not_hold_shows_pictures_alone(tmp_path: Path) -> None:
    archive = str(tmp_path / "archive")
    key, _ = sample.archive(archive)
    joined = section(archive, key, "s3://videos/other.mp4", sample.clip(3), 0)
    assert [(frame.instances, frame.looked_at) for frame in joined.frames] == [((), False)] * 3
    html = written(tmp_path, [joined])
    assert html.count("not in the archive</span>") == 3
    assert "nothing sounds" not in html


@pytest.mark.parametrize(("seconds", "rate", "most"), [(50, 1, 24), (24, 1, 24), (5, 4, 6), (3, 1, 1), (25, 1, 24)])
def test_a_long_clip_shows_evenly_spaced_frames(seconds: int, rate: int, most: int) -> None:
    joined = join("a", VideoRows(()), sample.clip(seconds, rate), 0, most)
    assert 1 <= len(joined.frames) <= most
    assert len(joined.frames) + joined.left_out == seconds * rate
    assert (len(joined.frames) - 1) * joined.frame_s < seconds <= len(joined.frames) * joined.frame_s
    for place, frame in enumerate(joined.frames):  # each lies above its own part of the sound
        assert place * joined.frame_s <= frame.time_us / 1e6 < (place + 1) * joined.frame_s


def test_a_section_needs_room_for_a_frame() -> None:
    with pytest.raises(ConfigError, match="most_frames=0"):
        join("a", VideoRows(()), sample.clip(2), 0, 0)


def test_a_frame_that_stands_for_two_seconds_takes_each_answer_once(tmp_path: Path) -> None:
    decoded = sample.clip(4)
    still = Clip(
        decoded.frames, decoded.frame_index, np.full((4, 1), 920_000, np.int64), decoded.waveform, 0.0,
        decoded.height, decoded.width, decoded.shown,
    )  # fmt: skip
    archive = str(tmp_path / "archive")
    writer = sample.opened(archive)
    sample.commit(writer, sample.PLAIN, still)
    joined = section(archive, writer.run_key, sample.PLAIN, still, 0)
    assert [frame.instances for frame in joined.frames] == [sample.found(second) for second in range(4)]


def test_sound_is_read_from_the_start_of_the_clip() -> None:
    decoded = sample.clip(2, rate=2)
    early = np.concatenate([np.zeros(AUDIO_RATE, np.float32), np.ones(2 * AUDIO_RATE, np.float32)])
    shifted = replace(decoded, waveform=early, audio_start_s=9.0)
    assert set(join("a", VideoRows(()), shifted, 10.0).energy) == {1.0}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0:00.00"), (2.9375, "0:02.94"), (59.999, "1:00.00"), (3725.94, "1:02:05.94")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.42, "8.4 s"), (59.97, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_spoken_span(seconds: float, text: str) -> None:
    assert spoken_span(seconds) == text


def test_an_empty_run_is_a_page_too(tmp_path: Path) -> None:
    html = written(tmp_path, [], videos=0, video_seconds=0.0, seconds=0.0, dead=0)
    assert "No video was looked at." in html
    assert "real time" not in html


PROBE = """<script>
document.dispatchEvent(new KeyboardEvent("keydown", {key: "c"}));
const view = document.querySelector("[name=view]:checked").id;
const opacity = getComputedStyle(document.querySelector(".outline")).fillOpacity;
const box = document.querySelector(".picture").getBoundingClientRect();
const readable = getComputedStyle(document.querySelector("figcaption b")).color !== "rgb(255, 255, 255)";
document.querySelector(".picture").click();
Promise.all([...document.querySelectorAll(".strip img")].map((image) => image.decode())).then((decoded) => {
  const ratio = (box.width / box.height).toFixed(2);
  document.body.dataset.seen = `${view} ${opacity} ${ratio} ${decoded.length} ${readable}`;
});
</script></body>"""
"""Presses a key, enlarges a frame, and writes down what came of it."""


@pytest.mark.integration
def test_a_browser_shows_the_page_without_complaint(tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium on PATH: the page is not opened in a browser here")
    (tmp_path / "page.html").write_text(whole_page(tmp_path).replace("</body>", PROBE))
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom",
            f"file://{tmp_path}/page.html",
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert Seen(done.stdout).count("figure", "frame") == 14 + 1  # and the enlarged copy
    assert "CONSOLE" not in done.stderr
    assert 'data-seen="view-contour 0 1.78 14 true"' in done.stdout


def test_a_section_holds_its_pictures_and_not_the_clip() -> None:
    """Of sixty frames a second 24 are shown; a page has two hundred videos."""
    clip = sample.clip(5, 12)
    joined = join("a", VideoRows(()), clip, 0)
    assert not any(np.shares_memory(frame.picture, clip.frames) for frame in joined.frames)
