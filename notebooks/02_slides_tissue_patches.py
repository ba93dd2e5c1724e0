# %% [markdown]
# # 02 Slides, tissue and patches
#
# **Question.** Which parts of a slide are worth a network's time, and how are they labelled?
#
# **Inputs.** A slide and its tumour mask. **Outputs.** `patches.parquet`: the plan of all slides.
#
# **Run time.** CPU, smoke: 5 s. GPU, full data: as long as an overview of every slide takes.

# %% tags=["parameters"]
CHALLENGE = "synthetic_slides"
SMOKE = True
SEED = 0

# %%
import pandas as pd

from kit import figures
from kit.annotations import read_mask
from kit.challenges import open_run
from kit.sampler import PatchSampler, draw
from kit.slides import open_slide
from kit.tissue import tissue_mask

run = open_run(CHALLENGE, smoke=SMOKE, settings={"seed": SEED})
cases = run.cases().query("split == 'train' and label == @run.dataset.positive")
cases[["case_id", "path", "mask", "label", "group"]].head()

# %% [markdown]
# A slide is a pyramid: the same picture at several resolutions, so that an overview costs little.

# %%
case = cases.iloc[0]
slide = open_slide(run.root / case.path)
levels = {"level": range(len(slide.levels)), "size": slide.levels, "downsample": slide.downsamples}
pd.DataFrame(levels)

# %% [markdown]
# **Figure: the slide and its tissue.** Most of a slide is glass. Otsu's threshold finds what is
# darker; colour finds pale tissue; pen ink is taken out, small specks are dropped.

# %%
tissue = tissue_mask(slide)
figures.tissue_overlay(slide.thumbnail(700), tissue.mask, title=case.case_id)

# %% [markdown]
# **Figure: the plan on the slide.** `PatchSampler` is frozen: the same slide and settings always
# give the same plan. Coordinates are level-0 pixels, so that a plan holds at any resolution.

# %%
chosen = run.settings
sampler = PatchSampler(chosen.patch_size, mpp=chosen.mpp, level=chosen.level)
mask = read_mask(run.root / case["mask"], slide, values=run.dataset.mask_values)
plan = sampler.plan(slide, tissue, mask, case_id=case.case_id, classes=run.dataset.classes)
figures.patches_on_thumbnail(slide, plan, sampler.footprint(slide)[0])

# %% [markdown]
# A patch is labelled by the share of tumour in it. Those with a little are "unsure" and are not
# learnt from: they would teach the border of a drawn line, not the tissue.

# %%
plan.groupby("label")[["tissue", "tumour"]].agg(["size", "min", "max"]).round(2)

# %% [markdown]
# **Figure: patches drawn for training.** A draw takes as many positive as negative patches.

# %%
drawn = draw(plan, per_slide=16, seed=SEED).sort_values("label")
images = slide.read_patches(drawn[["x", "y"]], sampler.patch_size, level=sampler.level)
figures.contact_sheet(images, list(drawn.label), title=f"Patches of {case.case_id}")

# %% [markdown]
# The run does the same for every slide, one job each.

# %%
run.patches().groupby(["case_id", "label"], dropna=False).size().unstack(fill_value=0).head(10)

# %% [markdown]
# ## Takeaways
# - Plan first, look at the plan, read pixels last: a wrong plan costs seconds, wrong training days.
# - Coordinates are level 0, resolution is µm per pixel; a level's number means nothing by itself.
#
# Next: **03 Augmentation**
