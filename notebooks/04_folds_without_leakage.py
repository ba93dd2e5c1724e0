# %% [markdown]
# # 04 Folds without leakage
#
# **Question.** On which cases may a network be judged?
#
# **Inputs.** `cases.parquet`. **Outputs.** `folds.parquet`, a fold for each training case.
#
# **Run time.** CPU, smoke: 5 s. GPU, full data: the same.

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
