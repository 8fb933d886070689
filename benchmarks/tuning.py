"""Does `recsys tune` beat the shipped settings? On MovieLens-1M, by validation alone; the test part is looked at once.

    RECSYS_DATA=... python benchmarks/tuning.py [--trials 16] [--hours 1] [--runs runs]

It is `recsys tune configs/movielens-1m.yaml configs/spaces/movielens-1m.yaml`, and then one look at the test part, for
the shipped settings and for the best trial's. Killed, it goes on where it stopped. Records go to
benchmarks/results/tuning, of which results_page.py makes a section of docs/results.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from table import markdown

from recsys.evaluation.record import RunRecord
from recsys.experiment import Experiment
from recsys.files import write_text
from recsys.tuning import Tried, Tuning, TuningRecord, read_space

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "tuning"
NAME = "movielens-1m"
TUNING, SHIPPED, BEST = (RESULTS / f"{NAME}{kind}.json" for kind in ("", "-shipped", "-best"))
SHOWN = 5
"""Trials in the table."""


def run(trials: int, hours: float | None, runs: Path) -> None:
    """Tunes, and looks at the test part."""
    space = read_space(ROOT / "configs" / "spaces" / f"{NAME}.yaml")
    tuning = Tuning(ROOT / "configs" / f"{NAME}.yaml", space, (), runs)
    record = tuning.run(trials, hours, _tell)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for path, trial in ((SHIPPED, 0), (BEST, record.best)):
        write_text(path, Experiment.from_yaml(tuning.run_of(trial)).evaluate().model_dump_json(indent=2) + "\n")
    write_text(TUNING, record.model_dump_json(indent=2) + "\n")


def _tell(tried: Tried) -> None:
    print(tried.trial.model_dump_json(), flush=True)


def section() -> str:
    """Of docs/results.md."""
    if not TUNING.exists():
        return "Not run yet: `python benchmarks/tuning.py`.\n"
    record = TuningRecord.model_validate_json(TUNING.read_bytes())
    shipped, best = (RunRecord.read(path) for path in (SHIPPED, BEST))
    complete = [trial for trial in record.trials if trial.quality is not None]
    ordered = sorted(complete, key=lambda trial: -(trial.quality or 0.0))[:SHOWN]
    if all(trial.number for trial in ordered):
        ordered.append(next(trial for trial in complete if trial.number == 0))
    names = list(ordered[0].values)
    rows = [
        ["shipped" if trial.number == 0 else str(trial.number), f"{trial.quality:.4f}", str(trial.epochs)]
        + [_said(trial.values[name]) for name in names]
        for trial in ordered
    ]
    states = {state: sum(trial.state == state for trial in record.trials) for state in ("complete", "pruned", "failed")}
    counts = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    test = {name: found.metrics["model"][record.monitor] for name, found in (("shipped", shipped), ("best", best))}
    words = "the shipped settings are the best" if record.best == 0 else f"trial {record.best} is the best"
    lines = [
        f"{len(record.trials)} trials ({counts}); by validation {words}. On the test part, looked at once, "
        f"{record.monitor} is {test['shipped']:.4f} with the shipped settings and {test['best']:.4f} with the best.\n",
        markdown(["trial", f"validation {record.monitor}", "epochs", *names], rows),
    ]
    if record.importance:
        mattered = ", ".join(f"{name} {share:.0%}" for name, share in record.importance.items())
        lines.append(f"What mattered: {mattered}.\n")
    return "\n".join(lines)


def _said(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--hours", type=float)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    arguments = parser.parse_args()
    run(arguments.trials, arguments.hours, arguments.runs)


if __name__ == "__main__":
    main()
