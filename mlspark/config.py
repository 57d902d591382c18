"""Settings: YAML files, later ones over earlier ones, then --set; validated once, frozen, every key known."""

import difflib
import json
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from mlspark import storage
from mlspark.errors import ConfigError
from mlspark.feature_settings import FEATURE_KINDS, FeaturesSettings, Section


class StorageSettings(Section):
    root: str = ""
    """Folder or URI for tables, checkpoints and the embedded MLflow store; empty: $MLSPARK_HOME, else .mlspark."""


class _SourceSettings(Section):
    has_label: bool = True
    """Whether the rows carry the contract's label column."""
    filter: str = ""
    """SQL condition over the source's own columns: only these rows are read; pushed down where the store can."""


class _FilesSettings(_SourceSettings):
    path: str
    """File, folder or glob; relative paths are taken from `sources.root`. Compressed text (.gz, .bz2, ...) is read too."""


class CsvSettings(_FilesSettings):
    """Lines of separated fields; a line is a row."""

    kind: Literal["csv"]
    separator: Annotated[str, Field(min_length=1)] = ","
    """Between fields; blanks around a field are not part of it."""
    header: bool = False
    """The first line of each file names the columns; else the fields are in the contract's order."""
    comment: Annotated[str, Field(max_length=1)] = ""
    """Lines that start with this are no rows; empty: every line is a row."""
    missing: str = ""
    """Text that marks a missing value, besides an empty field."""
    max_line_bytes: Annotated[int, Field(ge=1)] = 1_000_000
    """A longer line is a bad row."""


class JsonSettings(_FilesSettings):
    """Lines that hold one JSON object each."""

    kind: Literal["json"]
    missing: str = ""
    """Text that marks a missing value, besides null and an absent key; empty: none."""
    max_line_bytes: Annotated[int, Field(ge=1)] = 1_000_000
    """A longer line is a bad row."""


class ParquetSettings(_FilesSettings):
    kind: Literal["parquet"]


class OrcSettings(_FilesSettings):
    kind: Literal["orc"]


class DeltaSettings(_FilesSettings):
    """A Delta table at one version."""

    kind: Literal["delta"]
    version: Annotated[int, Field(ge=0)] | None = None
    """Unset: the latest when the job starts."""
    timestamp: str = ""
    """The version that was the latest at this time, "2026-01-31 12:00:00"; not together with version."""


class HiveSettings(_SourceSettings):
    """A table of a Hive metastore; a filter over partition columns reads only those partitions."""

    kind: Literal["hive"]
    table: str
    """database.table"""
    metastore: str = ""
    """thrift://host:port; empty: what Spark's own settings say, else an embedded one."""


class JdbcSettings(_SourceSettings):
    """A table or query of a database; its driver must be on Spark's class path (spark.jars.packages)."""

    kind: Literal["jdbc"]
    url: str
    """jdbc:postgresql://host:port/database, without credentials."""
    query: str
    """Table, or SELECT statement."""
    partition_column: str = ""
    """Numeric, date or timestamp column by whose ranges connections share the rows; empty: one connection."""
    num_partitions: Annotated[int, Field(ge=1)] = 1
    """Connections at a time."""
    user_variable: str = "MLSPARK_JDBC_USER"
    """Environment variable that holds the user's name."""
    password_variable: str = "MLSPARK_JDBC_PASSWORD"  # noqa: S105 (a name)
    """Environment variable that holds the password."""


SourceSettings = Annotated[
    CsvSettings | JsonSettings | ParquetSettings | OrcSettings | DeltaSettings | HiveSettings | JdbcSettings,
    Field(discriminator="kind"),
]
"""One raw data set; `kind` says how it is stored."""


class SourcesSettings(Section):
    root: str = ""
    """Folder or URI that relative paths start from; empty: $MLSPARK_DATA, else data."""
    learn: SourceSettings
    """Rows to learn from: split into training and validation rows."""
    validation: SourceSettings | None = None
    """Rows to choose the best checkpoint by, besides those that `split` holds out."""
    test: SourceSettings | None = None
    """Untouched rows for the final evaluation."""

    @property
    def rows(self) -> dict[str, SourceSettings]:
        """The sources that are configured, by name: learn, validation, test."""
        named = {"learn": self.learn, "validation": self.validation, "test": self.test}
        return {name: source for name, source in named.items() if source is not None}


