"""The main job as a user runs it: segment, under a tracking run, with a page to look at in the end."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from avs_core import storage
from avs_core.archive.current import current, keep_current
from avs_core.archive.findings import Finding, findings
from avs_core.archive.read import dead_letters
from avs_core.archive.schema import RunRecord, run_key
from avs_core.archive.versions import as_versions
from avs_core.clip import Unit, VideoRef
from avs_core.errors import DecoderUnavailable, MediaError, StorageError
from avs_core.media.decode import GuardedDecoder
from avs_core.models.bundle import is_builtin, load_bundle
from avs_core.pipelines.brake import Brake
from avs_core.pipelines.inputs import find_videos
from avs_core.pipelines.job_config import JobConfig
from avs_core.pipelines.progress import Progress
from avs_core.pipelines.provenance import provenance
from avs_core.pipelines.segment import SegmentResult, frame_size, run_record, segment
from avs_core.pipelines.segment_config import SegmentConfig
from avs_core.pipelines.totals import check_dead_share
from avs_core.report.page import ReportFacts, VideoSection, join, read_rows, write_page
from avs_core.tracking import NullRun, Tracker, fetch_model, finishing, resolve_model, start_run

LOG = logging.getLogger(__name__)

FOUND = 200
"""Videos of which it is told, in the end, what was found in them."""

PAGE_SECONDS = 60
"""How much of a video the page decodes for its pictures, at a frame a second; of more frames a second less."""


@dataclass(frozen=True)
class DoneJob:
    """What a job did, and where to look at it: `findings` of the first of its videos.

    `page` and `run_url` are None where they were switched off. `shown` is the run that readers get.
    """

    result: SegmentResult
    videos: Sequence[VideoRef]
    findings: tuple[Finding, ...]
    page: Path | None
    run_url: str | None
    shown: str


def run_main_job(
    inputs: Iterable[str],
    config: SegmentConfig,
    job: JobConfig,
    brake: Brake | None = None,
) -> DoneJob:
    """Segment what the inputs name; log the run; write the page. Raises what `segment` raises.

    A run beside another one takes no readers away from it: they get it once somebody, or a scheduled job, chooses it.
    """
    inputs, out = list(inputs), Path(job.out)
    listed = find_videos(inputs)
    handed = handed_on(config.model, job.tracking_uri, out)
    config = config.model_copy(update={"model": handed.model})
    bundle = load_bundle(resolve_model(config.model, handed.registry))
    record = run_record(config, bundle)
    videos = as_versions(config.archive, run_key(record), listed)
    keep_current(config.archive, run_key(record))
    with _tracked(job, out, config, record, inputs) as tracker:
        result = segment(videos, config, record, tracker, Progress(), brake, registry=handed.registry)
        found = findings(config.archive, result.run_key, videos[: max(FOUND, job.report_videos)])
        hurried = brake is not None and brake.reason  # its grace is for what is in work, and for the readers
        if job.report and hurried:
            LOG.info("no page: the job is to stop; the run that does the rest writes one")
        page = _page(videos, found, result, config, job, record) if job.report and not hurried else None
        _log_artefacts(tracker, config, result, page)
    check_dead_share(result.dead, result.videos, config)
    chosen = current(config.archive)
    shown = result.run_key if chosen is None else chosen.run_key
    return DoneJob(result, videos, tuple(found), page, tracker.run_url, shown)


@dataclass(frozen=True)
class Handed:
    """What workers load, and the registry they ask for it (None: the one of their environment)."""

    model: str
    registry: str | None = None


def handed_on(model: str, tracking_uri: str | None, out: Path) -> Handed:
    """A model that can't change during the job, wherever it is loaded: an alias becomes the version that it names now.

    A folder gets its whole path: workers of a Ray that was started elsewhere have another working directory.
    From a tracking server, or where the workers' environment names the store too, they fetch that version themselves:
    other nodes lack this one's folders. Otherwise the registry is a file of this machine, and they get the folder it
    was fetched to.
    """
    if not model.startswith("models:"):
        return Handed(model if is_builtin(model) else storage.normalise(model))
    found = fetch_model(model, tracking_uri=tracking_uri, default_store=out)
    address = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if address.lower().startswith(("http://", "https://")):
        return Handed(found.uri, address)
    return Handed(str(found.folder) if tracking_uri or not address else found.uri)


@contextmanager
def _tracked(
    job: JobConfig, out: Path, config: SegmentConfig, record: RunRecord, inputs: list[str]
) -> Iterator[Tracker]:
    """A tracking run around the block, which ends as the block ends."""
    if not job.tracking:
        yield NullRun()
        return
    with finishing(start_run(job.experiment, f"segment {record.model}", out, job.tracking_uri)) as tracker:
        tracker.set_tags(provenance())
        tracker.log_params({"segment": config.model_dump(mode="json"), "run_key": run_key(record), "inputs": inputs})
        tracker.log_params({"record": record.model_dump(mode="json")})
        yield tracker


def _page(
    videos: Sequence[VideoRef],
    found: Sequence[Finding],
    result: SegmentResult,
    config: SegmentConfig,
    job: JobConfig,
    record: RunRecord,
) -> Path:
    """The page of the first videos that were looked at."""
    done = {finding.uri for finding in found if finding.frames}
    shown = [video for video in videos if video.uri in done][: job.report_videos]
    facts = ReportFacts(
        title="What sounds",
        archive=result.archive,
        run_key=result.run_key,
        model=record.model,
        weights_sha256=record.weights_sha256,
        videos=result.videos,
        video_seconds=result.video_seconds,
        frames=result.frames,
        instances=result.instances,
        dead=result.dead,
        seconds=result.seconds,
        settings=config.model_dump(mode="json"),
        pending=result.pending,
        videos_left_out=max(0, result.videos - len(found)) + len(done) - len(shown),
    )
    path = Path(job.out).absolute() / f"report-{result.run_key}.html"
    letters = dead_letters(config.archive, result.run_key)
    write_page(path, facts, _sections(shown, config, record, result.run_key), found, letters)
    return path


def _sections(shown: Sequence[VideoRef], config: SegmentConfig, record: RunRecord, key: str) -> list[VideoSection]:
    """Decode the first seconds of each video once more, for its pictures."""
    sections, rows = [], read_rows(config.archive, key, [video.uri for video in shown])
    with GuardedDecoder(config.decode_config(frame_size(record)), config.decode_limits()) as decoder:
        for video in shown:
            try:
                seconds = min(decoder.probe(video.uri).seconds, max(1, PAGE_SECONDS // config.rate))
                clip = decoder.decode(Unit(video, 0, seconds))
            except (MediaError, StorageError, DecoderUnavailable) as fault:
                LOG.warning("no pictures on the page of %s: %s", video.uri, fault)
                continue
            sections.append(join(video.uri, rows[video.uri], clip, 0.0))
    return sections


def _log_artefacts(tracker: Tracker, config: SegmentConfig, result: SegmentResult, page: Path | None) -> None:
    if page is not None:
        tracker.log_file(page, "report.html")
    letters = dead_letters(config.archive, result.run_key)
    tracker.log_table(letters.to_pylist(), "dead_letters.json")
    counts = Counter(letters.column("error_class").to_pylist())
    tracker.log_metrics({f"dead.{name}": count for name, count in counts.items()}, step=0)
