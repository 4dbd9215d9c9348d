"""The audio encoders that a model can hear with: ours, and those that other packages offer.

A package offers one under the entry point group `avs_core.audio_encoders`; the entry's name is the encoder's:

    [project.entry-points."avs_core.audio_encoders"]
    beats = "my_ears.beats:BEATS"

where BEATS is an `AudioEncoder`. Everything that takes the name of an encoder then takes `beats`; a bundle holds its
weights, and needs the package to be read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points

from torch import nn

from avs_core.audio import LOG_MEL, FrontEnd
from avs_core.errors import BundleError
from avs_core.models import audio_cnn, vggish, yamnet

GROUP = "avs_core.audio_encoders"


@dataclass(frozen=True)
class AudioEncoder:
    """What must be known of an audio encoder.

    kind       a module that is made without arguments, (N, …) examples → (N, `embedding`), each example on its own;
               its whole state is in its state_dict
    embedding  A, how many numbers a second becomes
    front_end  what makes the examples
    pretrain   gives a new one the weights that it was trained to elsewhere, for training; None = it starts untrained
    """

    kind: type[nn.Module]
    embedding: int
    front_end: FrontEnd = LOG_MEL
    pretrain: Callable[[nn.Module], None] | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.kind, type) and issubclass(self.kind, nn.Module)):
            raise BundleError(f"kind must be a class of torch modules, got {self.kind!r}")
        if self.embedding < 1 or not isinstance(self.front_end, FrontEnd):
            raise BundleError(
                f"embedding must be positive and front_end have `examples` and `reach` (see avs_core.audio.FrontEnd), "
                f"got {self.embedding}, {self.front_end!r}"
            )


BUILT_IN = {
    "vggish": AudioEncoder(vggish.VGGish, vggish.EMBEDDING),
    "audio_cnn": AudioEncoder(audio_cnn.AudioCNN, audio_cnn.EMBEDDING),
    "yamnet": AudioEncoder(yamnet.YAMNet, yamnet.EMBEDDING),
}


def find_audio_encoder(name: str) -> AudioEncoder:
    """The encoder of that name. Raises BundleError where none has it, two packages do, or the package's is broken."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    offered = entry_points(group=GROUP)
    found = [entry for entry in offered if entry.name == name]
    if len(found) == 1:
        return _loaded(name, found[0].value, found[0].load)
    if found:
        packages = ", ".join(sorted(entry.dist.name if entry.dist else entry.value for entry in found))
        raise BundleError(f"one package must offer audio encoder {name}, {packages} do: uninstall all but one")
    known = ", ".join(sorted({*BUILT_IN, *(entry.name for entry in offered)}))
    raise BundleError(
        f"an audio encoder must be one of {known}; got {name}: install the package that offers it under the entry "
        f"point group {GROUP}"
    )


def _loaded(name: str, value: str, load: Callable[[], object]) -> AudioEncoder:
    """What an entry point names. A package that can't be imported fails in its own way, which is kept as the cause."""
    try:
        offered = load()
    except (ImportError, AttributeError) as fault:
        raise BundleError(f"audio encoder {name} must be importable; {value} is not: {fault}") from fault
    if not isinstance(offered, AudioEncoder):
        raise BundleError(f"audio encoder {name} must be an AudioEncoder; {value} is {offered!r}")
    return offered
