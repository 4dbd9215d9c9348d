"""References, splits and decoding; the catalogue that ships."""

import hashlib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from avs_core.datasets.sources import (
    LICENCES,
    Catalogue,
    Sources,
    decode_sound,
    default_cache,
    fetch_package,
    fetch_packages,
    source_key,
    split_by_source,
)
from avs_core.errors import ConfigError, InputError, UnreadableMedia
from tests.datasets.conftest import tone, wav_bytes
from tests.datasets.test_containers import build_qt_resources, build_sound_catalogue

SPLITS = ("train", "val", "test", "unseen")


@pytest.fixture(scope="module")
def shipped() -> Sources:
    return Sources()


def _used(sources: Sources, split: str) -> list[str]:
    refs = [place.ref for place in sources.backgrounds(split)] if split != "unseen" else []
    for name in sources.categories:
        refs += [*sources.images(split, name), *sources.sounds(split, name)]
    return refs


def test_no_source_is_in_two_splits(shipped: Sources) -> None:
    splits_of = defaultdict(set)
    for split in SPLITS:
        for ref in _used(shipped, split):
            kind = "sound" if ref.endswith((".ogg", ".wav", ".mp3", ".flac")) else "picture"
            splits_of[kind, source_key(ref)].add(split)
    assert not {key: found for key, found in splits_of.items() if len(found) > 1}


def test_every_reference_is_in_exactly_one_split(shipped: Sources) -> None:
    catalogue = shipped.catalogue
    everything = [place.ref for place in catalogue.backgrounds]
    for entry in catalogue.classes.values():
        everything += [*entry.images, *entry.sounds]
    used = [ref for split in SPLITS for ref in _used(shipped, split)]
    assert sorted(used) == sorted(everything)


def test_persons_are_split_by_individual(shipped: Sources) -> None:
    splits = defaultdict(set)
    for split in SPLITS:
        for ref in shipped.images(split, "person"):
            stem = ref.rsplit("/", 1)[-1]
            splits[stem.split("-")[0].rstrip("0123456789.gif")].add(split)
    assert len(splits) > 15
    assert all(len(found) == 1 for found in splits.values()), splits


def test_classes_with_one_source_are_trained_on(shipped: Sources) -> None:
    for name, entry in shipped.catalogue.classes.items():
        if name in shipped.catalogue.unseen:
            assert not any(shipped.images(split, name) for split in ("train", "val", "test"))
            assert shipped.images("unseen", name) == entry.images
        else:
            assert shipped.images("train", name)
            assert shipped.sounds("train", name)


def test_splits_are_large_enough_to_measure(shipped: Sources) -> None:
    assert len(shipped.soundable("train")) >= 55
    assert min(len(shipped.soundable(split)) for split in ("val", "test")) >= 10
    assert len(shipped.soundable("unseen")) == len(shipped.catalogue.unseen) >= 5
    for split in SPLITS:
        assert {place.setting for place in shipped.backgrounds(split)} == {"land", "street", "indoor", "water"}


def test_shipped_cutouts_and_licences_are_complete(shipped: Sources) -> None:
    refs = [ref for split in SPLITS for ref in _used(shipped, split)]
    assert {ref.partition(":")[0] for ref in refs} <= set(LICENCES)
    cutouts = [ref for ref in refs if ref.startswith("cutouts:")]
    folder = Path("avs_core/datasets/cutouts")
    listed = (folder / "SOURCES.md").read_text()
    assert {ref.partition(":")[2] for ref in cutouts} == {path.name for path in folder.glob("*.webp")}
    for ref in cutouts:
        assert ref.partition(":")[2] in listed
        assert shipped.load_image(ref)[..., 3].max() > 250


