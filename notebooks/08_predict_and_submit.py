# %% [markdown]
# # 08 Predict and submit
#
# **Question.** Is the file that goes to the platform whole, valid and what we meant?
#
# **Inputs.** Everything before. **Outputs.** `submission.csv`, `report.html`, `figures/`; on real
# data also a line in the challenge's ledger.
#
# **Run time.** CPU, smoke: 15 s, 25 s where training is missing. GPU, full data: the same.

# %% tags=["parameters"]
CHALLENGE = "synthetic_slides"
SMOKE = True
SEED = 0

# %%
import pandas as pd

from kit import figures, submission
from kit.challenges import open_run
from kit.errors import SubmissionError

run = open_run(CHALLENGE, smoke=SMOKE, settings={"seed": SEED})
path = run.submission()
submitted = pd.read_csv(path)
submitted.head().round(3)

# %% [markdown]
# It was read back and checked before this cell ended: every test case once, no other, probabilities
# in [0, 1], known labels. A file with a row missing does not pass.

# %%
short, style = path.with_name("short.csv"), run.challenge.style
short.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
try:
    submission.validate(short, style, list(submitted.case_id), run.dataset.classes)
except SubmissionError as error:
    said = str(error).replace(str(run.out), "OUT")
short.unlink()
pd.set_option("display.max_colwidth", 300)
pd.Series({"a row short": said}, name="validate says").to_frame()

# %% [markdown]
# **Figure: what is submitted.** Beside the out-of-fold predictions: shares of the classes that are
# far from those in training ask for a second look before anything is handed in.

# %%
column = f"prob_{run.dataset.positive}"
figures.submission_distribution(run.scored().table[column], submitted[column])

# %%
shares = {"training cases": run.folds().label, "submitted": submitted.label}
pd.DataFrame({k: v.value_counts(normalize=True) for k, v in shares.items()}).fillna(0).round(2)

# %% [markdown]
# The report holds the metrics, every figure and all settings in one page. This is the whole run:

# %%
done = run.complete()
files = sorted(path for path in run.out.iterdir() if path.is_file())
sizes = [path.stat().st_size / 1000 for path in files]
pd.DataFrame({"file": [path.name for path in files], "kB": sizes}).round(1)

# %% [markdown]
# Data that come later go through the same networks, ensemble and frozen threshold:
# `kit predict RUN --data NEW --out FILE`.
#
# ## Another scanner: the lesson of HeLP
#
# HeLP's best teams reached an AUC of .986 in development and .805 on new slides. What can be done
# before that happens? `benchmarks/scanners.py` trains on one scanner's slides and judges on those
# and on another's. This table is an **illustration**: both scanners are drawn, and the second one's
# change (stain, blur, compression, void) is of the kind that the remedies are made for.

# %%
from pathlib import Path

import kit
from kit.files import read_json

here = Path(kit.__file__).parents[1] / "benchmarks/results"  # in a clone; elsewhere there is none
there = [here / f"{name}.json" for name in ("scanners", "scanners_real")]
saved = [read_json(path) for path in there if path.is_file()]
tables = [pd.DataFrame(one["lines"], columns=one["columns"]).set_index("method") for one in saved]
tables[0] if tables else "measured in a clone of the repository"

# %% [markdown]
# **Figure: two drawn scanners.** Slide AUC by method, mean of several networks; intervals are over
# patients. What a method gains on the second scanner is to be read against their width.

# %%
longs = []
for table in tables:
    parts = [name for name in table if "[" in table[name].iloc[0]]
    long = table[parts].reset_index().melt("method", var_name="metric")
    cells = long.pop("value").str.extract(r"^(?P<value>\S+) \[(?P<low>\S+), (?P<high>\S+)\]")
    longs.append(long.rename(columns={"method": "part"}).join(cells.astype(float)))
figures.forest(longs[0], by="method") if longs else None

# %% [markdown]
# This one is **evidence**, of one kind of shift: real patients of the IDC patches, grouped by their
# stain, and each group left out whole, so that a stain is met that training never showed.

# %%
tables[1] if tables else None

# %% [markdown]
# **Figure: real stains, left out whole.** Patch AUC on each left-out group, and their mean. What
# gains most on drawn scanners gains nothing here, and normalising by Macenko or Reinhard loses:
# measure a remedy on your own data before you trust it.

# %%
figures.forest(longs[1], by="method") if longs else None

# %% [markdown]
# ## Takeaways
# - A submission is validated when it is written: the platform's verdict holds no surprise.
# - The run folder says all: settings, networks, out-of-fold predictions, submission and report.
#
# Next: one notebook for each seed challenge, from **10 HeLP 2019 slides** on
