"""Kaggle's rules for `kernel-metadata.json` and the notebook that it names."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kit.bundles.push import FOLDER, KERNEL, PLACEHOLDER, Push, Rules, read, said, unread

FLAGS = ("is_private", "enable_gpu", "enable_tpu", "enable_internet")
SOURCES = ("dataset_sources", "competition_sources", "kernel_sources", "model_sources")
EXPLICIT = (
    "id", "title", "code_file", "language", "kernel_type", *FLAGS, "machine_shape", *SOURCES,
)  # fmt: skip
"""What must be said, so that no default of the platform decides."""
OPTIONAL = ("id_no", "keywords", "docker_image", "docker_image_pinning_type")
LANGUAGES, TYPES = ("python", "r", "rmarkdown"), ("script", "notebook")
PINNING = ("original", "latest")
GPUS = (
    "NvidiaTeslaP100", "NvidiaTeslaT4", "NvidiaTeslaT4Highmem", "NvidiaL4", "NvidiaL4X1",
    "NvidiaTeslaA100", "NvidiaH100", "NvidiaRtxPro6000",
)  # fmt: skip
UNFIT = {
    "nvidiateslap100": "the image's PyTorch does not know it, and it is retired",
    "nvidiartxpro6000": "the image's TensorFlow does not know it",
    "tpuv38": "it is retired", "tpu1vmv38": "it is retired", "tpuv232": "it is retired",
    "tpuv2256": "it is retired",
}  # fmt: skip
LEAST_SLUG, LEAST_TITLE, MOST_CODE_MB = 5, 5, 1.0
SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
OWNER = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*")
MOUNTED = re.compile(r"/kaggle/input/(?:competitions/|datasets/[\w-]+/)?([A-Za-z0-9][\w-]*)")
RULES = Rules()


def slug_of(identity: object) -> str:
    """Return the second part of "owner/slug", or "" where there is none."""
    parts = identity.split("/") if isinstance(identity, str) else []
    return parts[1] if len(parts) >= 2 else ""


@RULES("kernel-metadata", f"{KERNEL} is a JSON object", "make the bundle again: kit bundle kaggle")
def _metadata(push: Push) -> Iterator[str]:
    path = push.folder / KERNEL
    if read(path) is None:
        yield unread(path)


@RULES("unknown-key", "no key but Kaggle's: others pass in silence", "correct its spelling")
def _unknown(push: Push) -> Iterator[str]:
    yield from (said(key) for key in push.kernel if key not in (*EXPLICIT, *OPTIONAL))


@RULES("internet-not-said", "enable_internet is said: left out it is on",
       'write "enable_internet": false')  # fmt: skip
def _internet_missing(push: Push) -> Iterator[str]:
    if push.kernel and "enable_internet" not in push.kernel:
        yield "no enable_internet"


@RULES("not-said", "every key is said, so that no default decides", "write it")
def _missing(push: Push) -> Iterator[str]:
    for key in EXPLICIT if push.kernel else ():
        left_out = key not in push.kernel and key != "enable_internet"
        if left_out and not (key == "id" and "id_no" in push.kernel):
            yield f"no {key}"
        elif push.kernel.get(key, "") is None or (
            push.kernel.get(key) == "" and key != "machine_shape"
        ):
            yield f"{key} is empty"


@RULES("id-form", 'id is "owner/slug", without a version', "write OWNER/SLUG")
def _id(push: Push) -> Iterator[str]:
    found = push.kernel.get("id")
    parts = found.split("/") if isinstance(found, str) else []
    if found not in (None, "") and (len(parts) != 2 or not all(parts)):
        yield said(found)


@RULES("id-number", "id_no is a whole number", "leave it out: id says the same")
def _id_no(push: Push) -> Iterator[str]:
    found = push.kernel.get("id_no", 0)
    if isinstance(found, bool) or not isinstance(found, int):
        yield said(found)


@RULES("slug-short", f"the slug has {LEAST_SLUG} characters or more", "choose a longer one")
def _slug_length(push: Push) -> Iterator[str]:
    slug = slug_of(push.kernel.get("id"))
    if slug and len(slug) < LEAST_SLUG:
        yield said(slug)


@RULES("slug-letters", "the slug is lower case letters, digits and single hyphens",
       "write it so")  # fmt: skip
def _slug_letters(push: Push) -> Iterator[str]:
    slug = slug_of(push.kernel.get("id"))
    if slug and not SLUG.fullmatch(slug):
        yield said(slug)


@RULES("owner", "the owner is a name on Kaggle", "write your own, as in your profile's address")
def _owner(push: Push) -> Iterator[str]:
    found = push.kernel.get("id")
    owner = found.split("/")[0] if isinstance(found, str) and "/" in found else ""
    if owner and not OWNER.fullmatch(owner):
        yield said(owner)


@RULES("owner-unknown", "the owner is you and no placeholder",
       f"put your name on Kaggle for {PLACEHOLDER} in both metadata files; or delete the folder "
       "and bundle again with --owner NAME")  # fmt: skip
def _placeholder(push: Push) -> Iterator[str]:
    if str(push.kernel.get("id", "")).split("/")[0] == PLACEHOLDER:
        yield PLACEHOLDER


@RULES(
    "title-short",
    f"the title has {LEAST_TITLE} characters or more, in one line",
    "choose a longer one",
)
def _title(push: Push) -> Iterator[str]:
    title = push.kernel.get("title")
    if title and (not isinstance(title, str) or len(title) < LEAST_TITLE or "\n" in title):
        yield said(title)


@RULES("title-slug", "the title says the slug: Kaggle makes the address of it",
       "make the title the slug, with blanks for hyphens")  # fmt: skip
def _title_slug(push: Push) -> Iterator[str]:
    title, slug = push.kernel.get("title"), slug_of(push.kernel.get("id"))
    if isinstance(title, str) and len(title) >= LEAST_TITLE and slug:
        made = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        if made != slug.lower():
            yield f"{said(title)} makes {made}, the id says {slug}"


@RULES("code-file", "code_file is a file of the folder", "correct its name")
def _code(push: Push) -> Iterator[str]:
    named = push.kernel.get("code_file")
    if named and push.code is None:
        yield said(named)


@RULES("code-alone", "code_file lies in the folder itself: it is all that is uploaded",
       "move it there, and what it imports into the attached dataset")  # fmt: skip
def _alone(push: Push) -> Iterator[str]:
    named = push.kernel.get("code_file")
    if isinstance(named, str) and ("/" in named or "\\" in named):
        yield said(named)


@RULES("beside-code", f"no file but {KERNEL} lies beside code_file: none would be uploaded",
       "move what it imports into the attached dataset, and the rest elsewhere")  # fmt: skip
def _beside(push: Push) -> Iterator[str]:
    own = {KERNEL, FOLDER, str(push.kernel.get("code_file"))}
    if push.code is not None and push.code.parent == push.folder:
        yield from sorted(path.name for path in push.folder.iterdir() if path.name not in own)


@RULES("language", f"language is one of {', '.join(LANGUAGES)}", 'write "python"')
def _language(push: Push) -> Iterator[str]:
    found = push.kernel.get("language")
    if found and found not in LANGUAGES:
        yield said(found)


@RULES("kernel-type", f"kernel_type is one of {', '.join(TYPES)}", 'write "notebook"')
def _type(push: Push) -> Iterator[str]:
    found = push.kernel.get("kernel_type")
    if found and found not in TYPES:
        yield said(found)


@RULES("code-type", "a notebook is an .ipynb, a script is none", "correct kernel_type or code_file")
def _suffix(push: Push) -> Iterator[str]:
    kind = push.kernel.get("kernel_type")
    if push.code and kind in TYPES and (push.code.suffix == ".ipynb") != (kind == "notebook"):
        yield f"{kind} {push.code.name}"


@RULES("flag", "is_private, enable_gpu, enable_tpu and enable_internet are true or false",
       "write it without quotes")  # fmt: skip
def _flags(push: Push) -> Iterator[str]:
    for key in FLAGS:
        found = push.kernel.get(key, False)
        if not isinstance(found, bool) and found not in (None, ""):
            yield f"{key}: {said(found)}"


@RULES("internet-on", "enable_internet is false: code competitions run without",
       'write "enable_internet": false')  # fmt: skip
def _internet(push: Push) -> Iterator[str]:
    if push.kernel.get("enable_internet") in (True, "true"):
        yield "true"


@RULES("public", "is_private is true: networks and data may not be yours to publish",
       'write "is_private": true')  # fmt: skip
def _public(push: Push) -> Iterator[str]:
    if push.kernel.get("is_private") in (False, "false"):
        yield "false"


@RULES("accelerator", "machine_shape is an accelerator of Kaggle, or empty",
       f"one of {', '.join(g for g in GPUS if g.lower() not in UNFIT)}")  # fmt: skip
def _shape(push: Push) -> Iterator[str]:
    found = push.kernel.get("machine_shape", "")
    known = isinstance(found, str) and (found in ("", *GPUS) or re.fullmatch(r"Tpu\w+", found))
    if found is not None and not known:
        yield said(found)


@RULES("accelerator-unfit", "the image's frameworks know the accelerator",
       "NvidiaTeslaT4 is the safe choice")  # fmt: skip
def _unfit(push: Push) -> Iterator[str]:
    found = str(push.kernel.get("machine_shape", ""))
    if found.lower() in UNFIT:
        yield f"{found}: {UNFIT[found.lower()]}"


@RULES("accelerator-flag", "enable_gpu and enable_tpu agree with machine_shape",
       "set the flag of the accelerator, and no other")  # fmt: skip
def _agree(push: Push) -> Iterator[str]:
    shape = str(push.kernel.get("machine_shape") or "")
    tpu = shape.startswith("Tpu")
    wanted = {"enable_gpu": bool(shape) and not tpu, "enable_tpu": tpu}
    for key, value in wanted.items():
        found = push.kernel.get(key)
        if isinstance(found, bool) and found != value:
            yield f"{key} {said(found)} with machine_shape {said(shape)}"