class AggregateSettings(Section):
    """One number from the events of a key in the time before a row."""

    function: Literal["count", "sum", "mean", "min", "max", "distinct", "last"]
    column: str | None = None
    """Column of the joined source; without one, `count` counts the events themselves."""
    window_seconds: Annotated[int, Field(ge=1)]
    """Events are used that are older than the row, but by no more than this."""


class JoinSettings(Section):
    """Another source, of which each row gets what was known of its key just before it."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Part of the names of the new columns: NAME_COLUMN, count_NAME_7d, mean_NAME_COLUMN_1h."""
    source: SourceSettings
    contract: str
    """Contract file of the joined source's rows."""
    keys: Annotated[dict[str, str], Field(min_length=1)]
    """Column of the pipeline's rows -> column of the joined source."""
    label_time: str
    """Date or timestamp column of the pipeline's rows: the moment at which they are to be predicted."""
    event_time: str
    """Date or timestamp column of the joined source; a row at exactly label_time is not used."""
    columns: tuple[str, ...] = ()
    """Taken from the newest row of the key that is older."""
    max_age_seconds: Annotated[int, Field(ge=1)] | None = None
    """Oldest row to take them from."""
    aggregates: tuple[AggregateSettings, ...] = ()


class SplitSettings(Section):
    """Which side each row of `sources.learn` is on. It never changes sides as other rows come and go."""

    by: Literal["hash", "time"] = "hash"
    """hash: of what identifies the row, so that duplicates are on one side. time: older rows train."""
    validation_share: Annotated[float, Field(ge=0.0, le=0.9)] = 0.1
    """With by: hash, share of the rows held out for choosing the best checkpoint."""
    test_share: Annotated[float, Field(ge=0.0, le=0.9)] = 0.0
    """With by: hash, share of the rows held out for the final evaluation, besides `sources.test`."""
    seed: int = 0
    """Changes which rows are held out."""
    key: tuple[str, ...] = ()
    """Columns whose equal values keep rows on one side, and in one fold; empty: the contract's unique key, else all columns
    but the label."""
    time: str = ""
    """With by: time, date or timestamp column of the contract that has no missing values."""
    validation_from: str = ""
    """With by: time, first moment (UTC, like 2024-01-31 or 2024-01-31 18:00:00) of the validation rows."""
    test_from: str = ""
    """With by: time, first moment of the test rows; empty: none."""
    folds: Annotated[int, Field(ge=0, le=100)] = 0
    """Also write a column `fold`, 0 to folds - 1, for cross-validation; 0: none."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "SplitSettings":
        if self.by == "time":
            if not self.time or not self.validation_from:
                raise ValueError("by: time needs time and validation_from")
            if self.test_from and self.test_from <= self.validation_from:
                raise ValueError(f"test_from {self.test_from} is not after validation_from {self.validation_from}")
        elif self.time or self.validation_from or self.test_from:
            raise ValueError("time, validation_from and test_from need by: time")
        elif self.validation_share + self.test_share > 0.95:
            raise ValueError("validation_share and test_share leave fewer than 5 % of the rows to train on")
        return self


class DriftSettings(Section):
    """Past these, `prepare --mode append` warns that the new rows are not like those that the encoder was fitted on."""

    max_unseen_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    """Share of the new rows with a category that has no id."""
    max_mean_shift: Annotated[float, Field(ge=0.0)] = 0.25
    """Distance of a number's mean from the fitted one, in fitted standard deviations."""
    max_missing_shift: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Change of a column's share of missing values."""


