"""`mlspark monitor`, and jobs/monitor.py: scored rows against what their version was trained on. Driver."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from mlspark import storage
from mlspark.commands import job, options, output_file, source_arguments
from mlspark.errors import ConfigError, MlsparkError
from mlspark.settings.pipeline import Settings
from mlspark.sources.catalog import READERS
from mlspark.sources.settings import FilesSettings

logger = logging.getLogger(__name__)

_SHOWN = 10
"""Alarms of a commit that the terminal names; the report has all."""

app = options.app()


@app.command("monitor")
def main(
    config: options.Config,
    commit: Annotated[int | None, typer.Option(help="Version of the score table; else the newest.")] = None,
    since: Annotated[int | None, typer.Option(help="Version of the score table: it and all later ones.")] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Labels that came later; else monitoring.labels.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help=f"Of the labels; one of {', '.join(READERS)}; the name tells, if you do not.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Of the labels, as in monitoring.labels: header=true.")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="By which labels are put to rows; else label_key.")
    ] = None,
    html_file: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="Write the page of the newest of the commits.")
    ] = None,
    set_: options.Overrides = None,
    report: options.Report = None,
) -> None:
    """Compare scored rows, scores and late labels with training; status 0: fine, 3: alarm, 2: something to correct."""
    try:
        output_file.check("--html", html_file)
        overrides = [*(set_ or ()), *_label_settings(labels, kind, option or (), key or ())]
    except MlsparkError as error:
        job.print_error(f"monitor: {error}")
        raise typer.Exit(options.USER_ERROR) from None

    from mlspark import tables  # takes seconds: Spark
    from mlspark.stages import monitor as stage
    from mlspark.stages.check import check_labels

    alarms = 0

    def work(spark: Any, settings: Settings) -> dict[str, Any]:
        nonlocal alarms
        done = stage.monitor(spark, settings, commit=commit, since=since)
        alarms = done["alarms"]
        for line in (line for result in done["monitored"] for line in lines(result)):
            logger.info("%s", line)
        if html_file:
            newest = tables.sidecar(done["table"], done["monitored"][-1]["id"], stage.PAGE)
            page = storage.read_bytes(newest).decode()
            output_file.write("--html", html_file, page, what_stands="the result stands, run it again for the page")
        return done

    def check(settings: Settings) -> object:
        check_labels(settings)
        return stage.chosen_commits(settings, commit=commit, since=since)

    job.run("monitor", work, check, config, overrides, report)
    if alarms:
        raise typer.Exit(options.ALARM)


def _label_settings(
    labels: str | None, kind: str | None, source_options: Sequence[str], key: Sequence[str]
) -> Iterator[str]:
    """Yield what the command line says of labels, as overrides of settings."""
    if labels is None and (kind or source_options):
        raise ConfigError("--kind, --option: belong to --labels SOURCE; give it, or set monitoring.labels")
    if labels is not None:
        kind = kind or source_arguments.guess_kind(labels)[0]
        given = ["header=true"] if kind == "csv" and not any(o.startswith("header=") for o in source_options) else []
        source = source_arguments.settings(labels, kind, [*given, *source_options])
        if isinstance(source, FilesSettings):
            source = source.model_copy(update={"path": storage.absolute(source.path)})
        yield f"monitoring.labels={json.dumps(source.model_dump(mode='json'))}"
    if key:
        yield f"monitoring.label_key={json.dumps(list(key))}"


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a person is told of the result of one commit: what was compared, alarms, what was not compared."""
    from mlspark.reports.monitor_page import TITLES
    from mlspark.reports.wording import percent
    from mlspark.tasks.metrics import title

    training, labels = result["training"], result["labels"]
    yield (
        f"scores version {result['score_version']}: {result['rows_scored']:,} rows by {result['model_name']} version "
        f"{result['model_version']}, which was trained on {training['rows']:,} rows"
    )
    if labels is not None:
        lacking = "".join(
            f", {labels[key]:,} {words}"
            for key, words in (
                ("without_score", "labels of no scored row"),
                ("bad_rows", "bad labels"),
                ("no_class", "of no class"),
            )
            if labels.get(key)
        )
        share = percent(labels["labelled"] / max(1, labels["scored"]))
        yield f"  labels: {labels['labelled']:,} of {labels['scored']:,} rows have one ({share}){lacking}"
    for check in (check for check in result["checks"] if check["measure"] == "metric_loss"):
        old, new = (_with_interval(check, side) for side in ("old", "new"))
        yield f"  {title(check['name'])}: {new}, {old} on the kept {result['kept']['split']} rows"
    for left_out in result["not_compared"]:
        yield f"  {TITLES[left_out['subject']].lower()} not compared: {left_out['reason']}"
    verdicts = [check["verdict"] for check in result["checks"]]
    by_chance = f", {verdicts.count('chance')} over the limit by chance" if "chance" in verdicts else ""
    told = f"{result['alarms']} alarm{'' if result['alarms'] == 1 else 's'}"
    yield f"  {len(verdicts)} comparisons, {told}{by_chance}"
    alarms = [check for check in result["checks"] if check["verdict"] == "alarm"]
    for check in alarms[:_SHOWN]:
        yield f"  ALARM {_words(check)}"
    if len(alarms) > _SHOWN:
        yield f"  and {len(alarms) - _SHOWN} more, see the report"


def _with_interval(check: Mapping[str, Any], side: str) -> str:
    low, high = check[f"{side}_interval"]
    return f"{check[side]:.4f} [{low:.4f}, {high:.4f}]"


def _words(check: Mapping[str, Any]) -> str:
    """Return an alarm in words: what, how much, and the limit."""
    from mlspark.reports.monitor_page import MEASURES, TITLES
    from mlspark.reports.wording import percent
    from mlspark.tasks.metrics import title

    of = TITLES[check["subject"]].lower()
    name = title(check["name"]) if check["measure"] == "metric_loss" else check["name"]
    show = "{:.3f}".format if check["measure"] == "psi" else percent
    change = ""
    if check["old"] is not None:
        shown = "{:.4g}".format if check["measure"] == "metric_loss" else percent
        change = f", {shown(check['old'])} in training, {shown(check['new'])} now"
    detail = f": {check['detail']}" if check["detail"] else ""
    return f"{of}: {name}: {MEASURES[check['measure']]} {show(check['value'])}, limit {show(check['limit'])}{change}{detail}"
