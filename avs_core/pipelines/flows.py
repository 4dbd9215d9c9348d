"""How rows get through the stages on the connected Ray: beside each other in packs, or alone. Only wiring is here."""

from collections.abc import Sequence
from dataclasses import replace

from avs_core.archive.schema import RunRecord
from avs_core.errors import ConfigError
from avs_core.pipelines.chain import alone_chain, outcomes, pack_blocks, watched_chain, witness
from avs_core.pipelines.model_stage import SegmentUnit, end_process
from avs_core.pipelines.packs import one_by_one, pack
from avs_core.pipelines.pools import Pool, Pools
from avs_core.pipelines.provenance import software
from avs_core.pipelines.segment_config import SegmentConfig
from avs_core.pipelines.stages import CommitUnit, DecodeUnit, ProbeVideo, Row, Stop
from avs_core.pipelines.suspects import Rows
from avs_core.pipelines.watch import StagePlan


class ProbeFlows:
    """Videos through the probe."""

    def __init__(self, config: SegmentConfig, size: int, stop: Stop, pools: Pools) -> None:
        """`size` is the side of the model's frames, pixels."""
        decode, limits = config.decode_config(size), config.decode_limits()
        self._unit_s = config.unit_length_s
        arguments = {"config": decode, "limits": limits, "unit_s": self._unit_s, "stop": stop}
        self._probe = StagePlan("probe", ProbeVideo, arguments)
        self._pool = pools.decode
        self._alone = replace(pools.decode, workers=pools.alone.workers)

    def beside(self, rows: Sequence[Row]) -> Rows:
        """As many at once as there are decoders."""
        pool = self._pool
        dataset = pack_blocks(pack(rows, self._unit_s, pool.workers))
        with witness() as seen:
            yield from outcomes(watched_chain(dataset, self._probe, seen, pool.workers, **pool.asks))

    def alone(self, rows: Sequence[Row]) -> Rows:
        """One at a time on each node."""
        return _alone(rows, [self._probe], self._alone)


class UnitFlows:
    """Units through decode, segment and commit."""

    def __init__(
        self,
        config: SegmentConfig,
        record: RunRecord,
        size: int,
        stop: Stop,
        pools: Pools,
        registry: str | None = None,
    ) -> None:
        """`size` is the side of the model's frames, pixels; `registry` where workers fetch a `models:/…`."""
        looks = config.decode_config(size, reach_of(record))
        decode = {"config": looks, "limits": config.decode_limits(), "stop": stop}
        model = {
            "model": config.model,
            "device": "cuda" if pools.segment.gpus else "cpu",
            "threshold": config.threshold,
            "mask_size": config.mask_size,
            "stop": stop,
            "registry": registry,
            "die": end_process,
        }
        commit = {"archive": config.archive, "record": record, "software": software()}
        self._decode = StagePlan("decode", DecodeUnit, decode)
        self._segment = StagePlan("segment", SegmentUnit, model)
        self._commit = StagePlan("commit", CommitUnit, commit)
        self._pools, self._unit_s = pools, config.unit_length_s

    def beside(self, rows: Sequence[Row]) -> Rows:
        """Each stage in a pool of its own, decoding beside segmenting."""
        pools = self._pools
        dataset = pack_blocks(pack(rows, self._unit_s, max(pools.decode.workers, pools.segment.workers)))
        stages = (
            (self._decode, pools.decode),
            (self._segment, pools.segment),
            (self._commit, pools.commit),
        )
        with witness() as seen:
            for plan, pool in stages:
                dataset = watched_chain(dataset, plan, seen, pool.workers, **pool.asks)
            yield from outcomes(dataset)

    def alone(self, rows: Sequence[Row]) -> Rows:
        """All stages in one worker, a row at a time on each node."""
        return _alone(rows, [self._decode, self._segment, self._commit], self._pools.alone)


def reach_of(record: RunRecord) -> tuple[int, int]:
    """The reach of the run's ear (avs_core.audio.FrontEnd); a record without one tells of an ear of one second."""
    told = record.preprocessing.get("reach", [0, 0])
    match told:
        case [int(before), int(after)]:
            return before, after
    raise ConfigError(f"a run's reach is two numbers of samples, got {told}: it is written by run_record")


def _alone(rows: Sequence[Row], plans: Sequence[StagePlan], pool: Pool) -> Rows:
    with witness() as seen:
        workers = min(pool.workers, len(rows))
        yield from outcomes(alone_chain(pack_blocks(one_by_one(rows)), plans, seen, workers, **pool.asks))
