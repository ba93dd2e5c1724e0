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
from kit.comparison import compare, difference_table
from kit.ensemble import Ensemble, nested, path_of_gain
from kit.hard_cases import disagreeing

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
# **What is a choice worth?** The run has one model; here a second, quick one stands beside it, so
# that there is something to choose. Weights are fitted on some folds and judged on the others.

# %%
other = open_run(CHALLENGE, smoke=SMOKE, settings={"seed": SEED, "epochs": 2})
second = other.oof().assign(model="two epochs")
both = pd.concat([run.oof().assign(model="the run"), second], ignore_index=True)
greedy = Ensemble("bagged_greedy", positive=run.dataset.positive)
chosen = greedy.fit(both)
pd.Series(dict(zip(chosen.models, chosen.weights, strict=True)), name="weight").to_frame()

# %% [markdown]
# **Figure: the gain of each added model**, on the rows it was chosen on: an optimistic figure.

# %%
figures.gain_of_models(path_of_gain(greedy, both), metric="AUC")

# %% [markdown]
# **Figure: the nested choice against equal weights.** An interval that holds 0 says that equal
# weights are as good. They usually are, with few cases.

# %%
held = pd.concat([part.held for part in nested(greedy, both, run.folds())])
held = held.sort_values("case_id", ignore_index=True)
equal = Ensemble("mean").fit(both).predict(both)
difference = compare(
    held.y_true, equal[column], held[column], threshold=0.5, positive=run.dataset.positive,
    groups=held.group, classes=run.dataset.classes,
)  # fmt: skip
figures.comparison(difference_table(difference), first="equal weights", second="nested choice")

# %% [markdown]
# Where the two disagree most is where an average can mend, or where a label is wrong.

# %%
pivot = both.pivot_table(index="case_id", columns="model", values=column)
disagreeing(pivot, 5).round(3)

# %% [markdown]
# ## Takeaways
# - Join by `case_id`: entries have been lost to files that were averaged row by row.
# - Begin with the mean; anything cleverer must beat it out of fold, beyond its interval:
#   `kit ensemble RUN... --method bagged-greedy` says whether it does.
#
# Next: **08 Predict and submit**
