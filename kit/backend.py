"""Load Keras once: with so many threads, on the device asked for, and without its greetings."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from kit.errors import SettingsError

FULL = ("resource_exhausted", "resource exhausted", "resourceexhausted", "out of memory",
        "oom when allocating")  # fmt: skip


def load_backend(threads: int, device: str = "auto") -> None:
    """Load Keras with so many threads; where it is loaded already only the device is looked at.

    The backend's C++ greets on standard error before anybody can tell it not to, so that stream
    is closed to it while it loads; errors of the import come as exceptions.

    Args:
        threads: Of one operation.
        device: "cpu" hides GPUs, "gpu" insists on one, "auto" takes what there is.

    Raises:
        SettingsError: A GPU is asked for and the backend sees none.
    """
    if "keras" not in sys.modules:
        for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
            os.environ[name] = str(threads)
        os.environ["TF_NUM_INTEROP_THREADS"] = "1"
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        _repeatable()
        if device == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
            os.environ.setdefault("JAX_PLATFORMS", "cpu")
        with _silence():
            import keras

            keras.ops.zeros(1)  # the devices are looked up at the first use
            if keras.backend.backend() == "torch":
                sys.modules["torch"].use_deterministic_algorithms(True, warn_only=True)
    # TensorFlow warns of every fold's network that it compiles it anew.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if device == "gpu" and not gpus():
        import keras

        raise SettingsError(
            "no GPU is there for the backend", received="device=gpu", expected="an NVIDIA GPU "
            f"that {keras.backend.backend()} sees",
            remedy="`kit doctor` says why; --set device=auto trains on the CPU",
        )  # fmt: skip


def _repeatable() -> None:
    """Have GPUs add in the same order each time; what the environment says already stands."""
    os.environ.setdefault("TF_DETERMINISTIC_OPS", "1")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # PyTorch's
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_gpu_deterministic_ops" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()


def gpus() -> list[str]:
    """Return the GPUs that the loaded backend sees."""
    import keras

    if keras.backend.backend() == "torch":  # Keras lists no devices of PyTorch's
        return [f"cuda:{n}" for n in range(sys.modules["torch"].cuda.device_count())]
    return [str(one) for one in keras.distribution.list_devices() if "cpu" not in str(one).lower()]


def replicas() -> int:
    """Return over how many devices a batch is dealt out, and must be divisible by."""
    import keras

    spread = keras.distribution.distribution()
    return 1 if spread is None else int(spread.num_model_replicas)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an exception of any backend says that memory did not suffice."""
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(word in text for word in FULL)
