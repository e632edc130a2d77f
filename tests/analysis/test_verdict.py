"""Golden verdicts: what a user reads in each case, word for word where it matters."""

import json
import tomllib
from dataclasses import replace

import pandas as pd
import pytest

from hybrid_sweep.analysis.comparison import Confirmation
from hybrid_sweep.analysis.pareto import Rival
from hybrid_sweep.analysis.verdict import verdict
from hybrid_sweep.trainer.config import HybridConfig

CONFIG = HybridConfig(max_predict_steps=100, confidence_threshold=0.6)
FRONT = pd.DataFrame(
    {"trial_id": ["H100", "H050"], "speedup": [4.2, 2.1], "quality": [1.07, 1.1], "config": CONFIG.to_json()}
)
WHAT = {
    "reference": "your recipe",
    "lr_matched": "the same recipe at learning rate 0.045 where the jumps were",
    "tuned": "SGD at learning rate 0.2, Nesterov momentum 0.93, weight decay 1e-05, linear decay to 0",
}
WIN, EQUAL, LOSS, WIDE = (4.1, 3.9, 4.3), (1.02, 0.97, 1.06), (0.5, 0.45, 0.6), (1.3, 0.8, 2.2)


def row(
    arm,
    speed,
    quality=(1.05, 1.02, 1.08),
    trial_id="H100",
    reached=5,
    hybrid_reached=5,
    as_long=(1.03, 1.01, 1.05),
):
    values = {"trial_id": trial_id, "arm": arm, "what": WHAT[arm], "seeds": 5, "reached": reached}
    values |= {
        "backward_calls": 850,
        "hybrid_reached": hybrid_reached,
        "outermost": "",
        "at_least": reached < 5 and hybrid_reached == 5,
    }
    named = {"speedup_to_target": speed, "speedup_whole_run": (3.4, 3.3, 3.5), "quality": quality}
    named |= {"val_quality": (1.04, 1.0, 1.08), "equal_time_quality": as_long}
    for name, (value, low, high) in named.items():
        values |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return {**values, "explored_speedup": 4.2, "explored_quality": 1.07}


def confirmed(*rows):
    seeds = [1, 2, 3, 4, 5]
    return Confirmation(
        seeds=seeds,
        min_quality=0.98,
        left_out=["H050"],
        tried=40,
        configurations=40,
        table=pd.DataFrame(rows),
    )


def of(recipe=WIN, matched=WIN, tuned=WIN, **changes):
    rows = row("reference", recipe, **changes), row("lr_matched", matched), row("tuned", tuned)
    return verdict(FRONT, confirmed(*rows), folder="DIR")


def test_not_confirmed_yet():
    found = verdict(FRONT, None, folder="my results")
    assert found.recommendation == "CONFIRM FIRST"
    assert found.text == (
        "H100 looks 4.20× as fast as your recipe at quality 1.070, on the seeds that chose it, which "
        "flatters. Nothing is known yet of a larger learning rate or a tuned baseline. "
        "Run: hybrid-sweep confirm 'my results'"
    )
    assert found.settings == ""


RIVAL = Rival("lr_x4.5_2m", "lr", 4.5, 1.2)


def test_what_the_sweep_has_compared_is_known():
    found = verdict(FRONT, None, folder="DIR", compared={"lr_matched", "truncated"})
    assert (
        "a larger learning rate does not beat it on both axes. Nothing is known yet of a tuned" in found.text
    )
    found = verdict(FRONT, None, folder="DIR", compared={"lr", "tuned"})
    assert "neither a larger learning rate nor a tuned baseline beats it on both axes. Run" in found.text


def test_a_control_of_the_sweep_that_beats_every_good_point_is_recommended_instead():
    found = verdict(FRONT, None, folder="DIR", beaten={"H100": RIVAL, "H050": RIVAL}, compared={"lr"})
    assert found.recommendation == "REJECT: lr"
    assert found.text.endswith(
        "On the same seeds the larger learning rate (lr_x4.5_2m) beats it on both axes without prediction, "
        "4.50× at quality 1.200: raise the learning rate instead. "
        "Run: hybrid-sweep confirm DIR"
    )
    assert found.advice[0] == "Raise the learning rate instead: lr_x4.5_2m needs no prediction"
    assert "Nothing is known" not in found.text


