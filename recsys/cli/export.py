"""`recsys export`: a trained model as a bundle."""

from __future__ import annotations

from recsys.cli._output import JsonOption, Output, SetOption
from recsys.cli._run import RUNS, ExperimentArgument, PlanOption, RankerOption, RunsOption, open_experiment


def export(
    path: ExperimentArgument,
    overrides: SetOption,
    ranker: RankerOption = None,
    plan: PlanOption = None,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Export the trained model as the next bundle, with its index; with a ranker, one that retrieves and ranks."""
    from recsys.bundle.manifest import AlignmentFacts
    from recsys.bundle.verify import read_manifest

    out = Output(as_json)
    experiment = open_experiment(path, overrides, runs, out, plan)
    if ranker is None:
        folder = experiment.export()
    else:
        from recsys.two_stages import TwoStages

        folder = TwoStages(experiment, open_experiment(ranker, (), runs, out)).export()
    manifest = read_manifest(folder)
    if manifest.index is not None:
        facts = manifest.index
        low = "" if facts.recall_low is None else f" (at least {facts.recall_low:.4f})"
        took = "" if facts.milliseconds is None else f", {facts.milliseconds:.2f} ms a query"
        out.text(f"{facts.kind} index: recall@{facts.k} {facts.recall:.4f}{low} of exact search{took}")
    if manifest.alignment is not None:
        rows = [(name, getattr(manifest.alignment, name)) for name in AlignmentFacts.model_fields]
        out.table(f"Aligned to {manifest.alignment.bundle}", ("", "value"), rows[1:])
    out.wrote(folder)
    told = manifest.model_dump(include={"index", "alignment", "catalogue", "ranking"})
    out.result({"path": folder, **told})
