# %% [markdown]
# # 00 Start here
#
# **Question.** Is this machine ready, which data are here, and what will a run leave behind?
#
# **Inputs.** `data_manifest.yaml`; the data folder, or nothing: with `SMOKE` the embedded data are
# drawn where they are missing. **Outputs.** An open run folder with its `settings.json`.
#
# **Run time.** CPU, smoke: 10 s. GPU, full data: the same, longer where much data is counted.

# %% tags=["parameters"]
CHALLENGE = "synthetic_slides"
SMOKE = True
SEED = 0

# %%
import pandas as pd

from kit import doctor, figures, inventory, platforms
from kit.challenges import open_run
from kit.manifest import load_manifest

run = open_run(CHALLENGE, smoke=SMOKE, settings={"seed": SEED})
pd.Series(run.settings.model_dump(), name="setting").to_frame()

# %% [markdown]
# The platform decides where data are looked for and where results go.

# %%
pd.Series(vars(platforms.detect()), name="this machine").astype(str).to_frame()

# %% [markdown]
# The doctor looks at packages, accelerator, memory and disk. What is good is left out here, so that
# no row is the best answer; `kit doctor` shows every line, and the data with them.

# %%
pd.set_option("display.max_colwidth", 120)
manifest = load_manifest()
findings = pd.DataFrame(map(vars, doctor.examine()))
findings[(findings.level != "good") & ~findings.name.isin(manifest.datasets)]

# %% [markdown]
# The manifest names every data set that the kit knows: add an entry, and your own is one of them.

# %%
inventory.overview(manifest)[["name", "kind", "here", "cases", "groups", "test"]]

# %% [markdown]
# **Figure: cases and patients.** This is what the run will use. Patients (groups), not images, are
# what a score must generalise to: their number says how sure any figure can be.

# %%
cases = run.cases()
figures.class_counts(cases)

# %% [markdown]
# Every stage writes one table or file. What stands is not made again, so that a run can be stopped
# at any moment and goes on where it stopped.

# %%
stages = "cases patches folds oof test".split()
files = [f"{stage}.parquet" for stage in stages] + ["metrics.json", "submission.csv", "report.html"]
pd.DataFrame({"file": files, "stands": [(run.out / name).is_file() for name in files]})

# %% [markdown]
# ## Takeaways
# - `open_run` computes nothing; each of its methods makes what is missing and returns a table.
# - The embedded data are drawn: they show the road, and no score on them is a result.
#
# Next: **01 Look at the data and its labels**
