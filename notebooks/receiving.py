# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Rows from HDFS, Hive, S3 and PostgreSQL
#
# The same orders lie in four stores. Each is read into this session, and every row is held against one contract: what is
# good comes as a typed table, what is not comes with the reason.
#
# Addresses are taken from the environment: `HDFS_URL`, `S3_URL`, `METASTORE_URL`, `POSTGRES_URL`; so are the keys of S3
# (`AWS_...`), and user and password of the database (`MLSPARK_JDBC_USER`, `MLSPARK_JDBC_PASSWORD`), which no setting may
# hold. `make cluster` starts such servers on this machine; `source .mlspark/cluster/environment.sh`, before Jupyter is
# started, says where they are and gives Spark their jars. A store whose address is not set is left out.

# %%
import json
import os
import tempfile
import textwrap
from pathlib import Path

import pandas as pd
from pydantic import TypeAdapter

from mlspark import session
from mlspark.contracts import contract as contracts
from mlspark.contracts.own_columns import REASONS, SOURCE
from mlspark.errors import MlsparkError
from mlspark.intake.rows import take_in
from mlspark.sources import catalog

temporary = tempfile.TemporaryDirectory(prefix="mlspark-")  # removed in the last cell
work = Path(temporary.name)
addresses = {name: os.environ.get(name, "") for name in ("HDFS_URL", "S3_URL", "METASTORE_URL", "POSTGRES_URL")}
print("not set, so left out:", ", ".join(name for name, address in addresses.items() if not address) or "none")

# %% [markdown]
# ## The contract
#
# What an order must be. A row that is not is quarantined; more than a tenth of such rows, and the data is refused as a
# whole.

# %%
text = {
    "name": "orders",
    "max_quarantined_share": 0.1,
    "unique_key": ["order_id"],
    "rules": [{"name": "shipped_later", "expression": "shipped is missing or shipped >= ordered"}],
    "columns": [
        {"name": "order_id", "type": "bigint", "nullable": False},
        {"name": "country", "type": "string", "nullable": False, "allowed": ["AT", "CH", "DE"]},
        {"name": "amount", "type": "double", "nullable": False, "min": 0},
        {"name": "ordered", "type": "date", "nullable": False},
        {"name": "shipped", "type": "date"},
    ],
}
(work / "orders.json").write_text(json.dumps(text))
contract = contracts.load(str(work / "orders.json"))

# %% [markdown]
# ## Where rows are
#
# A source is a few settings, the same as in a pipeline's YAML.

# %%
settings = {
    "file": {"kind": "csv", "path": f"{work}/orders.csv", "header": True},
    "HDFS": {"kind": "csv", "path": f"{addresses['HDFS_URL']}/mlspark-notebook/orders", "header": True},
    "S3": {"kind": "parquet", "path": f"{addresses['S3_URL']}/mlspark-notebook/orders"},
    "Hive": {"kind": "hive", "table": "mlspark_notebook.orders", "metastore": addresses["METASTORE_URL"]},
    "PostgreSQL": {"kind": "jdbc", "url": addresses["POSTGRES_URL"], "query": "SELECT * FROM mlspark_notebook_orders"},
}
for store, name in zip(("HDFS", "S3", "Hive", "PostgreSQL"), addresses, strict=True):
    if not addresses[name]:
        del settings[store]
sources = {store: TypeAdapter(catalog.AnySource).validate_python(source) for store, source in settings.items()}

spark = session.start("receiving", catalog.spark_settings(sources.values()))

# %% [markdown]
# So that there is something to read: 500 made-up orders, six of them wrong, written to each store by Spark's own means.

