# %% [markdown]
# # 07 Ensemble
#
# **Question.** How do several networks become one answer for each case?
#
# **Inputs.** `oof.parquet` and `test.parquet`. **Outputs.** The fitted ensemble, `ensemble.json`
# with the submission.
#
# **Run time.** CPU, smoke: 10 s, 20 s where training is missing. GPU, full data: the same.

# %% tags=["parameters"]
CHALLENGE = "synthetic_slides"
SMOKE = True
SEED = 0

# %%
import pandas as pd

from kit import figures
from kit.challenges import open_run

run = open_run(CHALLENGE, smoke=SMOKE, settings={"seed": SEED})
ensemble, column = run.ensemble(), f"prob_{run.dataset.positive}"
pd.Series(ensemble.to_dict(), name="ensemble").to_frame()

# %% [markdown]
# Every fold's network predicts every test case. Rows are joined by `case_id`, never by position.

# %%
networks = run.test().assign(network=lambda t: "fold " + t.fold.astype(str))
pivot = networks.pivot_table(index="case_id", columns="network", values=column)
pivot.head().round(3)

# %% [markdown]
# **Figure: how alike the networks rank the cases.** Networks that agree in everything gain nothing
# from being joined; disagreement is what an average can mend.

# %%
figures.agreement(pivot)

# %% [markdown]
# The mean weighs all networks alike and learns nothing, so that it cannot overfit. The spread
# between networks says on which cases they are unsure.

# %%
joined = ensemble.predict(run.test()).set_index("case_id")
spread = pivot.max(axis=1) - pivot.min(axis=1)
table = pd.DataFrame({"mean": joined[column], "spread between networks": spread})
table.sort_values("spread between networks", ascending=False).head().round(3)

# %% [markdown]
# ## Takeaways
# - Join by `case_id`: entries have been lost to files that were averaged row by row.
# - Begin with the mean; anything cleverer must beat it out of fold, beyond its interval.
#
# Next: **08 Predict and submit**
