import pytest
from support.sweeps import SPACE, result, sweep

from hybrid_sweep.errors import UserError
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.search.asked import PriorPoint
from hybrid_sweep.search.study import Study
from hybrid_sweep.search.warm_start import known_points
from hybrid_sweep.trainer.config import HybridConfig

INSIDE = {
    "max_predict_steps": 75,
    "correction_interval": 15,
    "confidence_threshold": 0.6,
    "divergence_threshold": 3.0,
}


@pytest.fixture
def earlier(tmp_path):
    """Return what writes an earlier sweep: spec, and for each point its config and the states of its runs."""

    def write(spec, points, **manifest):
        folder = ResultsFolder.create(tmp_path / "earlier")
        folder.write_manifest(
            {"sweep_id": "e", "spec": spec.model_dump(), "seeds": spec.seeds, "steps": 900, **manifest}
        )
        for number, (config, states) in enumerate(points):
            for seed, state in zip(spec.seeds, states, strict=False):
                run = {"trial_id": f"T{number:04d}", "seed": seed}
                folder.journal.append({"event": "started", **run, "config": config})
                if state:
                    values = result(config, seed, peak_memory_ratio=None)
                    folder.journal.append({"event": "finished", **run, "state": state, "result": values})
        return folder

    return write


def test_points_that_are_done_on_all_their_seeds_are_known_with_their_means(earlier):
    short, long = INSIDE | {"max_predict_steps": 50}, INSIDE | {"max_predict_steps": 150}
    states = [
        ["done", "done"],
        ["done", "diverged"],
        ["done", "failed"],
        ["done"],
        ["done", None],
        ["pruned"],
    ]
    configs = [short, long, INSIDE, *({**INSIDE, "correction_interval": n} for n in (0, 5, 10))]
    folder = earlier(sweep(repeats=2), list(zip(configs, states, strict=True)))
    (known,) = known_points(folder, sweep())
    assert known.config == HybridConfig(**short).model_dump()
    assert known.params == short
    assert known.values["speedup_counted"] == pytest.approx(1 + 50 / 200 * 0.6 + 0.005)
    assert known.values["peak_memory_ratio"] is None
    assert known.source == f"{folder.path}: T0000"


@pytest.mark.parametrize(
    ("config", "spec", "inside"),
    [
        (INSIDE, {}, True),
        (INSIDE | {"max_predict_steps": 1000}, {}, False),
        (INSIDE | {"full_steps": 7}, {}, False),
        (INSIDE | {"full_steps": 7}, {"trainer": {"full_steps": 7}}, True),
        (INSIDE, {"trainer": {"full_steps": 7}}, False),
        (INSIDE | {"full_steps": 20}, {}, True),
    ],
)
def test_a_point_has_parameters_only_where_this_sweep_could_have_asked_it(earlier, config, spec, inside):
    (known,) = known_points(earlier(sweep(), [(config, ["done"])]), sweep(**spec))
    assert known.params == (INSIDE if inside else None)


def test_another_workload_or_length_is_refused(earlier):
    folder = earlier(sweep(steps=900), [])
    assert known_points(folder, sweep(steps=900)) == []
    with pytest.raises(UserError, match=r"earlier trained .*a.b:C.* and this sweep trains .*a.b:D"):
        known_points(folder, sweep(steps=900, workload="a.b:D"))
    with pytest.raises(UserError, match=r"trained 900 and this sweep trains 800: set steps"):
        known_points(folder, sweep(steps=800))
    with pytest.raises(UserError, match=r"this sweep trains as many steps as its workload says"):
        known_points(folder, sweep())


def test_a_length_that_the_workload_gave_is_the_same_said_or_not(earlier):
    folder = earlier(sweep(), [(INSIDE, ["done"])])
    assert len(known_points(folder, sweep(steps=900))) == len(known_points(folder, sweep())) == 1


def test_a_configuration_of_another_version_is_named(earlier):
    folder = earlier(sweep(), [({"horizon": 3}, ["done"])])
    with pytest.raises(UserError, match=r"T0000 of .*earlier cannot be learned from .*'horizon'"):
        known_points(folder, sweep())


def test_what_is_known_goes_through_the_journal_into_the_study(earlier):
    (known,) = known_points(earlier(sweep(), [(INSIDE, ["done"])]), sweep())
    assert PriorPoint.from_event(known.event()) == known
    one = Study(sweep(points=[INSIDE], sampler="random", trials=1, space=SPACE), "id", 900)
    one.restore([known.event()])
    assert one.ask().source == "random"
