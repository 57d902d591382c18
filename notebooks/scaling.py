# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # How many ranks?
#
# More ranks take less time and more machines. `mlspark plan` says how much of each, before any is rented; here it is called
# from Python, beside the plan of rows that it rests on and what a stream gives on this machine. Nothing here starts Spark.

# %%
import tempfile
import time
from pathlib import Path

import deltalake
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa

import mlspark
from mlspark.settings import loading
from mlspark.stages.plan import Given, plan
from mlspark.streaming.plan import Plan, RankPlan
from mlspark.streaming.stream import Stream

checkout = Path(mlspark.__file__).parents[1]  # of the repository, for its conf/
temporary = tempfile.TemporaryDirectory(prefix="mlspark-")  # removed in the last cell
work = Path(temporary.name)

# %% [markdown]
# ## Which rank reads which rows
#
# The order of an epoch is computed, not drawn by each rank: it depends on the seed, the epoch and the table, never on the
# number of ranks. So each row is read once, every rank takes the same number of steps, and a step has the same rows
# whether one rank takes it or eight share it. Rows come in eight lanes (`streaming.lanes`): of three ranks two have three of
# them and one has two, so their shares differ.

# %%
order = Plan(rows_per_group=np.full(200, 5_000), batch_size=1024, seed=0, epoch=0)
shares = pd.DataFrame(
    [
        {"ranks": ranks, "rank": rank, "rows": RankPlan(order, rank, ranks).num_rows, "steps": order.num_steps}
        for ranks in (1, 3, 8)
        for rank in range(ranks)
    ]
)
assert (shares.groupby("ranks")["rows"].sum() == 1_000_000).all()
shares.groupby("ranks")["rows"].agg(["min", "max", "sum"]).assign(steps=order.num_steps)

# %% [markdown]
# ## What a stream gives here
#
# A Delta table of a million rows and ten columns, shuffled, into batches of tensors: three epochs, the first of which opens
# the files. The figure is that of the machine that made this page.

# %%
rng = np.random.default_rng(0)
rows = {"row_id": np.arange(1_000_000)} | {f"x{number}": rng.random(1_000_000, np.float32) for number in range(10)}
deltalake.write_deltalake(work / "rows", pa.table(rows))

seconds = []
with Stream(str(work / "rows"), batch_size=4096) as stream:
    for epoch in range(3):
        started = time.perf_counter()
        ids = np.concatenate([batch["row_id"].numpy() for batch in stream])
        seconds.append(time.perf_counter() - started)
        assert len(ids) == len(np.unique(ids)) == 1_000_000
        print(f"epoch {epoch}: {1e6 / seconds[-1]:,.0f} rows/s, first ids {ids[:4]}")

# %% [markdown]
# ## Hours and money
#
# A hundred billion rows, of which a rank is taken to learn 50,000 a second: far fewer than a stream gives, so computing is
# the limit. Prices are those of `conf/machines.yaml`, with their source and date; put your own there.

# %%
settings = loading.load(
    [str(checkout / "conf" / "census.yaml")],
    [
        f"storage.root={work / 'home'}",
        f"cost.machines={checkout / 'conf' / 'machines.yaml'}",
        "cost.tier=m7g.large",
        "training.global_batch_size=1048576",
        "training.epochs=1",
    ],
)
given = Given(rows=10**11, row_bytes=31, rows_per_second=50_000, step_seconds=0.002, parameters=100_000)
planned = plan(settings, given, hours=48)
shown = pd.DataFrame(planned["ranks"]).set_index("ranks")
shown[["machines", "steps_per_epoch", "most_rows", "hours", "money", "efficiency", "limit"]].round(2)

# %%
print(f"the cheapest within 48 hours: {planned['recommended']} ranks")
print(f"the fastest for 25 dollars: {plan(settings, given, budget=25)['recommended']} ranks")

# %% [markdown]
# On a network of 1 Gbit/s, and with a model of ten million parameters, the gradients take longer than the rows: from some
# number on, further ranks cost and hardly help.

# %%
slow = Given(
    rows=10**11, row_bytes=31, rows_per_second=50_000, step_seconds=0.002, parameters=10_000_000,
    network_bytes_per_second=1e9 / 8,
)  # fmt: skip
other = pd.DataFrame(plan(settings, slow)["ranks"]).set_index("ranks")
figure, (time_axes, money_axes) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for label, ranks in (("100,000 parameters, 10 Gbit/s", shown), ("10,000,000 parameters, 1 Gbit/s", other)):
    time_axes.plot(ranks.index, ranks["hours"], marker="o", markersize=4, label=label)
    money_axes.plot(ranks.index, ranks["money"], marker="o", markersize=4, label=label)
time_axes.plot(shown.index, shown["hours"].iloc[0] / shown.index, "k:", linewidth=1, label="no loss")
time_axes.set(xscale="log", yscale="log", xlabel="ranks", ylabel="hours")
money_axes.set(xscale="log", xlabel="ranks", ylabel="USD", ylim=(0, None))
time_axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# What the model leaves out, and where each figure comes from when it is not given, is in [how many ranks](../scaling.md).

# %%
temporary.cleanup()
