#!/usr/bin/env bash
# Feast's default offline store gives back fewer rows than it is asked for: of labels of one key and moment it keeps the last.
#
# Packages: feast 0.67.0 with its extra duckdb (dask 2026.8.0, pandas 2.3.3, pyarrow 26.0.1).
# Expected: `get_historical_features` adds columns to the rows of `entity_df`: three labelled rows in, three out, from whichever
#           offline store.
# Seen:     "dask", the store of files unless another is chosen, drops duplicates by join key and event timestamp once it has
#           joined, so that of two labels of customer 1 at noon (say, two transactions in one second) the last stays, without a
#           word; "duckdb" gives all three.
# So:       count the rows that come back, or give each a moment or a key of its own. In a point-in-time join the rows of the
#           left side are told apart by an id, never by key and time.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q 'feast[duckdb]==0.67.0' dask==2026.8.0 pandas==2.3.3 pyarrow==26.0.1

cat > probe.py <<'PY'
import sys
import warnings
from datetime import datetime, timedelta, timezone

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float64
from feast.value_type import ValueType

warnings.simplefilter("ignore")
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
facts = {"customer": [1, 2], "at": [NOON - timedelta(hours=1)] * 2, "income": [100.0, 200.0]}
pd.DataFrame(facts).to_parquet("facts.parquet")
labels = pd.DataFrame({"customer": [1, 1, 2], "event_timestamp": [NOON] * 3, "label": [0, 1, 0]})


def joined(store_type):
    """Return the rows (customer, label, income) that a store of this type gives."""
    config = RepoConfig(
        project="labels",
        provider="local",
        registry=f"{store_type}.db",
        online_store=None,
        offline_store={"type": store_type},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    customer = Entity(name="customer", join_keys=["customer"], value_type=ValueType.INT64)
    source = FileSource(path="facts.parquet", timestamp_field="at")
    fields = [Field(name="income", dtype=Float64)]
    view = FeatureView(
        name="facts", entities=[customer], ttl=timedelta(days=1), schema=fields, source=source, online=False
    )
    store.apply([customer, view])
    found = store.get_historical_features(entity_df=labels, features=["facts:income"]).to_df()
    return sorted(found[["customer", "label", "income"]].itertuples(index=False, name=None))


seen = {store_type: joined(store_type) for store_type in ("dask", "duckdb")}
for store_type, rows in seen.items():
    print(f"{store_type:<8}{len(rows)} rows of {len(labels)}: {rows}")
expected = {
    "dask": [(1, 1, 100.0), (2, 0, 200.0)],
    "duckdb": [(1, 0, 100.0), (1, 1, 100.0), (2, 0, 200.0)],
}
sys.exit(0 if seen == expected else 1)
PY
venv/bin/python -W ignore probe.py
