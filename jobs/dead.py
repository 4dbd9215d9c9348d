"""`avs dead`: which videos could not be done, and why; what to do about them."""

import json as json_format
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from jobs.wording import counted

if TYPE_CHECKING:
    from avs_core.archive.layout import DeadLetter

app = App(
    name="dead",
    help="List, explain, retry and export the videos of an archive that could not be done. `avs dead ARCHIVE` lists.",
    result_action="return_value",
)


@dataclass(frozen=True)
class Choice:
    """Which dead letters.

    Parameters
    ----------
    run
        The run key, where the archive holds several runs.
    classes
        Only letters of this class, such as timeout; may be given several times.
    video
        Only letters of this video: its URI, or a unit's id.
    """

    run: str | None = None
    classes: Annotated[tuple[str, ...], Parameter(name="class")] = ()
    video: str | None = None


Chosen = Annotated[Choice, Parameter(name="*")]
Switch = Annotated[bool, Parameter(negative="")]


@app.default
@app.command(name="list")
def list_letters(archive: str, /, *, choice: Chosen = Choice(), json: Switch = False) -> int:
    """List dead letters: class, stage, attempts, video and message of each.

    Parameters
    ----------
    archive
        A folder or s3://bucket/prefix.
    json
        Print one JSON line a dead letter instead of a table.
    """
    from rich.console import Console
    from rich.table import Column, Table

    from avs_core.archive.read import letters_table

    letters = letters_table(_chosen(archive, choice)).to_pylist()
    if json:
        for letter in letters:
            print(json_format.dumps(letter))
        return 0
    # A name is folded, not cut: it is what `avs dead show` and `retry --video` take.
    wide = [Column(name, overflow="fold", ratio=1) for name in ("video", "message")]
    table = Table("class", "stage", "attempts", *wide, title=counted(len(letters), "dead letter"))
    for letter in letters:
        columns = ("error_class", "stage", "attempts", "video_uri", "message")
        table.add_row(*(str(letter[name]) for name in columns))
    Console().print(table, markup=False)
    return 0


@app.command
def show(archive: str, video: str, /, *, run: str | None = None) -> int:
    """Print the dead letters of one video whole, and what became of its file since.

    Parameters
    ----------
    archive
        A folder or s3://bucket/prefix.
    video
        The video's URI, or a unit's id.
    run
        The run key, where the archive holds several runs.
    """
    from avs_core.archive.dead import file_now

    for letter in _chosen(archive, Choice(run, (), video)):
        print(letter.model_dump_json(indent=2))
        print(f"the file now: {file_now(letter)}")
    return 0


@app.command
def retry(
    archive: str,
    /,
    *,
    choice: Chosen = Choice(),
    everything: Annotated[bool, Parameter(name="all", negative="")] = False,
) -> int:
    """Remove dead letters, so that the next `avs segment` takes their videos up.

    What killed its worker, crashed its decoder or stood still before runs alone then, after all others.

    Parameters
    ----------
    archive
        A folder or s3://bucket/prefix.
    everything
        All of them; else name a class or a video.
    """
    from avs_core.archive.dead import retry_letters
    from avs_core.errors import ConfigError

    if everything == bool(choice.classes or choice.video):
        raise ConfigError("what is retried must be named, or be everything: give --class or --video, or else --all")
    removed = retry_letters(archive, _chosen(archive, choice), choice.run)
    print(f"{counted(removed, 'dead letter')} removed" + (": the next job takes their videos up" if removed else ""))
    return 0


@app.command
def export(archive: str, path: str, /, *, choice: Chosen = Choice()) -> int:
    """Write dead letters to a file; a .txt, .csv or .parquet is a manifest that `avs segment` takes.

    Parameters
    ----------
    archive
        A folder or s3://bucket/prefix.
    path
        Where to: .csv, .parquet or .json hold all columns, .txt the videos' URIs.
    """
    from avs_core.archive.dead import export_letters

    letters = _chosen(archive, choice)
    export_letters(letters, path)
    print(f"{counted(len(letters), 'dead letter')} in {path}")
    return 0


def _chosen(archive: str, choice: Choice) -> "list[DeadLetter]":
    from avs_core.archive.dead import choose_letters

    return choose_letters(archive, choice.run, choice.classes, choice.video)


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("dead")
