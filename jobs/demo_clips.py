"""`python -m jobs.demo_clips`: render the demo clips anew from the source packages."""

from pathlib import Path


def demo_clips(*, out: Path = Path("avs_core/builtin/demo"), sources: Path | None = None) -> int:
    """Fetch the source packages where they are missing and render the demo clips.

    Exit code 0 when all are written.

    Parameters
    ----------
    out
        Folder for the clips, truth.json and SOURCES.md.
    sources
        Where packages are unpacked (default: AVS_SOURCES, or ~/.cache/avs/sources).
    """
    from avs_core.datasets.demo import write_demo
    from avs_core.datasets.sources import Sources, fetch_packages

    truth = write_demo(Sources(root=fetch_packages(sources)), out)
    print(f"{len(truth)} clips in {out}")
    return 0


if __name__ == "__main__":
    import cyclopts

    cyclopts.run(demo_clips)
