"""A study in Optuna's storage: what it is of, which trials it has, and which comes next. Driver only.

A trial's parameters follow from seed, number of the trial and the trials before it, and from no state of this process. So
a study that was interrupted goes on as if it had not been, when its trials run one at a time.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from mlspark import storage
from mlspark.errors import ConfigError, StorageError, one_line
from mlspark.section import flat
from mlspark.settings.pipeline import Settings
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.metrics import title
from mlspark.tuning.search import SECTIONS, Search

_STATES: dict[TrialState, Literal["complete", "pruned", "failed"]] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """How to search."""

    study: str
    """Name of the study; the same name goes on with it."""
    trials: int
    """Number of ended trials to have in the study, those of earlier calls included."""
    parallel: int = 1
    """Number of trials at a time."""
    metric: str
    """Name of the task's metric of the validation rows that trials are compared by."""
    is_minimized: bool
    """Whether a lower value of it is better."""
    seed: int = 0
    storage_url: str = ""
    """Database of studies as SQLAlchemy names it; empty: a journal below storage.root."""

    @property
    def title(self) -> str:
        """What people call the metric."""
        return f"validation {title(self.metric)}"


@dataclass(frozen=True)
class Tried:
    """A trial that has ended."""

    number: int
    """Number of the trial, from 1. One that was interrupted and run again keeps its number."""
    state: Literal["complete", "pruned", "failed"]
    objective: float | None
    """Validation metric of the best checkpoint; of a pruned trial, that of its last epoch."""
    values: Mapping[str, Any]
    """section.key -> value."""
    run_id: str
    """Id of the trial's run in MLflow."""


def ranking(tried: tuple[Tried, ...], is_minimized: bool) -> list[Tried]:
    """Return the complete trials, the best first, of equal ones the earlier."""
    sign = 1 if is_minimized else -1
    complete = [
        (sign * trial.objective, trial) for trial in tried if trial.state == "complete" and trial.objective is not None
    ]
    return [trial for _, trial in sorted(complete, key=lambda pair: (pair[0], pair[1].number))]


def folder(settings: Settings) -> str:
    """Return where journals and pictures of studies are."""
    return storage.join(settings.root, "tune")


@contextmanager
def open_storage(settings: Settings, options: TuneOptions) -> Iterator[BaseStorage]:
    """Yield the place of the study, a journal or a database, which no other process has meanwhile.

    Two that run one study have one storage.root, as the study is of a table there. Where that is remote, processes are not
    kept apart.

    Raises:
        ConfigError: another process runs the study, or there is no such database.
        StorageError: the journal is damaged, or cannot be written.
    """
    if not storage.is_local(settings.root):
        if not options.storage_url:
            raise ConfigError(
                f"storage.root={settings.storage.root} is remote, where no journal can be; "
                f"give --storage the URL of a database, like postgresql://HOST/DATABASE"
            )
        yield _database(options.storage_url)
        return
    kind = "lock" if options.storage_url else "journal"
    file = Path(storage.local_path(folder(settings)), f"{options.study}.{kind}")
    check_place(settings)
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends, in whatever way
        except BlockingIOError:
            raise ConfigError(
                f"study {options.study}: another process runs it; wait for it, or give another --study"
            ) from None
        yield _database(options.storage_url) if options.storage_url else _journal(file)


def check_place(settings: Settings) -> None:
    """Raise StorageError where nothing can be written beside the journals of studies."""
    if storage.is_local(settings.root):
        storage.check_writable(folder(settings))


def _journal(file: Path) -> JournalStorage:
    """Return the study that a journal holds, which no other process writes to."""
    content = file.read_bytes()
    if not content.endswith(b"\n"):  # a full disk took half of a line: what it told is not so, and the next begins anew
        os.truncate(file, content.rfind(b"\n") + 1)
    try:
        return JournalStorage(JournalFileBackend(str(file)))
    except Exception as error:  # whatever lines that are none of Optuna's lead to
        raise StorageError(
            f"{file}: the journal of a study cannot be read ({one_line(repr(error))}); restore the file, or give another "
            f"--study"
        ) from error


