# %% [markdown]
# # 06 Evaluate: six metrics
#
# **Question.** How good is the run, how sure is that, and at which threshold?
#
# **Inputs.** `oof.parquet`. **Outputs.** `metrics.json`.
#
# **Run time.** CPU, smoke: 10 s, 20 s where training is missing. GPU, full data: the same.

# %% tags=["parameters"]
CHALLENGE = "synthetic_slides"
SMOKE = True
SEED = 0

# %%
import numpy as np

from kit import figures
from kit.challenges import open_run
from kit.overview import figure_table

run = open_run(CHALLENGE, smoke=SMOKE, settings={"seed": SEED})
metrics = run.metrics()
figure_table(metrics).round(3)

# %% [markdown]
# **Figure: metrics with their intervals.** Intervals come from resampled patients, because cases of
# one patient are not independent. Where they are wide, a better figure may be luck.

# %%
figures.forest(figure_table(metrics))

# %% [markdown]
# **Figure: ROC curve.** AUC asks only for the order of the cases; it needs no threshold.

# %%
scored, positive = run.scored().table, run.dataset.positive
truth, prob = (scored.y_true == positive).to_numpy(), scored[f"prob_{positive}"].to_numpy()
figures.roc(truth, prob, scored.group.to_numpy())

# %% [markdown]
# **Figure: metrics against the threshold.** The six need one. The best on these very cases would
# flatter; so each fold is judged at the threshold that is best on the other folds.

# %%
figures.metrics_against_threshold(truth, prob, metrics["threshold"])

# %% [markdown]
# **Figure: confusion matrix.** All six metrics are made of these four numbers.

# %%
figures.confusion_matrix(np.array(metrics["confusion"]), metrics["confusion_classes"])

# %% [markdown]
# The cases that are furthest on the wrong side are the ones to look at first.

# %%
wrong = scored[scored.y_pred != scored.y_true]
far = (wrong[f"prob_{positive}"] - metrics["threshold"]).abs().sort_values(ascending=False)
wrong.loc[far.index, ["case_id", "group", "y_true", "y_pred", f"prob_{positive}"]].head().round(3)

# %% [markdown]
# ## Takeaways
# - Give every figure with its interval and the number of patients behind it.
# - A threshold is part of the model: it is chosen on other cases than those it is judged on.
#
# Next: **07 Ensemble**