def test_a_point_that_no_control_beats_is_judged_before_a_faster_one():
    found = verdict(FRONT, None, folder="DIR", beaten={"H100": RIVAL}, compared={"lr"})
    assert (found.trial_id, found.recommendation) == ("H050", "CONFIRM FIRST")


def test_a_control_that_beats_a_confirmed_point_is_to_be_confirmed_too():
    rows = row("reference", WIN), row("lr_matched", WIN), row("tuned", WIN)
    both = {"H100": RIVAL, "H050": RIVAL}
    found = verdict(FRONT, confirmed(*rows), folder="DIR", beaten=both)
    assert found.recommendation == "CONFIRM FIRST: lr"
    assert found.text.endswith("and it was not confirmed. Run: hybrid-sweep confirm DIR --arms full")
    assert found.settings == ""
    twin = dict.fromkeys(both, Rival("lr_matched", "lr_matched", 4.2, 1.2))
    assert verdict(FRONT, confirmed(*rows), folder="DIR", beaten=twin).recommendation == "ADOPT"


def test_a_win_over_all_names_the_settings_to_copy():
    found = of()
    assert found.recommendation == "ADOPT"
    assert found.text == (
        "H100, on 5 fresh seeds: 4.10× [3.90, 4.30] over your recipe; "
        "4.10× [3.90, 4.30] over the same recipe at learning rate 0.045 where the jumps were; "
        "4.10× [3.90, 4.30] over SGD at learning rate 0.2, Nesterov momentum 0.93, weight "
        "decay 1e-05, linear decay to 0: training time to the target loss. "
        "Quality on the test split is 1.050 [1.020, 1.080]. At equal wall clock it is 1.030 [1.010, 1.050] "
        "against your recipe, 1.030 [1.010, 1.050] against the learning rate matched to it, 1.030 [1.010, "
        "1.050] against the tuned baseline. The sweep saw 4.20× at validation quality 1.070; "
        "on fresh seeds it is 3.40× [3.30, 3.50] at 1.040 [1.000, 1.080]. "
        "Prediction pays here, against every control. "
        "All of it: hybrid-sweep export DIR --trial H100 --format toml"
    )
    assert HybridConfig(**tomllib.loads(found.settings)) == CONFIG


@pytest.mark.parametrize(("end", "further"), [("largest", "larger"), ("smallest", "smaller")])
def test_a_control_that_was_not_tried_far_enough_is_said(end, further):
    rows = row("reference", WIN), row("lr_matched", WIN) | {"outermost": end}, row("tuned", WIN)
    few = replace(confirmed(*rows), tried=20, configurations=60)
    found = verdict(FRONT, few, folder="DIR")
    assert (
        f"The same recipe at learning rate 0.045 where the jumps were is the {end} that was tried: "
        f"a {further} one may do better. The tuned baseline was chosen from 20 settings, the point from 60: "
        "tuning_trials capped it. Prediction pays here"
    ) in found.text
    assert "tried" not in of().text


def test_a_win_only_over_the_own_recipe_names_the_larger_learning_rate():
    found = of(matched=EQUAL)
    assert found.recommendation == "REJECT: lr_matched"
    assert "1.02× [0.97, 1.06] over the same recipe at learning rate 0.045" in found.text
    assert found.text.endswith(
        "The same recipe at learning rate 0.045 where the jumps were does as well in 850 steps without "
        "prediction: raise the learning rate instead."
    )
    assert found.settings == f"{WHAT['lr_matched']}, 850 steps"


def test_of_several_controls_that_do_as_well_the_best_is_named():
    found = of(matched=EQUAL, tuned=LOSS)
    assert found.recommendation == "REJECT: tuned"
    assert found.text.endswith("to 0 does better in 850 steps without prediction: use that instead.")
    assert found.settings == f"{WHAT['tuned']}, 850 steps"


@pytest.mark.parametrize("recipe", [LOSS, EQUAL])
def test_no_win_over_the_own_recipe(recipe):
    found = of(recipe=recipe)
    assert found.recommendation == "REJECT: speedup"
    assert found.text.endswith("Prediction does not pay here: keep your recipe.")


def test_quality_below_the_bar():
    found = of(recipe=(0.0, 0.0, 0.0), quality=(0.93, 0.92, 0.95), hybrid_reached=0)
    assert found.recommendation == "REJECT: quality"
    assert "prediction misses the target on 5 of 5 seeds, against your recipe" in found.text
    assert "below the bar of 0.98" in found.text