def _database(url: str) -> RDBStorage:
    try:
        return RDBStorage(url)
    except Exception as error:  # of SQLAlchemy or of any database's driver
        raise ConfigError(f"--storage: no database to be opened there: {str(error).splitlines()[0]}") from error


def identity(settings: Settings, search: Search, options: TuneOptions, snapshot: Snapshot) -> dict[str, Any]:
    """Return all that decides what trials come out, as section.key -> JSON value."""
    sections = {name: getattr(settings, name).model_dump(mode="json") for name in SECTIONS}
    kept = {key: value for key, value in flat(sections) if key not in search.space}
    return {
        "metric": options.metric,
        "seed": options.seed,
        "table": f"{snapshot.table} version {snapshot.version} ({snapshot.fingerprint[:12]})",
        **{f"search of {key}": json.dumps(entry) for key, entry in search.to_json().items()},
        **kept,
    }


def open_study(store: BaseStorage, options: TuneOptions, identity: Mapping[str, Any]) -> optuna.Study:
    """Return the study of this name, a new one if there is none.

    Raises:
        ConfigError: it is of another search; names each difference.
    """
    study = optuna.create_study(
        storage=store,
        study_name=options.study,
        direction="minimize" if options.is_minimized else "maximize",
        pruner=MedianPruner(n_startup_trials=4, n_warmup_steps=1),
        load_if_exists=True,
    )
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("identity", dict(identity))
        return study
    changes = [
        f"{key} (was {known.get(key, 'absent')}, is {identity.get(key, 'absent')})"
        for key in dict.fromkeys([*known, *identity])
        if known.get(key) != identity.get(key)
    ]
    if changes:
        raise ConfigError(
            f"study {options.study} is of another search: {'; '.join(changes)}; change it back, or give another --study"
        )
    return study


def latest(study: optuna.Study) -> dict[int, FrozenTrial]:
    """Return the newest attempt at each trial, by the trial's number from 0. An attempt without one drew nothing yet."""
    attempts = study.get_trials(deepcopy=False)
    return {trial.user_attrs["draw"]: trial for trial in attempts if "draw" in trial.user_attrs}


def has_ended(trial: FrozenTrial) -> bool:
    """Return whether a trial is not to be run again; a failed one without a message was interrupted."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or "message" in trial.user_attrs


def requeue_interrupted(study: optuna.Study) -> list[str]:
    """Have those trials run again that ran when their driver ended; returns the ids of their MLflow runs."""
    interrupted = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in interrupted:
        study.tell(trial.number, state=TrialState.FAIL)
    # All that lack a new attempt, not only those just reported: the driver may end between the two as well.
    for draw, trial in latest(study).items():
        if trial.state == TrialState.FAIL and not has_ended(trial):
            study.enqueue_trial(trial.params, user_attrs={"draw": draw})
    return [trial.user_attrs["run_id"] for trial in interrupted if "run_id" in trial.user_attrs]


def ask(study: optuna.Study, search: Search, seed: int) -> tuple[int, Trial]:
    """Return (number from 0, trial): one that is to be repeated, else a new one."""
    known = latest(study)
    waiting = [draw for draw, trial in known.items() if trial.state == TrialState.WAITING]
    draw = min(waiting, key=lambda draw: known[draw].number) if waiting else len(known)
    # A sampler's generator is lost with its process, so each trial has a generator of its own.
    study.sampler = TPESampler(seed=int(np.random.SeedSequence([seed, draw]).generate_state(1)[0]))
    trial = study.ask(search.distributions())
    trial.set_user_attr("draw", draw)
    return draw, trial


def tried(study: optuna.Study, search: Search) -> tuple[Tried, ...]:
    """Return the ended trials by number."""
    ended = sorted((draw, trial) for draw, trial in latest(study).items() if has_ended(trial))
    return tuple(
        Tried(
            draw + 1, _STATES[trial.state], trial.value, search.values(trial.params), trial.user_attrs.get("run_id", "")
        )
        for draw, trial in ended
    )
