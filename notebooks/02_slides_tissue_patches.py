# %% [markdown]
# # 02 Slides, tissue and patches
#
# **Question.** Which parts of a slide are worth a network's time, and how are they labelled?
#
# **Inputs.** Slides and their tumour masks. **Outputs.** `patches.parquet`: the plan of all slides.
#
# **Run time.** CPU, smoke: 10 s. GPU, full data: as long as an overview of every slide takes.

# %% tags=["parameters"]
CHALLENGE = "synthetic_slides"
SMOKE = True
SEED = 0

# %%
import pandas as pd

from kit import figures, quality
from kit.annotations import read_mask
from kit.challenges import open_run
from kit.sampler import PatchSampler, read_planned
from kit.slides import open_slide
from kit.tissue import tissue_mask

run = open_run(CHALLENGE, smoke=SMOKE, settings={"seed": SEED})
cases = run.cases().query("split == 'train' and label == @run.dataset.positive")
cases[["case_id", "path", "mask", "label", "group"]].head()

# %% [markdown]
# ## Before anything is learnt: what stands on each slide?
#
# One row a slide: size, resolution, tissue, pen, blur, patches. `kit patches SLIDE...` prints the
# same table. A slide without tissue, without resolution, or of another reader shows here.

# %%
chosen = run.settings
sampler = PatchSampler(chosen.patch_size, mpp=chosen.mpp, level=chosen.level)
paths = [run.root / path for path in cases.path[:6]]
masks = [run.root / path for path in cases["mask"][:6]]
values = run.dataset.mask_values
plan, table, failed = quality.survey(paths, sampler, masks=masks, values=values)
table

# %% [markdown]
# **Figure: the slides side by side.** Thumbnails with the tissue outlined. Pen marks and empty
# slides are seen here in a second, and never again.

# %%
slides = [open_slide(path, mpp=run.dataset.mpp) for path in paths]
figures.mosaic(slides)

# %% [markdown]
# **Figure: stain by slide.** One line a slide. A slide of another scanner or another day's stain
# stands apart, and so will the network's errors: stain augmentation and folds by site are for it.

# %%
figures.stain_by_slide(slides)

# %% [markdown]
# ## One slide
#
# A slide is a pyramid: the same picture at several resolutions, so that an overview costs little.
# Downsamples are floats (2.0005, 4.016): cut to whole numbers, a footprint is read a third off.

# %%
case, slide = cases.iloc[0], slides[0]
pd.DataFrame(
    {"level": range(len(slide.levels)), "size": slide.levels, "downsample": slide.downsamples}
)

# %% [markdown]
# **Figure: the slide and its tissue.** Most of a slide is glass. Otsu's threshold, taken over the
# scanned pixels only, finds what is darker; colour finds pale tissue; pen ink is taken out.

# %%
tissue = tissue_mask(slide)
figures.tissue_overlay(slide.thumbnail(700), tissue.mask, title=case.case_id)

# %% [markdown]
# **Figure: the plan on the slide.** `PatchSampler` is frozen: the same slide and settings always
# give the same plan. Coordinates are level-0 pixels, so that a plan holds at any resolution.

# %%
mask = read_mask(run.root / case["mask"], slide, values=values)
plan = sampler.plan(slide, tissue, mask, case_id=case.case_id, classes=run.dataset.classes)
figures.patches_on_thumbnail(slide, plan)

# %% [markdown]
# A patch is labelled by the share of tumour in it. Those with a little are "unsure" and are not
# learnt from: they would teach the border of a drawn line, not the tissue.

# %%
plan.groupby("label")[["tissue", "tumour"]].agg(["size", "min", "max"]).round(2)

# %% [markdown]
# **Figure: patches drawn for training, by class.** An epoch is a table drawn from the plan: it can
# be looked at before a network sees it. The same seed draws the same rows anywhere.

# %%
from kit.draws import draw

drawn = draw(plan, per_slide=16, seed=SEED)
figures.patches_by_class(read_planned(slide, drawn), drawn.label)

# %% [markdown]
# The run does the same for every slide, one job each.

# %%
run.patches().groupby(["case_id", "label"], dropna=False).size().unstack(fill_value=0).head(10)

# %% [markdown]
# ## Real slides, where they are
#
# The manifest's own slide sets, where this machine has them beside the drawn ones; none is none.

# %%
from kit import inventory, manifest

known = manifest.load_manifest()
here = inventory.overview(known, None).query("kind == 'slides' and here")
real = [known.dataset(name) for name in here.name if not known.dataset(name).synthetic]
paths = [one.root() / path for one in real for path in one.cases().path]
quality.survey(paths, PatchSampler(64))[1] if paths else here[["name", "cases", "classes"]]

# %% [markdown]
# ## Takeaways
# - Plan first, look at the plan, read pixels last: a wrong plan costs seconds, wrong training days.
# - Coordinates are level 0, resolution is µm per pixel; a level's number means nothing by itself.
#
# Next: **03 Augmentation**
