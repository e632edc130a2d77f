"""ResultsFolder: a sweep on disk with the tables, pictures and reports that are made of it."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd

from hybrid_sweep.analysis.cells import settings_in
from hybrid_sweep.analysis.comparison import Confirmation
from hybrid_sweep.analysis.export import encode, write_table
from hybrid_sweep.analysis.objectives import MIN_QUALITY, quality_kind, speedup_column
from hybrid_sweep.analysis.pareto import compared_arms, pareto_front, recommended, rivals
from hybrid_sweep.analysis.seed_file import claims_table, seed_file_name, seed_records
from hybrid_sweep.analysis.summary import analyze
from hybrid_sweep.analysis.table import hybrid_runs, read_trials, steps_table
from hybrid_sweep.analysis.verdict import Verdict, verdict
from hybrid_sweep.errors import UserError, unknown_name
from hybrid_sweep.report.front_data import front_picture
from hybrid_sweep.report.html import render_report
from hybrid_sweep.report.pareto_png import write_front
from hybrid_sweep.store.atomic import replacing
from hybrid_sweep.store.folder import SweepFolder
from hybrid_sweep.store.journal import Journal

TABLES = ("trials", "front", "steps", "claims")


class ResultsFolder(SweepFolder):
    """A sweep on disk. The journal is the truth: every table, picture and report is a view of it."""

    def confirmation(self) -> Confirmation | None:
        """Return what `confirm` found; None where it has not run to its end.

        Raises:
            UserError: what it wrote is damaged.
        """
        return Confirmation.read(self.confirm_path)

    def verdict(self, trials: pd.DataFrame | None = None) -> Verdict:
        """Return what to do with the sweep's best point, of `trials` where they have been read already.

        Raises:
            UserError: the journal, the manifest or the confirmation is corrupt.
        """
        table = self.trials() if trials is None else trials
        return self._verdict(pareto_front(table, speedup_column(self.manifest)), table, self.confirmation())

    def _verdict(
        self, front: pd.DataFrame, trials: pd.DataFrame, confirmation: Confirmation | None
    ) -> Verdict:
        speedup, kind = speedup_column(self.manifest), quality_kind(self.manifest)
        return verdict(
            front,
            confirmation,
            folder=str(self.path),
            speedup=speedup,
            beaten=rivals(front, trials, speedup, kind),
            compared=compared_arms(trials),
        )

    def best(self, trials: pd.DataFrame) -> pd.Series[Any] | None:
        """Return the row of the front that is recommended of `trials`; None where none is done."""
        return recommended(trials, speedup_column(self.manifest), quality_kind(self.manifest))

    def analyzer_lines(self, trials: pd.DataFrame) -> list[str]:
        """Return the original's four lines for the best point of `trials`, which `trials` has returned."""
        return analyze(
            trials,
            speedup_column(self.manifest),
            verdict=self.verdict(trials).recommendation,
            kind=quality_kind(self.manifest),
        )

    def trials(self) -> pd.DataFrame:
        """One row a trial and seed, from the journal, also while the sweep runs or after it was killed.

        Raises:
            UserError: the journal is corrupt.
        """
        return read_trials(self)

    def steps(self) -> pd.DataFrame:
        """One row a report, from the journal.

        Raises:
            UserError: the journal is corrupt.
        """
        return steps_table(Journal.events(self.journal.path))

    def table(self, what: str) -> pd.DataFrame:
        """Return one of `TABLES`.

        Raises:
            UserError: an unknown table, or a corrupt journal.
        """
        match what:
            case "trials":
                return self.trials()
            case "front":
                return pareto_front(self.trials(), speedup_column(self.manifest))
            case "steps":
                return self.steps()
            case "claims":
                return claims_table(self.trials(), speedup_column(self.manifest))
        raise unknown_name("table", what, list(TABLES))

    def export(self, what: str = "trials", format: str = "csv", to: Path | None = None) -> None:
        """Write one table as CSV, JSON or Parquet to the file `to`, else to standard output.

        Raises:
            UserError: an unknown table or format, or a place that cannot be written.
        """
        write_table(self.table(what), format, to)

    def trial_config(self, trial_id: str) -> dict[str, Any]:
        """Return every setting of a trial, as a mapping that makes a HybridConfig.

        Raises:
            UserError: no such trial, with the ids that come close.
        """
        trials = hybrid_runs(self.trials())
        found = trials.loc[trials["trial_id"] == trial_id, "config"]
        if len(found):
            return settings_in(found.iloc[0], trial_id)
        known = list(trials["trial_id"].unique())
        close = get_close_matches(trial_id, known, n=5, cutoff=0.4) or known[:5]
        hint = f"close ones are {', '.join(close)}" if close else "the sweep has started none"
        raise UserError(f"unknown trial {trial_id!r}: {hint}; the trial_id column of trials.csv has them all")

    def export_all(self, min_quality: float = MIN_QUALITY, trials: pd.DataFrame | None = None) -> list[Path]:
        """Write every table, the picture and the report into the folder; return the files written.

        Args:
            min_quality: the quality that counts as good.
            trials: what `trials` returns, where it has been read already.

        Raises:
            UserError: the journal or the manifest is corrupt, or the folder cannot be written.
        """
        trials = self.trials() if trials is None else trials
        manifest, steps = self.manifest, self.steps()
        front, confirmation = pareto_front(trials, speedup_column(manifest)), self.confirmation()
        name = (manifest.get("spec") or {}).get("name")
        title = str(name or self.path.resolve().name)
        picture = front_picture(trials, manifest, min_quality, confirmation)
        files: dict[str, bytes] = {
            "trials.csv": encode(trials, "csv"),
            "trials.parquet": encode(trials, "parquet"),
            "steps.parquet": encode(steps, "parquet"),
            "pareto.csv": encode(front, "csv"),
            "pareto.json": encode(front, "json"),
            seed_file_name(manifest.get("created")): _lines(seed_records(trials)).encode(),
            self.report_path.name: render_report(
                trials,
                picture,
                manifest,
                title,
                verdict=self._verdict(front, trials, confirmation),
                confirmation=confirmation,
                min_quality=min_quality,
            ).encode(),
        }
        try:
            for file, content in files.items():
                with replacing(self.path / file) as temporary:
                    temporary.write_bytes(content)
            write_front(picture, self.path / "pareto.png", title)
        except OSError as error:
            raise UserError(
                f"cannot write the tables into {self.path} ({error.strerror}): the journal has all that is "
                f"in them; fix that, then write them with: hybrid-sweep report {self.path}"
            ) from None
        return [self.path / file for file in (*files, "pareto.png")]


def _lines(records: list[dict[str, Any]]) -> str:
    """Return JSON with a record a line."""
    return "[" + ",\n".join(map(json.dumps, records)) + "]\n"
