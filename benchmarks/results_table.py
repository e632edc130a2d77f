"""The table "Does it pay?" of benchmarks/RESULTS.md, from folders that `hybrid-sweep confirm` has confirmed.

    python benchmarks/results_table.py DIR...

A row a folder: the speedup of its best point's whole run, then the point against the same recipe, the
schedule-matched learning rate and the tuned baseline. Each of those cells is the training time that the
control needs to the target loss over that of the hybrid, and the quality at the end of both on the test
split, the controls at as many backward passes as the hybrid; above 1 the hybrid is better.
95 % intervals: `hybrid_sweep.analysis.intervals.bootstrap_interval` over paired fresh seeds.
"""

import argparse

from hybrid_sweep.analysis.comparison import ratio
from hybrid_sweep.results import ResultsFolder

ARMS = {
    "reference": "over the same recipe",
    "lr_matched": "over its matched learning rate",
    "tuned": "over the tuned baseline",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="confirmed results folders")
    folders = [ResultsFolder.open(path) for path in parser.parse_args().folders]
    if missing := [str(folder.path) for folder in folders if folder.confirmation() is None]:
        parser.error(f"not confirmed yet: {', '.join(missing)}; run: hybrid-sweep confirm DIR")
    heads = ["sweep", "best point", "seeds", "whole run", *ARMS.values(), "verdict"]
    print(line(heads), line(["---"] * len(heads)), *(line(cells(folder)) for folder in folders), sep="\n")


def cells(folder):
    found = folder.confirmation()
    point = found.points[0]
    rows = found.rows(point)
    speed = str(ratio(rows["reference"], "speedup_whole_run"))
    arms = [against(rows[arm]) if arm in rows else "–" for arm in ARMS]
    return [sweep_name(folder), f"`{point}`", len(found.seeds), speed, *arms, folder.verdict().recommendation]


def against(row):
    found = ratio(row, "speedup_to_target")
    time = str(found) if found.misses else f"{found} to the target"
    return f"{time}; quality {str(ratio(row, 'quality')).replace('×', '')}"


def sweep_name(folder):
    spec = folder.manifest["spec"]
    keywords = {key: value for key, value in spec["workload"].items() if key != "name"}
    return f"`{spec['name']}` {', '.join(f'{key}={value}' for key, value in keywords.items())}".strip()


def line(values):
    return f"| {' | '.join(map(str, values))} |"


if __name__ == "__main__":
    main()
