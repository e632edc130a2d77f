"""Non-dominated ranks and crowding; both objectives maximised."""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray


def crowding_distances(points: ArrayLike) -> NDArray[np.float64]:
    """Return the crowding distance of each point of one front (Deb et al., 2002, section III-B).

    In each objective the distance between the neighbours on both sides over the range, infinite at the
    ends; summed. Equal points share the distance that one of them alone would have.

    Args:
        points: shape (n, objectives).
    """
    distinct, place = np.unique(np.asarray(points, dtype=np.float64), axis=0, return_inverse=True)
    distances = np.zeros(len(distinct))
    for values in distinct.T:
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        distances[order[[0, -1]]] = np.inf
        if ordered[-1] > ordered[0]:
            distances[order[1:-1]] += (ordered[2:] - ordered[:-2]) / (ordered[-1] - ordered[0])
    return distances[place.reshape(-1)]


def better_than_last(points: ArrayLike) -> int:
    """Return how many points stand before the last one: a lower rank, or the same one and less crowded.

    Args:
        points: shape (n, 2).
    """
    values = np.asarray(points, dtype=np.float64)
    ranks = moocore.pareto_rank(values, maximise=True)
    distances = crowding_distances(values[ranks == ranks[-1]])
    return int((ranks < ranks[-1]).sum() + (distances > distances[-1]).sum())
