# %% [markdown]
# # 08 Predict and submit
#
# **Question.** Is the file that goes to the platform whole, valid and what we meant?
#
# **Inputs.** Everything before. **Outputs.** `submission.csv`, `report.html`, `figures/`; on real
# data also a line in the challenge's ledger.
#
# **Run time.** CPU, smoke: 10 s, 20 s where training is missing. GPU, full data: the same.

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
# ## Takeaways
# - A submission is validated when it is written: the platform's verdict holds no surprise.
# - The run folder says all: settings, networks, out-of-fold predictions, submission and report.
#
# Next: one notebook for each seed challenge, from **10 HeLP 2019 slides** on
