"""Claims of the seed are data with their source, and nowhere near a measurement."""

from hybrid_sweep.analysis.seed_file import HORIZON_ANALYSIS, STARTING_POINTS, claims_table
from hybrid_sweep.results import ResultsFolder


def test_the_seeds_starting_points() -> None:
    rows = [(c.max_predict_steps, c.correction_interval, c.speedup, c.quality) for c in STARTING_POINTS]
    assert rows == [(50, 0, 3.5, 0.995), (50, 10, 3.8, 0.997), (75, 15, 4.5, 0.999), (100, 20, 5.0, 0.995),
                    (150, 25, 5.5, 0.990)]  # fmt: skip
    assert {claim.source for claim in STARTING_POINTS + HORIZON_ANALYSIS} == {"seed (claimed)"}


def test_the_two_tables_disagree_as_in_the_seed() -> None:
    first = {(c.max_predict_steps, c.correction_interval): (c.speedup, c.quality) for c in STARTING_POINTS}
    second = {(c.max_predict_steps, c.correction_interval): (c.speedup, c.quality) for c in HORIZON_ANALYSIS}
    differing = {key for key in first if first[key] != second[key]}
    assert differing == {(100, 20), (150, 25)}
    assert [claim.backward_pct for claim in HORIZON_ANALYSIS] == [44, 29, 29, 22, 17, 12]


def test_no_file_of_a_sweep_holds_a_claim(grid60: ResultsFolder) -> None:
    for path in [*grid60.path.glob("*.csv"), *grid60.path.glob("*.json")]:
        assert "claimed" not in path.read_text()


def test_what_is_claimed_stands_beside_what_was_measured(grid60: ResultsFolder) -> None:
    table = grid60.table("claims")
    trials = grid60.trials().set_index("trial_id")
    assert set(table["claimed_in"]) == {"starting points", "horizon analysis"}
    best = table[(table["trial_id"] == "H075_I15_C0.60") & (table["claimed_in"] == "horizon analysis")].iloc[
        0
    ]
    assert (best["claimed_speedup"], best["claimed_quality"], best["claimed_backward_pct"]) == (
        4.5,
        0.999,
        22,
    )
    assert best["speedup"] == trials.loc["H075_I15_C0.60", "speedup"]
    assert best["backward_pct"] == 100 - trials.loc["H075_I15_C0.60", "backward_reduction_pct"]
    assert "What the original design claims" in grid60.report_path.read_text()
    other = grid60.trials().assign(max_predict_steps=33)
    assert claims_table(other).empty  # no configuration of a claim