# %%
orders = pd.DataFrame({"order_id": range(500)})
orders["country"] = [("AT", "CH", "DE")[number % 3] for number in orders["order_id"]]
orders["amount"] = [round(5 + number * 37 % 200 * 0.99, 2) for number in orders["order_id"]]
orders["ordered"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(orders["order_id"] // 10, unit="D")
orders["shipped"] = (orders["ordered"] + pd.Timedelta("3D")).where(orders["order_id"] < 480)
orders.loc[10, "country"] = "XX"
orders.loc[20, "amount"] = -1
orders.loc[30, "amount"] = None
orders.loc[40, "shipped"] = pd.Timestamp("2025-12-31")
orders.loc[50, "order_id"] = 51  # now there are two of it

written = orders.astype({"ordered": str, "shipped": str}).replace({"NaT": None}).astype(object)
rows = spark.createDataFrame(
    written.where(written.notna(), None), "order_id long, country string, amount double, ordered string, shipped string"
)
rows = rows.selectExpr("order_id", "country", "amount", "date(ordered) ordered", "date(shipped) shipped").cache()

rows.toPandas().to_csv(work / "orders.csv", index=False)
if "HDFS" in sources:
    rows.write.option("header", True).mode("overwrite").csv(settings["HDFS"]["path"])
if "S3" in sources:
    rows.write.mode("overwrite").parquet(settings["S3"]["path"])
if "Hive" in sources:
    spark.sql("CREATE DATABASE IF NOT EXISTS mlspark_notebook")
    rows.write.mode("overwrite").format("hive").saveAsTable("mlspark_notebook.orders")
if "PostgreSQL" in sources:
    rows.write.mode("overwrite").jdbc(
        addresses["POSTGRES_URL"],
        "mlspark_notebook_orders",
        properties={
            "user": os.environ["MLSPARK_JDBC_USER"],
            "password": os.environ["MLSPARK_JDBC_PASSWORD"],
            "driver": "org.postgresql.Driver",
        },
    )

# %% [markdown]
# ## Received
#
# `take_in` reads sources, holds each row against the contract and counts where the rows went. A text that is no number, a
# line with a field too many, a value out of range: all are bad rows, none is repaired.

# %%
good, bad, accounts = {}, {}, {}
for store, source in sources.items():
    found = catalog.find(spark, source, root="")
    with take_in(spark, {store: found}, contract) as taken:
        accounts[store] = {"rests on": found.rests_on, **taken.account.totals}
        good[store] = taken.good.select(contract.names).orderBy("order_id").toPandas()
        bad[store] = taken.bad.selectExpr(f"{SOURCE} store", f"{REASONS} reasons", "order_id", "amount").toPandas()
pd.DataFrame(accounts).T

# %% [markdown]
# Whatever the store, the good rows are the same, in the contract's types.

# %%
for store in good:
    pd.testing.assert_frame_equal(good[store], good["file"])
good["file"].head(3)

# %% [markdown]
# And so are the reasons of the others. Of two orders with one number neither is taken: nobody knows which is right.

# %%
reasons = {
    store: sorted(
        (row.order_id, ", ".join(f"{why['column']} {why['rule']}".strip() for why in row.reasons))
        for row in rows.itertuples()
    )
    for store, rows in bad.items()
}
assert all(found == reasons["file"] for found in reasons.values())
pd.DataFrame(reasons["file"], columns=["order_id", "reasons"])

# %% [markdown]
# ## Refused as a whole
#
# Columns are compared before a row is read. A table whose column was renamed is refused by name, and so is one of which too
# much is bad.

# %%
store = list(sources)[-1]
for change in (
    {"columns": [*text["columns"][:2], {"name": "price", "type": "double"}, *text["columns"][3:]]},
    {"max_quarantined_share": 0.001},
):
    (work / "other.json").write_text(json.dumps(text | change))
    other, found = contracts.load(str(work / "other.json")), catalog.find(spark, sources[store], root="")
    try:
        with take_in(spark, {store: found}, other):
            pass
    except MlsparkError as error:
        print(textwrap.fill(str(error), 100), end="\n\n")

# %% [markdown]
# In a pipeline the same source stands under `sources.learn`, and `prepare` writes the good rows into a feature table and the
# bad ones into its quarantine: see [the census, end to end](census.md).

# %%
spark.stop()
temporary.cleanup()
