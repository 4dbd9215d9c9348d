"""A frame that stands for several seconds, as a slide does: in which of them its rows were seen.

An archive has a frame row for each such look, and a row of an object for each look that has it, in their order and all
under the frame's one time. Rows do not tell their look.
"""

from collections.abc import Sequence


def looks_with(n_instances: Sequence[int], rows: int) -> list[int]:
    """Which looks at a frame, in their order, have an object of which there are so many rows.

    All see the same things, so one in which something sounds has a row more (object 0): where fewer have the object
    than were looks, those with most instances have it, of equal ones the earlier.
    """
    fullest = sorted(range(len(n_instances)), key=lambda at: -n_instances[at])
    return sorted(fullest[:rows])
