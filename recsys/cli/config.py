"""`recsys config`: check, show and describe configs. Needs no TensorFlow."""

from __future__ import annotations

import json

import typer

from recsys.cli._output import ConfigArgument, JsonOption, Output, SetOption

app = typer.Typer(help="Check, show and describe configs.", rich_markup_mode=None)


@app.command()
def check(config: ConfigArgument, overrides: SetOption, as_json: JsonOption = False) -> None:
    """Check a config; name everything that is wrong with it."""
    from recsys.config.digest import digest
    from recsys.config.load import load
    from recsys.experiment_config import ExperimentConfig

    found = digest(load(config, ExperimentConfig, overrides).config)
    out = Output(as_json)
    out.text(f"{config} is sound (digest {found[:12]})")
    out.result({"path": config, "digest": found})


@app.command()
def show(config: ConfigArgument, overrides: SetOption, as_json: JsonOption = False) -> None:
    """Show a config with its includes, variables, overrides and defaults filled in, and its digest."""
    from recsys.config.dialect import dump
    from recsys.config.digest import digest
    from recsys.config.load import load
    from recsys.experiment_config import ExperimentConfig

    loaded = load(config, ExperimentConfig, overrides).config
    plain = loaded.model_dump(mode="json", by_alias=True)
    out = Output(as_json)
    out.text(f"# digest: {digest(loaded)}\n{dump(plain).rstrip()}")
    out.result({"path": config, "digest": digest(loaded), "config": plain})


@app.command()
def schema() -> None:
    """Print the JSON Schema of configs, by which editors complete and check the YAML."""
    from recsys.config.json_schema import json_schema
    from recsys.experiment_config import ExperimentConfig

    typer.echo(json.dumps(json_schema(ExperimentConfig), indent=2, ensure_ascii=False))