@given(st.sets(st.from_regex(r"[a-e]{2}[0-9]?", fullmatch=True), min_size=1, max_size=25), st.text(max_size=4))
def test_split_is_a_partition_that_keeps_groups_together(stems: set[str], salt: str) -> None:
    refs = sorted(f"p:/f/{stem}.png" for stem in stems)
    parts = split_by_source(salt, refs)
    assert sorted(ref for part in parts.values() for ref in part) == refs
    groups = defaultdict(set)
    for split, part in parts.items():
        for ref in part:
            groups[ref.rsplit("/", 1)[-1][:2]].add(split)
    assert all(len(found) == 1 for found in groups.values())
    assert "train" in parts
    assert (len(parts) == 1) == (len(groups) == 1)
    assert (len(parts) == 3) == (len(groups) >= 4)
    assert split_by_source(salt, list(reversed(refs))).keys() == parts.keys()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("s:/Costumes/People/cassy-dancing-1.gif", "s:/Costumes/People/cassy-phone-1.gif", True),
        ("s:/Costumes/People/dan1.gif", "s:/Costumes/People/dan6.gif", True),
        ("s:/Costumes/People/dan1.gif", "s:/Costumes/People/ed.gif", False),
        ("p:/b/basketball-court1-a.jpg", "p:/b/basketball-court1-b.jpg", True),
        ("p:/b/city-with-water.jpg", "p:/b/city-with-water2.jpg", True),
        ("p:/b/LRBark_1_LA_cut.ogg", "p:/b/LRBark_3_LA_cut.ogg", True),
        ("p:/a/dog.png", "p:/b/dog.png", False),
        ("p:/a/747.png", "p:/a/737.png", False),
        ("p:/France/contents/images/2560x1600.jpg", "p:/Path/contents/images/2560x1600.jpg", False),
    ],
)
def test_source_key(one: str, other: str, same: bool) -> None:
    assert (source_key(one) == source_key(other)) == same


def test_all_reference_forms_resolve(tmp_path: Path) -> None:
    plain = tmp_path / "pack" / "usr"
    plain.mkdir(parents=True)
    (plain / "a.txt").write_bytes(b"plain")
    rcc = tmp_path / "gcompris-qt-data/usr/share/gcompris-qt/rcc"
    rcc.mkdir(parents=True)
    (rcc / "x.rcc").write_bytes(build_qt_resources({"a.ogg": (b"inner", 1)}, 3))
    cat = tmp_path / "openttd-opensfx/usr/share/games/openttd/baseset/opensfx"
    cat.mkdir(parents=True)
    sounds = [('"Cow". By A.', b"RIFF0000"), ('"Tropical: Bird (1)". By B.', b"RIFF1111")]
    (cat / "opensfx.cat").write_bytes(build_sound_catalogue(sounds))
    sources = Sources(root=tmp_path)
    assert sources.read("pack:/usr/a.txt") == b"plain"
    assert sources.read("gcompris-qt-data:x.rcc:/d/a.ogg") == b"inner"
    assert sources.read("openttd-opensfx:01_Tropical_Bird_1_.wav") == b"RIFF1111"
    for missing in ("pack:/usr/b", "none:/a", "gcompris-qt-data:x.rcc:/d/b", "openttd-opensfx:00_Dog.wav"):
        with pytest.raises(InputError, match=missing.split(":")[0]):
            sources.read(missing)


