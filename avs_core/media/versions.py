"""Which decoders are installed: what a dead letter says about who judged."""

from importlib.metadata import PackageNotFoundError, version

import av


def decoder_versions() -> str:
    """Such as "pyav 18.1.0, libavcodec 62.28.102, libavformat 62.12.102, decord 0.6.0"."""
    libraries = {name: ".".join(map(str, av.library_versions[name])) for name in ("libavcodec", "libavformat")}
    try:
        libraries["decord"] = version("decord")
    except PackageNotFoundError:
        libraries["decord"] = "none"
    return ", ".join(f"{name} {number}" for name, number in {"pyav": av.__version__, **libraries}.items())
