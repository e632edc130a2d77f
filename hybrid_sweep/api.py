"""The Python face: a sweep as an object, and its results as one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from hybrid_sweep.analysis.objectives import speedup_column
from hybrid_sweep.analysis.pareto import pareto_front
from hybrid_sweep.by_value import import_string
from hybrid_sweep.driver.callback import Callback, tell_all
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.spec.files import load_spec
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.user_code import stop_within_import

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from hybrid_sweep.analysis.comparison import Confirmation
    from hybrid_sweep.analysis.verdict import Verdict
    from hybrid_sweep.driver.events import OnEvent, SweepEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class BestPoint:
    """The configuration that a sweep recommends to confirm.

    Attributes:
        trial_id: its id.
        config: its settings; `HybridTrainer` takes them as they are.
        speedup: over plain training, mean over seeds, in the unit of the sweep's `timing`.
        quality: against plain training, mean over seeds; 1 is as good.
    """

    trial_id: str
    config: HybridConfig
    speedup: float
    quality: float


class Results:
    """The results of a sweep, as they were when they were read; each table is read at its first use.

    Args:
        folder: the results folder.
    """

    def __init__(self, folder: ResultsFolder) -> None:
        self.folder = folder

    @property
    def path(self) -> Path:
        """The results folder's path."""
        return self.folder.path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The resolved sweep and where it ran."""
        return self.folder.manifest

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row a configuration and seed, controls included."""
        return self.folder.trials()

    @cached_property
    def steps(self) -> pd.DataFrame:
        """One row a report of a run."""
        return self.folder.steps()

    @cached_property
    def pareto(self) -> pd.DataFrame:
        """The Pareto front, fastest first."""
        return pareto_front(self.trials, self.speedup_column)

    @property
    def speedup_column(self) -> str:
        """The column of `trials` that the front is made of: "speedup", or "speedup_counted"."""
        return speedup_column(self.manifest)

    @cached_property
    def best(self) -> BestPoint | None:
        """The fastest point of good quality that no control beats, else the best one; None of no front."""
        row = self.folder.best(self.trials)
        if row is None:
            return None
        trial_id = str(row["trial_id"])
        return BestPoint(
            trial_id=trial_id,
            config=HybridConfig(**self.folder.trial_config(trial_id)),
            speedup=float(row[self.speedup_column]),
            quality=float(row["quality"]),
        )

    @cached_property
    def verdict(self) -> Verdict:
        """What to do with the best point: adopt it, reject it, or confirm it first, and why."""
        return self.folder.verdict(self.trials)

    def confirm(
        self,
        seeds: int = 5,
        *,
        points: int = 2,
        arms: Literal["basic", "full"] = "basic",
        trust: bool = False,
    ) -> Confirmation | None:
        """Run the best points and their controls again on fresh seeds, in this process; None if stopped.

        What it finds is in `load_results(path).verdict` afterwards, and in the report.

        Args:
            seeds: how many, at least 3.
            points: how many points of the front.
            arms: which controls.
            trust: run the folder's code also where this user did not start the sweep on this machine.

        Raises:
            UserError: as `confirm_sweep`.
        """
        from hybrid_sweep.confirm.sweep import confirm_sweep

        found = confirm_sweep(self.path, seeds=seeds, points=points, arms=arms, trust=trust)
        self.__dict__.pop("verdict", None)
        return found

    def plot_front(self) -> Figure:
        """Return the front, its configurations and their controls as a plotly figure."""
        from plotly.graph_objects import Figure

        from hybrid_sweep.report.front_data import front_picture
        from hybrid_sweep.report.plotly_figures import front_figure, in_light_colours

        picture = front_picture(self.trials, self.manifest, confirmation=self.folder.confirmation())
        return Figure(in_light_colours(front_figure(picture)))

    def __repr__(self) -> str:
        return f"Results({str(self.path)!r}): {self._about()}"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the verdict in a line, and the front."""
        columns = ["trial_id", self.speedup_column, "quality"]
        front = self.pareto[[name for name in columns if name in self.pareto]]
        head = f"<p><b>{escape(str(self.path))}</b>: {escape(self._about())}</p>"
        return head + front.to_html(index=False, max_rows=20, float_format="{:.3f}".format)

    def _about(self) -> str:
        states = self.trials["state"].value_counts().to_dict()
        runs = ", ".join(f"{count} {state}" for state, count in states.items()) or "no run yet"
        return f"{runs}; {len(self.pareto)} on the front; {self.verdict.recommendation}"


class Sweep:
    """What is trained, and every setting that is tried.

    >>> sweep = Sweep(SmallCnn, space={"max_predict_steps": [20, 40, 80]}, trials=40, seeds=3)
    >>> results = sweep.run("results/cnn")

    Args:
        workload: a class with the five methods of `hybrid_sweep.workload.Workload`, or its import string. A
            class of a notebook travels to the workers by value.
        space: fields of `HybridConfig`, each with a list of values, a `Range` or a `Choice`.
        trials: configurations in all; None is the whole grid, or 50 of another sampler.
        seeds: with how many consecutive seeds each configuration runs.
        keywords: what the workload's class is called with.
        settings: any other field of `SweepSpec`, such as `steps`, `sampler` or `controls`.

    Attributes:
        spec: the sweep in full.

    Raises:
        UserError: a workload, field or value that is not allowed.
    """

    def __init__(
        self,
        workload: type | str,
        space: Mapping[str, Any] | None = None,
        *,
        trials: int | None = None,
        seeds: int = 1,
        keywords: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        name = import_string(workload)
        fields = {
            "name": re.sub(r"[^A-Za-z0-9_.-]", "", name.rpartition(":")[2]).lstrip("_.-")[:100] or "sweep",
            "workload": {**(keywords or {}), "name": name},
            "space": {field: _axis(values) for field, values in (space or {}).items()},
            "trials": trials,
            "repeats": seeds,
        }
        self.spec = SweepSpec(**{**fields, **settings})

    @classmethod
    def from_file(cls, name_or_path: str | Path, **changes: Any) -> Sweep:
        """Return the sweep of a file, or a packaged one such as "grid60", with some fields changed.

        Raises:
            UserError: as `load_spec`.
        """
        sweep = cls.__new__(cls)
        sweep.spec = load_spec(name_or_path, changes)
        return sweep

    def run(
        self,
        out: str | Path | None = None,
        *,
        address: str | None = None,
        keep_models: Literal["none", "front"] = "none",
        callbacks: Sequence[Callback] = (),
    ) -> Results:
        """Run the sweep, and return its results.

        Args:
            out: a new or empty folder; None makes `results/NAME-TIME`.
            address: an existing Ray cluster; None starts a local one and ends it.
            keep_models: "front" keeps the trained weights of the front.
            callbacks: called while it runs.

        Raises:
            UserError: as `run_sweep`.
        """
        from hybrid_sweep.cluster.launch import run_sweep

        stop_within_import()
        with _listening(callbacks, self.spec) as on_event:
            outcome = run_sweep(
                self.spec,
                None if out is None else Path(out),
                address=address,
                keep_models=keep_models,
                on_event=on_event,
            )
        return Results(outcome.folder)

    def __repr__(self) -> str:
        return f"Sweep({self.spec.workload.name!r}, {', '.join(self.spec.space) or 'no space'})"


def resume(
    path: str | Path,
    *,
    address: str | None = None,
    retry_failed: bool = False,
    trust: bool = False,
    callbacks: Sequence[Callback] = (),
    **changes: Any,
) -> Results:
    """Go on with a sweep that was interrupted or killed, or give it more trials: no run is repeated.

    Args:
        path: its results folder.
        address: an existing Ray cluster; None starts a local one and ends it.
        retry_failed: also run again what failed.
        trust: run the folder's code also where this user did not start the sweep on this machine.
        callbacks: called while it runs.
        changes: fields of the sweep that may change, such as `trials` and `concurrency`.

    Raises:
        UserError: as `resume_sweep`.
    """
    from hybrid_sweep.cluster.launch import resume_sweep
    from hybrid_sweep.driver.sweep import recorded_spec

    stop_within_import()
    spec = recorded_spec(ResultsFolder.open(path), changes)
    with _listening(callbacks, spec) as on_event:
        outcome = resume_sweep(
            Path(path),
            changes=changes,
            address=address,
            retry_failed=retry_failed,
            trust=trust,
            on_event=on_event,
        )
    return Results(outcome.folder)


def load_results(path: str | Path) -> Results:
    """Read the results of a sweep; needs neither torch nor ray.

    Raises:
        UserError: `path` is not a results folder.
    """
    return Results(ResultsFolder.open(path))


class ProgressBar(Callback):
    """Shows a sweep as it runs: a live display in a terminal, lines of text in a notebook or a log."""

    def setup(self, spec: SweepSpec) -> None:
        """Start the display."""
        from hybrid_sweep.cli.progress import SweepProgress

        self._progress = SweepProgress(spec).__enter__()

    def on_event(self, event: SweepEvent) -> None:
        """Show an event."""
        self._progress(event)

    def teardown(self) -> None:
        """End the display."""
        self._progress.__exit__()


@contextmanager
def _listening(callbacks: Sequence[Callback], spec: SweepSpec) -> Iterator[OnEvent]:
    """Set callbacks up, yield what calls them, and tear them down."""
    with ExitStack() as used:
        for callback in callbacks:
            callback.setup(spec)
            used.callback(callback.teardown)
        yield tell_all(callbacks)


def _axis(values: Any) -> Any:
    """Return an axis as `SweepSpec` takes it: an array or another sequence of values is a list."""
    if hasattr(values, "tolist"):
        return values.tolist()
    return list(values) if isinstance(values, tuple | range) else values