def test_palette_pictures_keep_their_transparency(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    picture = Image.new("P", (4, 2), 1)
    picture.putpalette([0, 0, 0, 200, 10, 20])
    picture.putpixel((0, 0), 0)
    picture.save(tmp_path / "p" / "a.gif", transparency=0)
    (tmp_path / "p" / "b.gif").write_bytes(b"no picture")
    sources = Sources(root=tmp_path)
    pixels = sources.load_image("p:/a.gif")
    assert pixels.shape == (2, 4, 4)
    assert pixels[0, 0, 3] == 0
    assert tuple(pixels[1, 3]) == (200, 10, 20, 255)
    with pytest.raises(UnreadableMedia, match=r"b\.gif"):
        sources.load_image("p:/b.gif")


def test_backgrounds_are_reduced(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    Image.new("RGB", (400, 300), (9, 8, 7)).save(tmp_path / "p" / "a.png")
    assert Sources(root=tmp_path).load_background("p:/a.png", 100).shape == (75, 100, 3)


def test_sounds_become_mono_16_khz() -> None:
    stereo = np.stack([tone(440, 1.0, 44_100), tone(440, 1.0, 44_100)], 1)
    sound = decode_sound(wav_bytes(stereo, 44_100, 2), "stereo")
    assert sound.dtype == np.float32
    assert abs(len(sound) - 16_000) < 40
    peak = np.argmax(np.abs(np.fft.rfft(sound[:16_000])))
    assert abs(peak * 16_000 / len(sound[:16_000]) - 440) < 2
    assert np.abs(sound).max() == pytest.approx(0.5, abs=0.02)
    with pytest.raises(UnreadableMedia, match=r"noise\.wav"):
        decode_sound(b"no sound at all", "noise.wav")


def test_a_wrong_catalogue_names_its_field(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.json"
    path.write_text('{"classes": {}, "backgrounds": [{"ref": "a", "setting": "moon", "ground": 0.5}]}')
    with pytest.raises(ConfigError, match="setting"):
        Catalogue.load(path)


def test_cache_folder_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AVS_SOURCES", str(tmp_path / "x"))
    assert default_cache() == tmp_path / "x"
    monkeypatch.delenv("AVS_SOURCES")
    assert default_cache() == Path.home() / ".cache/avs/sources"


def test_fetching_needs_apt_only_for_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(InputError, match="apt-get"):
        fetch_packages(tmp_path)
    assert not list(tmp_path.iterdir()), "a failed download leaves nothing behind"
    for package in LICENCES:
        (tmp_path / package).mkdir()
    assert fetch_packages(tmp_path) == tmp_path


def test_a_package_that_is_another_one_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for `apt-get`, found first: what it leaves is no package, and `dpkg` never sees it."""
    script = tmp_path / "bin" / "apt-get"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho other > thing_1_all.deb\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    cache = tmp_path / "cache"
    with pytest.raises(InputError, match=r"thing=1 must have the SHA-256 00, got [0-9a-f]{64}"):
        fetch_package("thing=1", "00", cache)
    assert not list(cache.iterdir()), "a refused package leaves nothing behind"
    (cache / "thing-1").mkdir()
    assert fetch_package("thing=1", "00", cache) == cache / "thing-1"


def test_two_that_fetch_a_package_at_once_both_have_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for `apt-get` that waits until both have begun, so that neither finds the other's folder."""
    meeting, tools = tmp_path / "meeting", tmp_path / "bin"
    for folder in (meeting, tools):
        folder.mkdir()
    wait = f'for _ in $(seq 500); do [ "$(ls {meeting} | wc -l)" = 2 ] && break; sleep 0.02; done'
    scripts = {
        "apt-get": f"mktemp {meeting}/XXXXXX\n{wait}\nprintf thing > thing_1_all.deb",
        "dpkg": 'mkdir "$3"\ncp "$2" "$3/thing"',
    }
    for name, lines in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\nset -e\n{lines}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    cache, wanted = tmp_path / "cache", hashlib.sha256(b"thing").hexdigest()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(fetch_package, "thing=1", wanted, cache) for _ in range(2)]
    assert [one.result() for one in both] == [cache / "thing-1"] * 2
    assert [path.name for path in cache.iterdir()] == ["thing-1"], "nothing else is left behind"
    assert (cache / "thing-1" / "thing").read_text() == "thing"
    assert len(list(meeting.iterdir())) == 2, "both have fetched it"


@pytest.mark.slow
def test_every_real_reference_decodes() -> None:
    sources = Sources(root=fetch_packages())
    for entry in sources.catalogue.classes.values():
        for ref in entry.images:
            pixels = sources.load_image(ref)
            assert pixels[..., 3].max() > 200, ref
            assert min(pixels.shape[:2]) >= 20, ref
        for ref in entry.sounds:
            sound = sources.load_sound(ref)
            assert len(sound) > 1600, ref
            assert np.abs(sound).max() > 0.02, ref
    for place in sources.catalogue.backgrounds:
        assert max(sources.load_background(place.ref).shape) > 300, place.ref
