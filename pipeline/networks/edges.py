"""What lies beyond the edges of an axis that is padded with its own values."""

from __future__ import annotations


def edge_indices(side: int, before: int, after: int, mode: str) -> list[int]:
    """Return which of ``side`` values stand along the padded axis, in order.

    ``before``, ``after``: how many are added, or cut off where negative; ``mode``: "circular", "replicate" or
    "reflect", which goes to and fro where more is added than there is.
    """
    if mode == "circular":  # what is cut off is not gone round
        kept = range(max(-before, 0), side - max(-after, 0))
        return [kept[place % len(kept)] for place in range(-max(before, 0), len(kept) + max(after, 0))]
    places = range(-before, side + after)
    if mode == "replicate":
        return [min(max(place, 0), side - 1) for place in places]
    period = max(2 * (side - 1), 1)
    return [side - 1 - abs(side - 1 - place % period) for place in places]
