# %% [markdown]
# # 05 Train with cross-validation
#
# **Question.** What does a network say of cases that it has never seen?
#
# **Inputs.** The pixels and `folds.parquet`. **Outputs.** `models/` (a network and a history for
# each fold), `oof.parquet` and `test.parquet`.
#
# **Run time.** CPU, smoke: 20 s. GPU, full data: minutes to hours; progress tells.

# %% tags=["parameters"]
CHALLENGE = "synthetic_slides"
SMOKE = True
SEED = 0

# %%
import pandas as pd

from kit import figures, histories
from kit.challenges import open_run
from kit.recipes import recipe_of

run = open_run(CHALLENGE, smoke=SMOKE, settings={"seed": SEED})
names = ["model", "epochs", "batch_size", "optimizer", "learning_rate", "schedule", "augment",
         "ema", "monitor", "keep", "n_splits", "seeds", "tta"]  # fmt: skip
pd.Series(run.settings.model_dump(), name="setting")[names].to_frame()

# %% [markdown]
# **Figure: the recipe's learning rate, step by step.** Warm-up, then down half a cosine. The
# recipe is all that decides how a network learns; `--set learning_rate=.001` changes it.

# %%
from dataclasses import replace

recipe, items = recipe_of(run.settings), run.pixels().items
learnt = items.train.sum() * (1 - 1 / run.settings.n_splits)
per_epoch = max(1, int(learnt // recipe.batch_size))
figures.schedule(recipe, per_epoch)

# %% [markdown]
# **Figure: a recipe in three stages, as in KHD 2019.** First the head alone, so that pretrained
# layers are not torn up by a head that knows nothing; then all layers with strong augmentation;
# last a mild one at a tenth of the rate. Each stage has an optimizer of its own.

# %%
staged = replace(recipe, head_epochs=2, epochs=12, second_epochs=4, augment="patch_strong")
figures.schedule(staged, per_epoch)

# %% [markdown]
# One call trains what is missing. A fold's network learns from the other folds and then predicts
# its own: the out-of-fold predictions. While it trains, a bar shows the epochs and the time left;
# each network that ends says a line.

# %%
oof = run.oof()
oof.head()

# %% [markdown]
# **Figure: history of each fold's network.** All should fall alike. A loss that stays high has
# other data; one that still falls asks for more epochs; a watched figure that falls while the loss
# does too is a network that learns by heart.

# %%
history = histories.read_all(run.models)
figures.history(history)

# %% [markdown]
# **What stands after each epoch.** The history, and in `models/state/` the whole state: weights,
# optimizer, averages, best epoch. Two generations are kept, in case one is damaged, until the
# network is finished. A run that is killed goes on after the last epoch that stands, and gives the
# same table to the bit; the generators start anew from (seed, fold, epoch). What is left here is
# finished:

# %%
files = sorted(path for path in run.models.rglob("*") if path.is_file())
pd.DataFrame({"file": [str(path.relative_to(run.models)) for path in files],
              "kB": [round(path.stat().st_size / 1000, 1) for path in files]})  # fmt: skip

# %% [markdown]
# The same call once more trains nothing: a finished network is known by the fingerprint of all
# that decides it, so that another recipe, or another image in its folds, trains it again.

# %%
import time

begun = time.monotonic()
again = open_run(CHALLENGE, smoke=SMOKE, settings={"seed": SEED}).oof()
seconds = round(time.monotonic() - begun, 1)
pd.DataFrame({"trained in (s)": [round(history.seconds.sum(), 1)], "read again in (s)": [seconds],
              "the same table": [again.equals(oof)]})  # fmt: skip

# %% [markdown]
# **What choosing the epoch does to the figures.** `keep=best` takes the epoch that the held-out
# fold likes best, and is then judged on that fold: it has seen the answers. The honest figure is
# that of an epoch which the *other* folds like best. The default, `keep=last`, chooses nothing.

# %%
watched = history.pivot(index="epoch", columns="network", values="value")
others = {name: watched.drop(columns=name).mean(axis=1).idxmax() for name in watched}
chosen = pd.DataFrame({
    "last epoch": watched.iloc[-1],
    "best epoch of the others": {name: watched[name][epoch] for name, epoch in others.items()},
    "its own best epoch": watched.max(),
})  # fmt: skip
chosen["flattery"] = chosen["its own best epoch"] - chosen["best epoch of the others"]
chosen.round(3)

# %% [markdown]
# **A limit of time.** `kit run --time-budget 8h` stops after the last epoch that leaves time to
# predict and write; it knows what an epoch takes from those before it. Networks that are not
# finished are left out and named, the submission stands, and the same command without the limit
# goes on.

# %%
spent = history.groupby("network").seconds.agg(["size", "mean", "sum"]).round(2)
spent.set_axis(["epochs", "an epoch (s)", "together (s)"], axis=1)

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
# **Beyond one machine.** What takes long is a list of named jobs: draw a patient, plan a slide,
# write a shard, train a network, predict some slides. `--workers 2` runs them in processes,
# `--cluster local:2` or `tcp://HOST:PORT` on Dask. Outcomes come in the order of the jobs, so the
# table is the same; a job that kills its worker twice is named, and the others finish.

# %%
from kit import jobs

work = [jobs.Job(f"square of {n}", pow, (n, 2)) for n in range(4)]
here, there = (jobs.run(work, title="squares", workers=n) for n in (1, 2))
pd.DataFrame({"job": [one.name for one in here], "one process": jobs.values(here),
              "two processes": jobs.values(there)})  # fmt: skip

# %% [markdown]
# A network has a GPU to itself; more GPUs than networks train one together, in the same steps. What
# ten thousand slides would take on 1, 2, 4, … workers like this machine's cores (or its GPU) is
# measured and told by `kit doctor --estimate help2019 --slides 10000 --workers 32`.

# %% [markdown]
# ## Takeaways
# - Every training case has one honest prediction: out of fold. Everything after stands on these.
# - Training can be stopped at any time; what stands is kept, and the same call goes on.
#
# Next: **06 Evaluate: six metrics**
