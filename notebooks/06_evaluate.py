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
import pandas as pd

from kit import figures
from kit.challenges import open_run
from kit.hard_cases import most_wrong
from kit.overview import figure_table
from kit.scoring import beside

run = open_run(CHALLENGE, smoke=SMOKE, settings={"seed": SEED})
metrics = run.metrics()
figure_table(metrics).query("part == 'all'").round(3)

# %% [markdown]
# What stands beside the figures: the judge's own number, the one that flatters, what holds for few
# patients, and whether the model can be told from chance at all.

# %%
pd.set_option("display.max_colwidth", 300)
pd.DataFrame({"beside the figures": beside(metrics) + metrics["warnings"]})

# %% [markdown]
# **Figure: metrics with their intervals, of all cases and by fold.** Intervals come from resampled
# patients, because cases of one patient are not independent. Where they are wide, a better figure
# may be luck; hollow ones rest on too few patients to be believed.

# %%
figures.forest(figure_table(metrics))

# %% [markdown]
# **Figure: ROC curve.** AUC asks only for the order of the cases; it needs no threshold.

# %%
scored, positive = run.scored().table, run.dataset.positive
truth, prob = (scored.y_true == positive).to_numpy(), scored[f"prob_{positive}"].to_numpy()
figures.roc(truth, prob, scored.group.to_numpy())

# %% [markdown]
# **Figure: precision and recall.** Where few cases are positive, this says more than the ROC curve:
# of those called positive, how many are.

# %%
figures.precision_recall(truth, prob, scored.group.to_numpy())

# %% [markdown]
# **Figure: calibration.** A probability of .8 should be right in eight of ten cases.

# %%
figures.calibration(truth, prob, scored.group.to_numpy())

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
# **Figure: the most wrong cases.** Those furthest on the wrong side are the ones to look at first:
# wrong labels, bad images, or a kind that training lacks.

# %%
wrong = most_wrong(scored, positive, 5)
items = run.pixels().items.drop_duplicates("case_id").reset_index().set_index("case_id")
shown = wrong[wrong.case_id.isin(items.index)]
images = run.pixels().pixels[items["index"].loc[shown.case_id].to_numpy()]
figures.cases_sheet(images, shown, title="The most wrong cases")

# %% [markdown]
# ## Takeaways
# - Give every figure with its interval and the number of patients behind it.
# - A threshold is part of the model: it is chosen on other cases than those it is judged on.
#
# Next: **07 Ensemble**