class StreamingSettings(Section):
    streams: Annotated[int, Field(ge=1)] = 8
    """Canonical streams: the world size must divide it; the row order never depends on the world size."""
    shuffle_window_rows: Annotated[int, Field(ge=1)] = 400_000
    """Rows shuffled among each other, over all streams and ranks."""
    workers: Annotated[int, Field(ge=1)] = 2
    """Reader threads or processes per rank."""
    pool: Literal["thread", "process"] = "thread"
    """What the workers are; threads copy nothing, processes take seconds to start."""
    read_ahead_bytes: Annotated[int, Field(ge=0)] = 256 * 2**20
    """Decoded rows that a rank reads before they are asked for, besides one row group per worker."""
    cache_folder: str = ""
    """Local folder that keeps what was read of a remote table, for all ranks and runs of a machine; empty: none."""
    cache_bytes: Annotated[int, Field(ge=1)] = 10 * 2**30
    """Size of that folder; what was not read for longest goes."""
    remainder: Literal["pad", "drop"] = "pad"
    """Last short batch: filled with marked rows that no metric counts, or left out."""


class ModelSettings(Section):
    kind: Literal["tabular", "custom"] = "tabular"
    """tabular: an embedding per categorical feature, then fully connected layers. custom: what `factory` returns."""
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (128, 64)
    """Widths of the hidden layers."""
    embedding_dim_max: Annotated[int, Field(ge=1)] = 16
    """Upper bound of an embedding's width; small vocabularies get less."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    factory: str = ""
    """With kind: custom, package.module:function, called with the features.layout.Layout; returns the torch module, which
    takes dense (B, F) float32 and categorical (B, K) int64 and gives logits (B,)."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "ModelSettings":
        if (self.kind == "custom") != bool(self.factory):
            raise ValueError("kind: custom and factory: package.module:function belong together")
        return self


class OptimizerSettings(Section):
    kind: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0.0)] = 2e-3
    """Peak of the schedule."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-2
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Of sgd."""
    schedule: Literal["one_cycle", "cosine", "step", "constant"] = "one_cycle"
    """cosine falls to 0 at the end of the run; step multiplies by `step_factor` every `step_epochs`."""
    warmup_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the steps in which the rate first rises linearly; one_cycle rises by itself, for 30 % of them."""
    step_epochs: Annotated[int, Field(ge=1)] = 10
    step_factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    clip_norm: Annotated[float, Field(ge=0.0)] = 0.0
    """Largest norm of all gradients together, larger ones are scaled down to it; 0: no limit."""


class RecoverySettings(Section):
    """How a failed rank is noticed, and what is done about it. None of it changes what is trained."""

    max_restarts: Annotated[int, Field(ge=0)] = 3
    """Starts after the first, each from the newest whole checkpoint."""
    backoff_seconds: Annotated[float, Field(ge=0.0)] = 1.0
    """Wait before the first restart; doubled before each further one, up to a minute."""
    min_processes: Annotated[int, Field(ge=0)] = 0
    """Restart with as few ranks when slots are gone for good; 0: only with num_processes."""
    slots_seconds: Annotated[float, Field(ge=0.0)] = 30.0
    """How long executors of a cluster may take to register, at the start and after a loss."""
    silent_seconds: Annotated[float, Field(ge=1.0)] = 8.0
    """A rank whose pulse is not seen for so long has failed. It is given every quarter of this."""
    start_seconds: Annotated[float, Field(gt=0.0)] = 120.0
    """How long a rank may take until its first pulse."""
    collective_seconds: Annotated[float, Field(gt=0.0)] = 120.0
    """Longest wait of a rank for the others in one collective operation."""
    storage_seconds: Annotated[float, Field(ge=0.0)] = 60.0
    """How long writing to a storage that fails is tried again."""
    checkpoint_steps: Annotated[int, Field(ge=0)] = 0
    """A checkpoint after so many steps, besides the one after each epoch; 0: none besides."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """Newest ones that are kept, besides the best."""
    resume: bool = True
    """Go on with an unfinished run of the same settings and table version, when there is one."""


class TrainingSettings(Section):
    num_processes: Annotated[int, Field(ge=1)] = 2
    """Ranks; each needs a free Spark task slot."""
    use_gpu: bool = False
    """One GPU per rank; Spark must know of them (spark.task.resource.gpu.amount)."""
    threads_per_rank: Annotated[int, Field(ge=1)] = 1
    """CPU threads of torch in each rank; fixed, because it decides the order of float sums."""
    seed: int = 0
    epochs: Annotated[int, Field(ge=1)] = 12
    global_batch_size: Annotated[int, Field(ge=1)] = 512
    """Rows per optimizer step over all ranks; the number of ranks must divide it."""
    accumulation_steps: Annotated[int, Field(ge=1)] = 1
    """Parts in which a rank computes its share of a batch, to need less memory; must divide the share."""
    optimizer: OptimizerSettings = OptimizerSettings()
    loss: str = ""
    """package.module:function of logits (B,) and labels (B,) that gives the loss of each row (B,); empty: cross-entropy."""
    positive_weight: Annotated[float, Field(gt=0.0)] = 1.0
    """How much a positive row's loss counts beside a negative one's."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of each label that is replaced by 1/2."""
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Evaluate and keep moving averages of the weights: after a step, decay * average + (1 - decay) * weights. 0: none."""
    best: Literal["log_loss", "roc_auc", "accuracy"] = "log_loss"
    """Validation metric of the best checkpoint: the one that is evaluated and registered."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after so many epochs without a better validation metric; 0: train all epochs."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """What most of the model is computed in; weights stay float32. fp16 needs a GPU."""
    compile: bool = False
    """torch.compile: a minute at the start, faster steps of large models."""
    channels_last: bool = False
    """Memory format of images (B, C, H, W) and convolutions."""
    sync_batch_norm: bool = False
    """Batch statistics over all ranks instead of each rank's; GPU only."""
    shard: bool = False
    """FSDP: weights, gradients and optimizer state spread over the ranks, for models that one GPU does not hold."""
    deterministic: bool = True
    """Only operations that give the same bits each time; an operation that has no such form is an error."""
    memory_bytes: Annotated[int, Field(ge=0)] = 0
    """Keep a rank's rows in memory when they need no more than this; 0: stream them in each epoch. Changes the order."""
    profile_steps: Annotated[int, Field(ge=0)] = 0
    """Record so many steps of rank 0 with torch.profiler, after 5 that are left out: RUN/profile/trace.json.gz."""
    recovery: RecoverySettings = RecoverySettings()

    @model_validator(mode="after")
    def _is_consistent(self) -> "TrainingSettings":
        if self.shard and self.ema_decay:
            raise ValueError("shard and ema_decay do not go together; set one of them")
        return self


