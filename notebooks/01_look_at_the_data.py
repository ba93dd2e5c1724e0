# %% [markdown]
# # 01 Look at the data and its labels
#
# **Question.** What is one case, what are its labels, and what would mislead a model?
#
# **Inputs.** The run's data. **Outputs.** `cases.parquet` (and, for slides, `patches.parquet` and
# the pixels that a network is given).
#
# **Run time.** CPU, smoke: 10 s. GPU, full data: as long as reading every image once.

# %% tags=["parameters"]
CHALLENGE = "synthetic_slides"
SMOKE = True
SEED = 0

# %%
import pandas as pd

from kit import figures
from kit.challenges import open_run

run = open_run(CHALLENGE, smoke=SMOKE, settings={"seed": SEED})
cases = run.cases()
cases[["case_id", "label", "group", "split"]].head()

# %% [markdown]
# **Figure: classes and patients.** A rare class and patients with many cases are what stratified,
# grouped folds are for. Test cases carry no label: nothing before the submission looks at them.

# %%
figures.class_counts(cases)

# %% [markdown]
# **Figure: each class as the network sees it.** Look for what tells the classes apart, and for what
# tells them apart by accident: colour, sharpness, pen marks, the scanner's name in a corner.

# %%
store = run.pixels()
train = store.items[store.items.train]
shown = train.groupby("label").sample(8, random_state=SEED)
titles = list(shown.label)
figures.contact_sheet(store.pixels[shown.index], titles, title="Eight images of each class")

# %% [markdown]
# **Figure: images of three patients, a row each.** Images of one patient resemble each other more
# than images of one class do. A model that has seen the patient recognises him, not the disease.

# %%
sizes = train.groupby("group").size()
patients = sizes[sizes >= 8].index[:3]
mine = train[train.group.isin(patients)].groupby("group").sample(8, random_state=SEED)
figures.contact_sheet(store.pixels[mine.index], list(mine.group), title="Eight images of a patient")

# %% [markdown]
# The same in numbers: how much of the difference in mean colour between images is known once the
# class is known, and how much once the patient is.

# %%
colour = pd.DataFrame(store.pixels[train.index].mean(axis=(1, 2)), index=train.index)
known = {
    unit: colour.groupby(train[unit]).transform("mean").var().sum() / colour.var().sum()
    for unit in ("label", "group")
}
pd.Series(known, name="share of the variance of mean colour").round(2).to_frame()

# %% [markdown]
# ## Takeaways
# - Count patients before images; the group column is what folds and intervals stand on.
# - Whatever tells patients apart will be learnt if the split lets a model profit from it.
#
# Next: **02 Slides, tissue and patches**
