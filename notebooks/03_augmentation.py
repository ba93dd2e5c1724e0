# %% [markdown]
# # 03 Augmentation
#
# **Question.** What may change in an image without changing its label?
#
# **Inputs.** The run's images, a slide and its mask. **Outputs.** None: augmentation happens while
# a network trains and is never stored.
#
# **Run time.** CPU, smoke: 20 s. GPU, full data: the same.

# %% tags=["parameters"]
CHALLENGE = "synthetic_slides"
SMOKE = True
SEED = 0

# %%
import numpy as np
import pandas as pd

from kit import figures
from kit.annotations import read_mask
from kit.augment import POLICIES, Augment, views
from kit.challenges import open_run
from kit.slides import open_slide

run = open_run(CHALLENGE, smoke=SMOKE, settings={"seed": SEED})
pd.DataFrame({name: map(str, vars(one).values()) for name, one in POLICIES.items()},
             index=list(vars(POLICIES["none"]))).replace({"0.0": "", "False": ""})  # fmt: skip

# %% [markdown]
# A policy is one column: each step with its limit, 0 is off. A run takes the one of its kind of
# image; `--set augment=patch-stain` is `patch` without a step.
#
# **Figure: what the network sees of four images.** Each epoch draws anew; the originals are on the
# left.

# %%
store = run.pixels()
images = store.pixels[np.linspace(0, len(store.items) - 1, 4).astype(int)]
augment = Augment(run.settings.augment, seed=SEED)
draws = [np.asarray(augment(images, training=True)) for _ in range(7)]
figures.augmentation_grid(np.stack([images, *draws], axis=1))

# %% [markdown]
# **Figure: the run's policy, step by step, on a slide and its mask.** Tissue has no up or down, so
# that all eight symmetries are allowed; stain differs from laboratory to laboratory, so that
# colours may move a little. Geometry moves the mask too, by the same draw: one that stayed behind
# would label other tissue.

# %%
case = run.cases().query("split == 'train' and label == @run.dataset.positive").iloc[0]
slide = open_slide(run.root / case.path)
mask = read_mask(run.root / case["mask"], slide, values=run.dataset.mask_values)
thumbnail = slide.thumbnail(320)
side = min(thumbnail.shape[:2])
rows, columns = (np.arange(side) * mask.labels.shape[n] // thumbnail.shape[n] for n in (0, 1))
tumour = (mask.labels[rows][:, columns] == mask.values["tumour"]) * 1.0
image = thumbnail[:side, :side]
figures.augmentations(image, run.settings.augment, tumour)

# %% [markdown]
# **Figure: a strong policy.** Every step there is, each for half of the images. Look whether you
# would still call each picture by its label: what you would not, the network should not learn.

# %%
strong = f"{run.settings.augment.split('-')[0]}_strong"
figures.augmentations(image, strong if strong in POLICIES else "patch_strong", tumour)

# %% [markdown]
# **Why the mild policy is the default.** A small classifier, on statistics of colour and
# sharpness, is trained and judged on images as they are and as each policy leaves them, by whole
# patients. What its AUC loses, a small network must make up for with more epochs; a large one that
# learns for long would otherwise know its images by heart. Strong pays there, or in the first
# stage of a recipe (notebook 05). On small sets trained from scratch it costs more than it gives.

# %%
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kit.metrics import auc
from kit.shift import image_statistics

items = store.items[store.items.train & store.items.label.notna()]
items = items.sample(min(len(items), 1000), random_state=SEED).sort_index()
truth, found = (items.label == items.label.max()).to_numpy(), {}
items.groupby("label").agg(images=("case_id", "size"), patients=("group", "nunique"))

# %%
plain = store.pixels[items.index.to_numpy()]
model = make_pipeline(StandardScaler(), LogisticRegression())
for name in ("none", run.settings.augment, strong if strong in POLICIES else "patch_strong"):
    drawn = np.asarray(Augment(name, seed=SEED)(plain, training=True)).round().astype(np.uint8)
    prob = cross_val_predict(model, image_statistics(drawn), truth, groups=items.group,
                             cv=GroupKFold(3), method="predict_proba")  # fmt: skip
    found[name] = auc(truth, prob[:, 1], positive=True)
pd.Series(found, name="AUC of the small classifier").to_frame().round(3)

# %% [markdown]
# **Figure: mixed images and their labels.** `--set mix=both` blends half of the images with
# another of the batch (MixUp) or pastes a rectangle of it (CutMix). The target follows: the
# numbers are the share of the second class, in CutMix that of the area.

# %%
chosen = items.index[np.argsort(truth, kind="stable")]  # so that the partner is of either class
chosen = chosen[np.linspace(0, len(chosen) - 1, 64).astype(int)].to_numpy()
second, pictures, names = store.items.label[chosen] == items.label.max(), [], []
batch = {"images": store.pixels[chosen], "targets": np.eye(2)[second.astype(int)]}
for mix in ("mixup", "cutmix"):
    mixed = Augment("none", mix=mix, seed=SEED)(batch, training=True)
    share = np.asarray(mixed["targets"])[:, 1]
    shown = np.argsort(-np.minimum(share, 1 - share), kind="stable")[:4]
    pictures += [*np.asarray(mixed["images"])[shown]]
    names += [f"{mix}: {100 * part:.0f} %" for part in share[shown]]
figures.contact_sheet(np.stack(pictures), names, title=f"Share of {items.label.max()}")

# %% [markdown]
# **Figure: test-time views.** A prediction may be the mean over the symmetries that the policy
# allows (`tta`; off in a smoke run). A map of a view, such as a predicted mask, is turned back by
# the view's inverse before the mean is taken.

# %%
seen = views(run.settings.augment)
turned = np.concatenate([view.forward(image[None]) for view in seen])
figures.contact_sheet(turned, [view.name for view in seen], columns=4)

# %% [markdown]
# Off in prediction, the same with the same seed, and every view can be undone.

# %%
again = [np.asarray(Augment(run.settings.augment, seed=SEED)(images, training=True)) for _ in "ab"]
back = [view.inverse(view.forward(tumour[None]))[0] for view in seen]
facts = {
    "unchanged without training": np.array_equal(augment(images, training=False), images),
    "the same seed draws the same": np.array_equal(*again),
    "a mask comes back from each view": all(np.array_equal(one, tumour) for one in back),
}
pd.Series(facts, name="holds").to_frame()

# %% [markdown]
# ## Takeaways
# - A policy is a claim about the task: allow only what a pathologist would call the same picture.
# - Geometry moves image and mask together, colour the image alone; mixing moves the label too.
#
# Next: **04 Folds without leakage**
