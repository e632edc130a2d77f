import numpy as np
import pytest

from hybrid_sweep.search.front import better_than_last, crowding_distances

INF = float("inf")


def test_crowding_distances_of_a_front_by_hand():
    # ranges 4 and 4: (3 - 0)/4 + (4 - 1)/4, and (4 - 1)/4 + (2 - 0)/4
    assert crowding_distances([(0, 4), (1, 2), (3, 1), (4, 0)]).tolist() == [INF, 1.5, 1.25, INF]


def test_crowding_does_not_depend_on_the_order_of_the_points():
    points = np.array([(3, 1), (0, 4), (4, 0), (1, 2)], dtype=float)
    assert crowding_distances(points).tolist() == [1.25, INF, INF, 1.5]


def test_equal_points_share_the_distance_of_one():
    assert crowding_distances([(0, 2), (1, 1), (1, 1), (2, 0)]).tolist() == [INF, 2.0, 2.0, INF]
    assert crowding_distances([(1, 1)] * 3).tolist() == [INF] * 3


def test_a_front_that_is_flat_in_one_objective_is_spread_in_the_other():
    assert crowding_distances([(0, 1), (1, 1), (4, 1)]).tolist() == [INF, 1.0, INF]


@pytest.mark.parametrize(
    ("last", "before_it"),
    [
        ((5, 5), 0),  # beats all
        ((2, 2), 2),  # none beats it, and only the ends of the front are less crowded
        ((0.4, 3.6), 4),  # none beats it, and all are less crowded
        ((2.9, 0.9), 4),  # one beats it
    ],
)
def test_standing_is_by_rank_and_then_by_crowding(last, before_it):
    assert better_than_last([(0, 4), (0.5, 3.5), (3, 1), (4, 0), last]) == before_it
