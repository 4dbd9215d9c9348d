"""How rows get through the stages on the connected Ray: beside each other in packs, or alone. Only wiring is here."""

from collections.abc import Iterable, Iterator, Sequence

from avs_core.archive.schema import RunRecord
from avs_core.pipelines.chain import alone_chain, outcomes, pack_blocks, watched_chain, witness
from avs_core.pipelines.cluster import Pools
from avs_core.pipelines.model_stage import SegmentUnit
from avs_core.pipelines.packs import one_by_one, pack
from avs_core.pipelines.provenance import software
from avs_core.pipelines.segment_config import SegmentConfig
from avs_core.pipelines.stages import CommitUnit, DecodeUnit, ProbeVideo, Row, Stop
from avs_core.pipelines.watch import StagePlan


class ProbeFlows:
    """Videos through the probe."""

    def __init__(self, config: SegmentConfig, size: int, stop: Stop, pools: Pools) -> None:
        """`size` is the side of the model's frames, pixels."""
        decode, limits = config.decode_config(size), config.decode_limits()
        self._unit_s = config.unit_length_s
        arguments = {"config": decode, "limits": limits, "unit_s": self._unit_s, "stop": stop}
        self._probe = StagePlan("probe", ProbeVideo, arguments)
        self._pools = pools

    def beside(self, rows: Sequence[Row]) -> Iterator[Row]:
        """As many at once as there are decoders."""
        return self._through(self._pools.decoders, pack(rows, self._unit_s, self._pools.decoders))

    def alone(self, rows: Sequence[Row]) -> Iterator[Row]:
        """One after the other."""
        return self._through(1, one_by_one(rows))

    def _through(self, pool: int, packs: Iterable[list[Row]]) -> Iterator[Row]:
        with witness() as seen:
            cpus = self._pools.cpus("decode")
            yield from outcomes(watched_chain(pack_blocks(packs), self._probe, seen, pool, num_cpus=cpus))


class UnitFlows:
    """Units through decode, segment and commit."""

    def __init__(self, config: SegmentConfig, record: RunRecord, size: int, stop: Stop, pools: Pools) -> None:
        """`size` is the side of the model's frames, pixels."""
        decode = {"config": config.decode_config(size), "limits": config.decode_limits(), "stop": stop}
        model = {
            "model": config.model,
            "device": "cuda" if pools.gpus_per_segmenter else "cpu",
            "threshold": config.threshold,
            "mask_size": config.mask_size,
            "stop": stop,
        }
        commit = {"archive": config.archive, "record": record, "software": software()}
        self._decode = StagePlan("decode", DecodeUnit, decode)
        self._segment = StagePlan("segment", SegmentUnit, model)
        self._commit = StagePlan("commit", CommitUnit, commit)
        self._pools, self._unit_s = pools, config.unit_length_s

    def beside(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Each stage in a pool of its own, decoding beside segmenting."""
        pools = self._pools
        dataset = pack_blocks(pack(rows, self._unit_s, max(pools.decoders, pools.segmenters)))
        stages = (
            (self._decode, pools.decoders, 0.0),
            (self._segment, pools.segmenters, pools.gpus_per_segmenter),
            (self._commit, 1, 0.0),
        )
        with witness() as seen:
            for plan, pool, gpus in stages:
                dataset = watched_chain(dataset, plan, seen, pool, num_cpus=pools.cpus(plan.name), num_gpus=gpus)
            yield from outcomes(dataset)

    def alone(self, rows: Sequence[Row]) -> Iterator[Row]:
        """All stages in one worker, a row at a time; it asks for what a segmenter does: nothing runs beside it."""
        plans = (self._decode, self._segment, self._commit)
        cpus, gpus = self._pools.cpus("segment"), self._pools.gpus_per_segmenter
        with witness() as seen:
            dataset = alone_chain(pack_blocks(one_by_one(rows)), plans, seen, num_cpus=cpus, num_gpus=gpus)
            yield from outcomes(dataset)
