"""What the faults of a test run cost: a table at its end, a line for each test that disturbed something."""

from dataclasses import dataclass

import pytest

COLUMNS = ("fault", "injected", "survived", "time lost, s")


@dataclass
class Toll:
    """One kind of fault: how often it struck, whether the archive was the undisturbed one in the end, what it cost.

    `lost_s` is the time of the disturbed job and of those that ended its work, less that of an undisturbed one.
    """

    fault: str
    injected: int = 0
    survived: bool = False
    lost_s: float | None = None

    def cells(self) -> tuple[str, str, str, str]:
        """As the table shows it."""
        lost = "" if self.lost_s is None else f"{self.lost_s:.0f}"
        return self.fault, str(self.injected), "yes" if self.survived else "NO", lost


_TOLLS = pytest.StashKey[list[Toll]]()


@pytest.fixture
def toll(request: pytest.FixtureRequest) -> Toll:
    """To be filled in by the test."""
    made = Toll(request.node.name.removeprefix("test_").replace("_", " "))
    request.config.stash.setdefault(_TOLLS, []).append(made)
    return made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table, if any test has a line for it."""
    tolls = config.stash.get(_TOLLS, [])
    if not tolls:
        return
    rows = [COLUMNS, *(toll.cells() for toll in tolls)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    terminalreporter.section("faults injected")
    for row in rows:
        cells = (
            cell.ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        terminalreporter.write_line("  ".join(cells).rstrip())
    survived = sum(toll.survived for toll in tolls)
    injected = sum(toll.injected for toll in tolls)
    lost = sum(toll.lost_s or 0.0 for toll in tolls)
    terminalreporter.write_line(
        f"{injected} faults of {len(tolls)} kinds injected, {survived} kinds survived, {lost:.0f} s lost"
    )