def test_intervals_too_wide_to_say():
    found = of(tuned=WIDE)
    assert found.recommendation == "CONFIRM FIRST: more seeds"
    assert f"too wide to say: {WHAT['tuned']}." in found.text
    assert found.text.endswith("Run: hybrid-sweep confirm DIR --seeds 10")


def test_quality_that_may_be_below_the_bar_is_too_wide_too():
    found = of(quality=(0.99, 0.95, 1.03))
    assert found.recommendation == "CONFIRM FIRST: more seeds"
    assert "quality against the bar of 0.98" in found.text


def test_a_control_that_never_gets_there_is_beaten_on_quality_at_equal_wall_clock():
    as_good = row("tuned", (0.95, 0.9, float("inf")), reached=0, as_long=(1.0, 0.99, 1.02))
    rows = row("reference", WIN), row("lr_matched", WIN), as_good
    unclear = verdict(FRONT, confirmed(*rows), folder="DIR")
    assert unclear.recommendation == "CONFIRM FIRST: more seeds"
    assert "1.000 [0.990, 1.020] against the tuned baseline" in unclear.text
    never = row("tuned", (0.95, 0.9, float("inf")), quality=(0.9, 0.8, 1.0), reached=0)
    rows = row("reference", WIN), row("lr_matched", WIN), never
    found = verdict(FRONT, confirmed(*rows), folder="DIR")
    assert found.recommendation == "ADOPT"
    assert ">0.95× [0.90, ∞) over SGD" in found.text
    assert "which misses the target on 5 of 5 seeds" in found.text


def test_a_control_that_is_faster_where_it_gets_there_is_not_beaten_on_quality():
    mostly = row("tuned", (0.5, 0.4, float("inf")), reached=4)
    found = verdict(FRONT, confirmed(row("reference", WIN), row("lr_matched", WIN), mostly), folder="DIR")
    assert found.recommendation == "CONFIRM FIRST: more seeds"


def test_a_control_that_never_gets_there_is_not_recommended():
    never = row("tuned", (0.0, 0.0, 1.2), reached=0, hybrid_reached=3)
    some = row("reference", (0.0, 0.0, 4.0), hybrid_reached=3)
    found = verdict(FRONT, confirmed(some, row("lr_matched", WIN), never), folder="DIR")
    assert found.recommendation == "CONFIRM FIRST: more seeds"


def test_a_point_that_became_the_best_after_the_confirmation_is_to_be_confirmed():
    older = confirmed(row("reference", WIN, trial_id="H050"))
    found = verdict(FRONT, older, folder="DIR")
    assert found.recommendation == "CONFIRM FIRST"
    assert "what is confirmed is H050" in found.text


def test_a_control_that_was_not_run_is_asked_for():
    found = verdict(FRONT, confirmed(row("reference", WIN)), folder="DIR")
    assert found.recommendation == "CONFIRM FIRST: lr_matched, tuned"


def test_no_result():
    found = verdict(FRONT.head(0), None, folder="DIR")
    assert found.recommendation == "CONFIRM FIRST: no result"
    assert found.trial_id is None


def test_as_json_and_with_advice():
    never = FRONT.assign(predict_phases=0, max_confidence=0.31, confidence_threshold=0.6)
    found = verdict(never, None, folder="DIR")
    assert json.loads(json.dumps(of().to_dict()))["comparisons"]["tuned"]["speedup_to_target_low"] == 3.9
    (sentence,) = json.loads(json.dumps(found.to_dict()))["advice"]
    assert "lower confidence_threshold to 0.31" in sentence
    assert found.lines()[-1] == f"  {sentence}"


def test_a_control_that_the_recipe_cannot_have_is_named_and_the_others_decide():
    reason = "arm 'tuned' cannot train this recipe (RuntimeError: no sparse gradients): leave it out here"

    def found(matched):
        rows = confirmed(row("reference", WIN), row("lr_matched", matched))
        return verdict(FRONT, replace(rows, not_applicable={"tuned": reason}), folder="DIR")

    assert found(LOSS).recommendation == "REJECT: lr_matched"
    best = found(WIN)
    assert best.recommendation == "CONFIRM FIRST: tuned"
    assert "baseline is left out: arm 'tuned' cannot train this recipe (RuntimeError: no sp" in best.text
    assert "against every control that applies" in best.text
