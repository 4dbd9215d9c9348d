"""The `avs` command: gathers the verbs and turns errors into exit codes.

Exit codes: 0 done · 1 failed · 2 wrong usage · 3 done, but some videos are dead letters · 4 another job is at work ·
5 stopped before the end, or readers do not get the new run yet · 130 interrupted · 141 whoever read the output left.
With `--json`, what ends in an error ends in a line of JSON too: `{"error": …, "message": …, "exit_code": …}`.
"""

import json
import logging
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from rich.console import Console
from rich.logging import RichHandler

from avs_core.errors import AvsError, InputError, LeaseHeld, StoppedEarly, UsageError

if TYPE_CHECKING:
    from avs_core.pipelines.segment import SegmentResult

DONE, FAILED, USAGE, DONE_WITH_DEAD, BUSY, STOPPED, INTERRUPTED, UNREAD = 0, 1, 2, 3, 4, 5, 130, 141

ERRORS = Console(stderr=True)

app = App(
    name="avs",
    version=lambda: version("avs-on-ray"),
    help="Finds what is making the sound in large video archives, pixel by pixel.",
    console=Console(),
    error_console=ERRORS,
    result_action="return_value",
    default_parameter=Parameter(negative_iterable=()),
)
app.meta.suppress_keyboard_interrupt = app.suppress_keyboard_interrupt = False  # `main` says what stays

# Named by their place, so that no verb loads what another one needs.
for verb, about in {
    "segment": "Segment what sounds in videos, into a Parquet mask archive.",
    "demo": "The main job on the clips that come with the package.",
    "plan": "Say what is left to do, and what it will take; nothing is done.",
    "reprocess": "The main job on a schedule: one at a time, and readers change over when a new run is ready.",
    "status": "How far each run of an archive is, and who is at work.",
    "verify": "Check every commit of an archive against its files.",
    "compact": "Merge the files of finished videos into few large ones.",
    "gc": "Remove what no snapshot and no commit of an archive needs.",
    "snapshots": "List the states of an archive that can be read.",
    "doctor": "Is the cluster fit for work, and what is to be changed?",
    "train": "Train a named recipe and write its bundle.",
    "evaluate": "Measure a bundle, or a mask archive, against the truth; does it listen?",
}.items():
    app.command(f"jobs.{verb}:{verb}", name=verb, help=about)
app.command("jobs.dead:app", name="dead", help="The videos of an archive that could not be done: why, and what now.")
app.command("jobs.models:app", name="models", help="List, explain and import model bundles.")
app.command("jobs.runs:app", name="runs", help="List an archive's runs, choose the current one, remove one.")
app.command("jobs.data:app", name="data", help="Check a copy of a data set.")
app.command("jobs.benchmark:app", name="benchmark", help="Build the composite benchmark.")


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[Path | None, Parameter(help="YAML file: the flags of each verb, under the verb's name.")] = None,
    verbose: Annotated[bool, Parameter(help="Say more of what happens.")] = False,
) -> int:
    """Read the global flags, then run the verb."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=ERRORS, show_path=False, markup=False)],
    )
    logging.getLogger("avs_core").setLevel(logging.DEBUG if verbose else logging.INFO)
    if config is not None:
        if not config.exists() or config.is_dir():
            raise InputError(f"--config must name a YAML file; there is none at {config}")
        app.config = (Yaml(config, must_exist=True, use_commands_as_keys=True),)
    code = app(tokens, exit_on_error=False, print_error=False)
    return code if isinstance(code, int) else DONE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    app.config = ()  # that of an earlier call in this process
    try:
        code = app.meta(arguments, exit_on_error=False, print_error=False)
        return code if isinstance(code, int) else DONE
    except (CycloptsError, AvsError) as error:
        ended = _Ended(type(error).__name__, _said(error), _code_of(error))
    except KeyboardInterrupt:
        ended = _Ended("interrupted", "what was committed stays; the same command goes on from there", INTERRUPTED)
    except Exception as error:  # a fault of ours, of Ray or of the machine: machines must hear of it too
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            raise
        traceback.print_exc()
        ended = _Ended(type(error).__name__, str(error), FAILED)
    ended.say("--json" in (sys.argv[1:] if arguments is None else arguments))
    return ended.exit_code


def _said(error: Exception) -> str:
    """What an error says; of settings that can't be, each by its flag, with its rule and the value seen."""
    if isinstance(error, CycloptsError) and isinstance(refused := error.__cause__, ValidationError):
        return "\n".join(map(_refused, refused.errors(include_url=False)))
    # pydantic ends each of its messages with an address that helps nobody here.
    lines = [line for line in str(error).splitlines() if not line.strip().startswith("For further information")]
    return "\n".join(lines)


def _refused(one: ErrorDetails) -> str:
    names = list(takewhile(lambda part: isinstance(part, str), one["loc"]))  # a number is a place in a list of values
    flag = f"--{'.'.join(map(str, names)).replace('_', '-')}: " if names else ""
    if one["type"] == "value_error":  # one of ours, which names the value itself
        return f"{flag}{one['msg'].removeprefix('Value error, ')}"
    return f"{flag}{one['msg']}, got {one['input']!r}"


def _nobody_reads() -> bool:
    """Whether whoever read the output left. A pipe that breaks elsewhere is a fault like any other."""
    try:
        (poll := select.poll()).register(sys.stdout.fileno(), 0)
    except (OSError, ValueError, AttributeError):  # no pipe, closed, or none at all
        return False
    return bool(poll.poll(0))


def _code_of(error: Exception) -> int:
    if isinstance(error, CycloptsError | UsageError):
        return USAGE
    if isinstance(error, LeaseHeld):
        return BUSY
    return STOPPED if isinstance(error, StoppedEarly) else FAILED


@dataclass(frozen=True)
class _Ended:
    """How a command ended that did not come to its end."""

    error: str
    message: str
    exit_code: int

    def say(self, to_machines: bool) -> None:
        """To people on standard error, and to machines in a line of JSON on standard output."""
        ERRORS.print(f"{self.error}: ", end="", style="red")
        ERRORS.print(self.message, markup=False, highlight=False, soft_wrap=True)
        if to_machines:
            print(json.dumps(asdict(self)))


def exit_code(result: "SegmentResult") -> int:
    """What a scheduler may act on."""
    if result.failed:
        return FAILED
    if result.left:
        return STOPPED
    return DONE_WITH_DEAD if result.dead else DONE


def run() -> None:
    """The console script."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # as `head` does; what is still in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = UNREAD
    sys.exit(code)


def run_verb(name: str) -> None:
    """`python -m jobs.<name>`: the same as `avs <name>`, for `ray job submit`."""
    sys.exit(main([name, *sys.argv[1:]]))


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    run()
