# %% [markdown]
# # 04 Folds without leakage
#
# **Question.** On which cases may a network be judged?
#
# **Inputs.** `cases.parquet`. **Outputs.** `folds.parquet`, a fold for each training case.
#
# **Run time.** CPU, smoke: 10 s. GPU, full data: the same.

# %% tags=["parameters"]
CHALLENGE = "synthetic_slides"
SMOKE = True
SEED = 0

# %%
import numpy as np
import pandas as pd

from kit import figures
from kit.challenges import open_run
from kit.errors import GroupLeakError
from kit.folds import assign_folds, check_no_leak

run = open_run(CHALLENGE, smoke=SMOKE, settings={"seed": SEED})
folds = run.folds()
folds.head()

# %% [markdown]
# **Figure: the folds.** Every patient lies in one fold; classes are spread as evenly as whole
# patients allow.

# %%
figures.fold_balance(folds)

# %% [markdown]
# **Figure: folds that forget patients.** The same cases dealt out one by one are balanced better
# and are worth nothing: networks are judged on patients whom they have seen.

# %%
random = np.random.default_rng(SEED)
dealt = random.permutation(len(folds)) % run.settings.n_splits
figures.fold_balance(folds.assign(fold=dealt))

# %% [markdown]
# The check stands in every run, so that no such table gets as far as training.

# %%
try:
    check_no_leak(folds.assign(fold=dealt))
    said = "no leak: here each patient has one case"
except GroupLeakError as error:
    said = str(error)
pd.set_option("display.max_colwidth", 300)
pd.DataFrame({"check_no_leak says": [said]})

# %% [markdown]
# **How much a leak flatters.** The same small classifier, on statistics of colour and sharpness
# alone, judged twice: on images dealt one by one, and on whole patients. The difference is memory.

# %%
from kit.metrics import auc
from kit.shift import image_statistics

store = run.pixels()
items = store.items[store.items.train & store.items.label.notna()]
chosen = items.sample(min(len(items), 3000), random_state=SEED)
statistics = image_statistics(store.pixels[np.sort(chosen.index)])
known = chosen.sort_index().merge(folds[["case_id", "group", "fold"]], on="case_id")
positive = (known.label == known.label.max()).to_numpy()
statistics.describe().loc[["mean", "std"]].round(2)

# %%
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import PredefinedSplit, cross_val_predict

model = HistGradientBoostingClassifier(random_state=SEED)
by_image = random.permutation(len(known)) % run.settings.n_splits
found = {}
for name, fold in (("images", by_image), ("patients", known.fold)):
    prob = cross_val_predict(model, statistics, positive, cv=PredefinedSplit(fold),
                             method="predict_proba")  # fmt: skip
    found[f"AUC, folds of {name}"] = [auc(positive, prob[:, 1], positive=True)]
pd.DataFrame(found).assign(flattery=lambda t: t.iloc[:, 0] - t.iloc[:, 1]).round(3)

# %% [markdown]
# **Copies.** Images that are the same, turned, mirrored or recompressed stand in one group, and so
# do crops that overlap. Here are the pairs that were found; none is good.

# %%
run.alike().head()

# %% [markdown]
# **Is the test set like the training set?** A classifier tries to tell them apart by the same
# statistics. An AUC near .5 says that it cannot; the columns say what is different.

# %%
from kit.folds import train_test_shift

first = store.items.drop_duplicates("case_id").merge(run.cases()[["case_id", "group"]])
looks = image_statistics(store.pixels[store.items.drop_duplicates("case_id").index.to_numpy()])
tests, shift = (first.split == "test").to_numpy(), None
if tests.any():
    shift = train_test_shift(looks, tests, groups=first.group, permutations=50)
said = [] if shift is None else [(shift.auc, *shift.interval, shift.p)]
pd.DataFrame(said, columns=["AUC", "low", "high", "p"]).round(2)

# %%
(looks.describe() if shift is None else shift.columns).head().round(2)

# %% [markdown]
# Folds depend on patients, labels and the seed; not on the order of the rows.

# %%
shuffled = folds.sample(frac=1, random_state=SEED)
again = assign_folds(shuffled, run.settings.n_splits, label="label", group="group", seed=SEED)
same = again.sort_index().equals(folds.fold)
pd.DataFrame({"the same folds from shuffled rows": [same]})

# %% [markdown]
# ## Takeaways
# - The unit of a fold is the patient. A random split of images measures memory.
# - Test cases stand in no fold: they are predicted once, at the end.
#
# Next: **05 Train with cross-validation**
