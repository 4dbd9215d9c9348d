"""Every error this project raises on purpose.

    AvsError
    ├── UsageError              the caller asked for something impossible (exit code 2)
    │   ├── ConfigError         a setting is out of range or contradicts another
    │   └── InputError          an input names nothing, or its scheme is not allowed
    ├── MediaError              one file is at fault: it becomes a dead letter, the job goes on
    │   ├── UnreadableMedia     not a media file, or its header is damaged
    │   ├── NoVideoStream       readable, but nothing to look at
    │   ├── NoAudioStream       no sound, and the policy says that is fatal
    │   ├── TruncatedMedia      ends before its own header says it should
    │   ├── CorruptMedia        packets in the middle cannot be decoded
    │   ├── MediaTooLarge       dimensions or memory beyond the limit
    │   ├── DecodeTimeout       the wall-time or no-progress limit passed
    │   ├── DecoderCrashed      the decoding process died (signal, out of memory)
    │   ├── WorkerCrashed       the worker itself died of this file, also when it ran alone
    │   ├── NonFiniteOutput     the model's output for this file holds NaN or infinity
    │   └── MediaDenied         the store refuses to show this file, or it has vanished
    ├── ClusterUnavailable      Ray does not start on this machine, or does not answer at its address
    ├── DecoderUnavailable      the decoding process can't start on this machine: no file is to blame
    ├── WorkerUnavailable       the workers of a stage die before they take up anything: no file is to blame
    ├── StorageError            an object store or disk failed
    │   ├── NotFound            certainly not there
    │   ├── AlreadyExists       certainly not applied: the key was taken (put-if-absent)
    │   ├── AccessDenied        certainly not applied: credentials or permissions
    │   ├── NotApplied          certainly not applied: refused before it took effect
    │   ├── OutcomeUnknown      the connection broke: it may or may not have been applied
    │   └── UnsafeStore         the store lets two writers take one key
    ├── ArchiveError            the archive contradicts itself or us
    │   ├── CommitConflict      another writer committed different content for the same unit
    │   ├── LeaseHeld           another job is at work on the archive (exit code 4)
    │   └── CorruptArchive      a committed file is missing or its bytes differ
    ├── ModelError              a bundle or checkpoint cannot be used
    │   ├── BundleError         a bundle folder is incomplete or disagrees with itself
    │   └── CheckpointMismatch  published weights with unknown, missing or misshapen keys
    ├── DataError               a data set's files are missing, broken or contradict each other
    ├── TrainingError           training cannot go on (NaN loss, empty split)
    ├── TooManyDeadLetters      the share of dead videos passed the job's limit
    └── StoppedEarly            what was in work took longer than the grace after a stop (exit code 5)

A message states the rule, the value seen and the way out. Only a `MediaError` is caught per video.
"""

from typing import ClassVar


class AvsError(Exception):
    """Root of the tree."""


class UsageError(AvsError):
    """The caller asked for something impossible."""


class ConfigError(UsageError):
    """A setting is out of range or contradicts another."""


class InputError(UsageError):
    """An input names nothing, or its scheme is not allowed."""


class MediaError(AvsError):
    """One file is at fault.

    dead_class    names the fault in the archive's dead letters
    by_decoder    another version of the decoder may judge otherwise: its letters are then tried again
    by_store      the store may judge otherwise at any time: every job tries its letters again
    by_neighbour  what ran beside may be the cause: the file is tried again alone before it is blamed
    """

    dead_class: ClassVar[str] = "media"
    by_decoder: ClassVar[bool] = True
    by_store: ClassVar[bool] = False
    by_neighbour: ClassVar[bool] = False


class UnreadableMedia(MediaError):
    """Not a media file, or its header is damaged."""

    dead_class = "unreadable"


class NoVideoStream(MediaError):
    """Readable, but there is nothing to look at."""

    dead_class = "no_video_stream"


class NoAudioStream(MediaError):
    """No sound, and the policy says that is fatal."""

    dead_class = "no_audio_stream"


class TruncatedMedia(MediaError):
    """The file ends before its own header says it should."""

    dead_class = "truncated"


class CorruptMedia(MediaError):
    """Packets in the middle of the file cannot be decoded."""

    dead_class = "corrupt"


class MediaTooLarge(MediaError):
    """Dimensions or memory beyond the limit."""

    dead_class = "too_large"


class DecodeTimeout(MediaError):
    """The wall-time or no-progress limit of the decoding process passed."""

    dead_class = "timeout"
    by_neighbour = True


class DecoderCrashed(MediaError):
    """The decoding process died: a signal, or out of memory."""

    dead_class = "decoder_crash"
    by_neighbour = True


class WorkerCrashed(MediaError):
    """The worker itself died of this file, also when it ran alone."""

    dead_class = "worker_crash"
    by_decoder = False
    by_neighbour = True


class NonFiniteOutput(MediaError):
    """The model's output for this file holds NaN or infinity."""

    dead_class = "nan"
    by_decoder = False


class MediaDenied(MediaError):
    """The store refuses to show this file, or it vanished after it was listed."""

    dead_class = "denied"
    by_decoder = False
    by_store = True


DEAD_CLASSES = {kind.dead_class: kind for kind in MediaError.__subclasses__()}
"""The classes of dead letters."""


class DecoderUnavailable(AvsError):
    """The decoding process can't start on this machine: no file is to blame."""


class WorkerUnavailable(AvsError):
    """The workers of a stage die again and again before they take up anything: no file is to blame."""


class ClusterUnavailable(AvsError):
    """Ray does not start on this machine, or does not answer at its address."""


class ClusterShrank(AvsError):
    """A node was lost, no other came, and what is left of the cluster does not get on."""


class StorageError(AvsError):
    """An object store or disk failed."""


class NotFound(StorageError):
    """The object is certainly not there."""


class AlreadyExists(StorageError):
    """Certainly not applied: the key of a put-if-absent was taken."""


class AccessDenied(StorageError):
    """Certainly not applied: credentials or permissions."""


class NotApplied(StorageError):
    """Certainly not applied: the store refused before the write took effect."""


class OutcomeUnknown(StorageError):
    """The connection broke: the write may or may not have been applied."""


class UnsafeStore(StorageError):
    """The store ignores the condition of a put-if-absent: two writers could take one key."""


class ArchiveError(AvsError):
    """The archive contradicts itself or us."""


class CommitConflict(ArchiveError):
    """Another writer committed different content for the same unit."""


class LeaseHeld(ArchiveError):
    """Another job is at work on the archive."""


class CorruptArchive(ArchiveError):
    """A committed file is missing or its bytes differ."""


class ModelError(AvsError):
    """A bundle or checkpoint cannot be used."""


class BundleError(ModelError):
    """A bundle folder is incomplete or disagrees with itself."""


class CheckpointMismatch(ModelError):
    """Published weights with unknown, missing or misshapen keys."""


class DataError(AvsError):
    """A data set's files are missing, broken or contradict each other."""


class TrainingError(AvsError):
    """Training cannot go on: a NaN loss, an empty split."""


class TooManyDeadLetters(AvsError):
    """The share of dead videos passed the job's limit."""


class StoppedEarly(AvsError):
    """A job was told to stop, and what it had in work took longer than its grace."""
