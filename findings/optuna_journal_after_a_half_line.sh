#!/usr/bin/env bash
# An Optuna journal survives a writer that was killed in the middle of a line, until the next one writes.
#
# Packages: optuna 5.0.0.
# Expected: the file storage of the journal is made for several writers, any of which may be killed. A
#           last line without its end is left out when the study is opened, and written over, or ended,
#           by the next writer.
# Seen:     the study opens and has its finished trials. The next trial is appended behind the half line,
#           so that both become one line that is no JSON: that very write raises JSONDecodeError, and
#           so does each opening from then on.
# So:       before a journal is used again, cut what follows its last line break.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q optuna==5.0.0

cat > probe.py <<'PY'
import json
import sys
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

optuna.logging.set_verbosity(optuna.logging.ERROR)
journal = Path("journal.log")


def opened():
    return optuna.create_study(storage=JournalStorage(JournalFileBackend(str(journal))), study_name="s", load_if_exists=True)


def objective(trial):
    return trial.suggest_float("x", 0, 1)


def outcome(action):
    try:
        return action()
    except json.JSONDecodeError:
        return "JSONDecodeError"


opened().optimize(objective, n_trials=3)
content = journal.read_bytes()
with journal.open("ab") as file:  # what a kill leaves: the beginning of one more record
    file.write(content.splitlines(keepends=True)[-1][:20])
after_the_kill = outcome(lambda: len(opened().trials))
written = outcome(lambda: opened().optimize(objective, n_trials=1))
after_the_next = outcome(lambda: len(opened().trials))

whole_lines = content.count(b"\n")
journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:whole_lines]))
mended = outcome(lambda: len(opened().trials))

print("optuna", optuna.__version__)
print("expected: 3 trials after the kill, 4 after the next writer")
print(f"seen:     {after_the_kill} after the kill, then {written}, {after_the_next}; cut back by hand: {mended}")
same = after_the_kill == 3 and after_the_next == "JSONDecodeError" and mended == 3
print("reproduced" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PY
venv/bin/python probe.py
