# %% [markdown]
# # 03 Augmentation
#
# **Question.** What may change in an image without changing its label?
#
# **Inputs.** The run's images, a slide and its mask. **Outputs.** None: augmentation happens while
# a network trains and is never stored.
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
from kit.annotations import read_mask
from kit.augment import POLICIES, Augment
from kit.challenges import open_run
from kit.slides import open_slide

run = open_run(CHALLENGE, smoke=SMOKE, settings={"seed": SEED})
pd.DataFrame(map(vars, POLICIES.values()), index=list(POLICIES))

# %% [markdown]
# **Figure: what the network sees of four images.** Tissue has no up or down, so that all eight
# symmetries are allowed; stain differs from laboratory to laboratory, so that its colours may move.

# %%
store = run.pixels()
images = store.pixels[np.linspace(0, len(store.items) - 1, 4).astype(int)]
augment = Augment(run.settings.augment, seed=SEED)
draws = [np.asarray(augment(images, training=True)) for _ in range(7)]
figures.augmentation_grid(np.stack([images, *draws], axis=1))

# %% [markdown]
# **Figure: image and mask move together.** The same numbers turn the image and its tumour mask; a
# mask that stayed behind would label other tissue.

# %%
case = run.cases().query("split == 'train' and label == @run.dataset.positive").iloc[0]
slide = open_slide(run.root / case.path)
mask = read_mask(run.root / case["mask"], slide, values=run.dataset.mask_values)
thumbnail = slide.thumbnail(400)
side = min(thumbnail.shape[:2])
rows, columns = (np.arange(side) * mask.labels.shape[n] // thumbnail.shape[n] for n in (0, 1))
tumour = mask.labels[rows][:, columns] == mask.values["tumour"]
still = [np.stack([part] * 6) for part in (thumbnail[:side, :side], tumour[..., None] * 1.0)]
moved = augment(still, training=True)
images, masks = (np.concatenate([a[:1], b[1:]])[None] for a, b in zip(still, moved, strict=True))
figures.augmentation_grid(images, masks[..., 0])

# %% [markdown]
# Off in prediction: the layer passes images on as they are, and a draw repeats with its seed.

# %%
again = [np.asarray(Augment(run.settings.augment, seed=SEED)(images, training=True)) for _ in "ab"]
facts = {
    "unchanged without training": np.array_equal(augment(images, training=False), images),
    "the same seed draws the same": np.array_equal(*again),
}
pd.Series(facts, name="holds").to_frame()

# %% [markdown]
# ## Takeaways
# - A policy is a claim about the task: allow only what a pathologist would call the same picture.
# - Geometry moves image and mask together; colour moves the image alone.
#
# Next: **04 Folds without leakage**
