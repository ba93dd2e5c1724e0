# %% [markdown]
# # 05 Train with cross-validation
#
# **Question.** What does a network say of cases that it has never seen?
#
# **Inputs.** The pixels and `folds.parquet`. **Outputs.** `models/` (a network and a history for
# each fold), `oof.parquet` and `test.parquet`.
#
# **Run time.** CPU, smoke: 15 s. GPU, full data: minutes to hours; progress tells.

# %% tags=["parameters"]
CHALLENGE = "synthetic_slides"
SMOKE = True
SEED = 0

# %%
import pandas as pd

from kit import figures
from kit.challenges import open_run
from kit.training import histories

run = open_run(CHALLENGE, smoke=SMOKE, settings={"seed": SEED})
names = ["model", "epochs", "batch_size", "learning_rate", "n_splits", "seeds", "augment", "tta"]
pd.Series(run.settings.model_dump(), name="setting")[names].to_frame()

# %% [markdown]
# One call trains what is missing. A fold's network learns from the other folds and then predicts
# its own: the out-of-fold predictions. Folds are independent jobs; a finished one is never redone.

# %%
oof = run.oof()
oof.head()

# %% [markdown]
# **Figure: loss and rate of each fold's network.** All folds should fall alike. One that stays high
# has other data; a loss that still falls asks for more epochs.

# %%
figures.history(histories(run.models))

# %% [markdown]
# **Figure: probabilities by true class.** Out of fold, each case is judged by a network that has
# seen neither the case nor its patient.

# %%
figures.probability_by_class(oof, positive=run.dataset.positive)

# %% [markdown]
# Each network also predicts the test cases; nobody looks at those before the submission.

# %%
run.test().groupby(["model", "fold", "seed"]).size().to_frame("test cases predicted")

# %% [markdown]
# ## Takeaways
# - Every training case has one honest prediction: out of fold. Everything after stands on these.
# - Training can be stopped at any time; finished folds stand, and the same call goes on.
#
# Next: **06 Evaluate: six metrics**