class RegistrySettings(Section):
    model_name: str = ""
    """Registered model; empty: the pipeline's name."""
    alias: str = "champion"
    """Alias moved to the new version; empty: none."""


class ScoringSettings(Section):
    source: SourceSettings | None = None
    """Raw rows to score."""
    model: int | str = "champion"
    """Version number or alias of the registered model."""
    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Probability from which a row is predicted positive."""


class TrackingSettings(Section):
    uri: str = ""
    """MLflow tracking server; empty: $MLFLOW_TRACKING_URI, else an embedded store below `storage.root`."""
    experiment: str = ""
    """MLflow experiment; empty: the pipeline's name."""
    events: str = ""
    """Local file that gets a line of JSON for each event of training; empty: events.jsonl in the run's folder, if local."""
    tensorboard: str = ""
    """Local folder for TensorBoard's files, one of them for each run (needs the package tensorboard); empty: none."""


_OWN_SOURCES = ("learn", "validation", "test", "score")


class Settings(Section):
    """One pipeline, from raw rows to scores."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    """Names the tables, the MLflow experiment and the registered model."""
    contract: str
    """Contract file of the raw rows (schemas/*.json), relative to the working directory."""
    storage: StorageSettings = StorageSettings()
    sources: SourcesSettings
    joins: tuple[JoinSettings, ...] = ()
    split: SplitSettings = SplitSettings()
    features: FeaturesSettings
    drift: DriftSettings = DriftSettings()
    streaming: StreamingSettings = StreamingSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    registry: RegistrySettings = RegistrySettings()
    scoring: ScoringSettings = ScoringSettings()
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _cross_check(self) -> "Settings":
        training = self.training
        parts = training.num_processes * training.accumulation_steps
        if training.global_batch_size % parts:
            times = f" x accumulation_steps={training.accumulation_steps}" if training.accumulation_steps > 1 else ""
            raise ValueError(
                f"training.global_batch_size={training.global_batch_size} is no multiple of "
                f"training.num_processes={training.num_processes}{times}; change one of them"
            )
        if self.streaming.streams % training.num_processes:
            raise ValueError(
                f"training.num_processes={training.num_processes} does not divide "
                f"streaming.streams={self.streaming.streams}; change one of them"
            )
        names = [join.name for join in self.joins]
        wrong = sorted({name for name in names if names.count(name) > 1 or name in _OWN_SOURCES})
        if wrong:
            raise ValueError(f"joins: {', '.join(wrong)}: each name once, and none of {', '.join(_OWN_SOURCES)}")
        return self

    @property
    def root(self) -> str:
        """Absolute `storage.root`."""
        return storage.absolute(self.storage.root)

    @property
    def all_sources(self) -> dict[str, SourceSettings]:
        """Whatever the pipeline reads, by name: rows, joined sources, rows to score."""
        scored = {} if self.scoring.source is None else {"score": self.scoring.source}
        return self.sources.rows | {join.name: join.source for join in self.joins} | scored

    def table(self, kind: str) -> str:
        """Return the URI of this pipeline's table `kind` (features, quarantine, scores, ...)."""
        return storage.join(self.root, "tables", f"{self.name}_{kind}")

    def to_yaml(self) -> str:
        """Return the resolved settings as a file that gives the same settings again."""
        return yaml.safe_dump(json.loads(self.model_dump_json()), sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice (the second would silently win)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load(files: Sequence[str], overrides: Sequence[str] = ()) -> Settings:
    """Return the settings of `files`, each over those before it, and `overrides` ("section.key=value") over all.

    Raises:
        ConfigError: one line naming every wrong key with its file and remedy.
    """
    merged: dict[str, Any] = {}
    origin: dict[tuple[str, ...], str] = {}
    for file in files:
        _merge(merged, read(file), origin, file)
    for override in overrides:
        _merge(merged, _parse_override(override), origin, f"--set {override}")
    return _validate(_fill_defaults(merged), origin, files)


def override(settings: Settings, values: Mapping[str, Any], *, source: str) -> Settings:
    """Return `settings` with `values` (section.key -> value) over them.

    Raises:
        ConfigError: one line naming every wrong key, with `source` for who set it.
    """
    merged = settings.model_dump(mode="json")
    origin: dict[tuple[str, ...], str] = {}
    for key, value in values.items():
        _merge(merged, nested(key.split("."), value), origin, source)
    return _validate(merged, origin, [source])


def nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    """Return {key: {key: ... value}}."""
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give (section.key, value) of nested settings."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read(file: str, *, option: str = "--config") -> dict[str, Any]:
    """Return what a YAML file holds, as it stands there.

    Raises:
        ConfigError: there is no such file, or it does not hold keys with values.
    """
    try:
        content = yaml.load(Path(file).read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); give {option} an existing file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected sections with keys, got {type(content).__name__}")
    return content


def _validate(merged: Mapping[str, Any], origin: Mapping[tuple[str, ...], str], files: Sequence[str]) -> Settings:
    try:
        # Through JSON, so that strict types still accept a YAML list for a tuple and 1 for 1.0.
        return Settings.model_validate_json(json.dumps(merged))
    except ValidationError as error:
        problems = (_explain(problem, origin, files) for problem in error.errors())
        raise ConfigError("; ".join(problems)) from None
    except TypeError as error:
        raise ConfigError(f"{', '.join(files)}: {error}; quote dates and other special YAML values") from None


def _fill_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Return `settings` with what the environment or another setting decides, so that the saved form is complete."""
    filled: dict[str, dict[str, Any]] = {
        "storage": {"root": os.environ.get("MLSPARK_HOME") or ".mlspark"},
        "sources": {"root": os.environ.get("MLSPARK_DATA") or "data"},
        "registry": {"model_name": settings.get("name")},
        "tracking": {"experiment": settings.get("name")},
    }
    complete = dict(settings)
    for section, defaults in filled.items():
        given = settings.get(section, {})
        if isinstance(given, dict):
            complete[section] = {**given, **{key: value for key, value in defaults.items() if not given.get(key)}}
    return complete


def _parse_override(override: str) -> dict[str, Any]:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}: expected section.key=value")
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: not valid YAML: {' '.join(str(error).split())}") from None
    return nested(keys, value)


def _merge(
    into: dict[str, Any],
    update: Mapping[str, Any],
    origin: dict[tuple[str, ...], str],
    source: str,
    at: tuple[str, ...] = (),
) -> None:
    """Lay `update` over `into`; sections of one kind merge, all else is replaced. Notes in `origin` who set what."""
    for key, value in update.items():
        path = (*at, str(key))
        origin[path] = source
        if isinstance(value, dict) and isinstance(into.get(key), dict) and _same_kind(into[key], value):
            _merge(into[key], value, origin, source, path)
        else:
            if isinstance(value, dict):
                value = dict(value)
                origin.update(dict.fromkeys(_paths(value, path), source))
            into[key] = value


def _same_kind(section: Mapping[str, Any], update: Mapping[str, Any]) -> bool:
    """Return whether a section may be merged: a source of another kind takes over none of the settings."""
    return bool("kind" not in update or update["kind"] == section.get("kind"))


def _paths(value: Mapping[str, Any], at: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for key, child in value.items():
        yield (*at, str(key))
        if isinstance(child, dict):
            yield from _paths(child, (*at, str(key)))


def _explain(problem: Any, origin: Mapping[tuple[str, ...], str], files: Sequence[str]) -> str:
    """Return "file: section.key: what is wrong" for one pydantic error."""
    # The tag of a union stands in pydantic's path, but not in the file.
    tagged = tuple(str(part) for part in problem["loc"])
    location = tuple(part for index, part in enumerate(tagged) if not _is_tag(tagged, index))
    source = next((origin[location[:n]] for n in range(len(location), 0, -1) if location[:n] in origin), None)
    prefix = f"{source or ', '.join(files)}: " + (".".join(location) + ": " if location else "")
    if problem["type"] == "extra_forbidden":
        known = _known_keys(tagged[:-1])
        close = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return f"{prefix}unknown key, {hint}"
    if problem["type"] == "missing":
        return f"{prefix}missing"
    if problem["type"] in ("union_tag_not_found", "union_tag_invalid"):
        return f"{prefix}kind: must be one of {problem['ctx'].get('expected_tags', ', '.join(_KINDS))}"
    if problem["type"] == "value_error":
        return f"{prefix}{problem['ctx']['error']}"
    return f"{prefix}{problem['msg'][0].lower()}{problem['msg'][1:]}, got {problem['input']!r}"


_KINDS = ("csv", "json", "parquet", "orc", "delta", "hive", "jdbc")


def _is_tag(path: Sequence[str], index: int) -> bool:
    if index == 0:
        return False
    if path[index] in FEATURE_KINDS:
        return path[index - 1].isdigit() and path[index - 2] == "inputs"
    return path[index] in _KINDS and path[index - 1] in ("learn", "validation", "test", "source")


def _known_keys(section: Sequence[str]) -> list[str]:
    """Return the keys of the settings class found by walking `section` from the top."""
    schema = Settings.model_json_schema()
    node = schema
    for part in section:
        node = _resolve(node, schema)
        if "discriminator" in node:
            node = {"$ref": node["discriminator"]["mapping"][part]}
        else:
            node = node.get("items", {}) if part.isdigit() else node.get("properties", {}).get(part, {})
    return list(_resolve(node, schema).get("properties", {}))


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    for choice in (node, *node.get("anyOf", ()), *node.get("allOf", ())):
        if "discriminator" in choice:
            return dict(choice)
        if "$ref" in choice:
            return dict(schema["$defs"][choice["$ref"].rsplit("/", 1)[-1]])
    return node
