"""The real `kaggle` client pushes folders; its network object is replaced by a recorder.

python kaggle_client.py FOLDER…    prints JSON: for each folder what its notebook and its dataset
would send, or why the client refuses; in a process of its own, with a name and key that are none.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ |= {"KAGGLE_USERNAME": "some-one", "KAGGLE_KEY": "0" * 32}
os.environ["HOME"] = os.environ["KAGGLE_CONFIG_DIR"] = tempfile.mkdtemp()


class Recorder:
    """A stand-in for the client's network object: it keeps each request and answers nothing."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Recorder:
        return self

    def save_kernel(self, request: Any) -> Any:
        from kagglesdk.kernels.types.kernels_api_service import ApiSaveKernelResponse

        self.sent.append(("save_kernel", request.to_dict()))
        return ApiSaveKernelResponse()

    def create_dataset(self, request: Any) -> Any:
        from kagglesdk.datasets.types.dataset_api_service import ApiCreateDatasetResponse

        self.sent.append(("create_dataset", request.to_dict()))
        return ApiCreateDatasetResponse()


def asked(api: Any, call: Any, folder: Path) -> dict[str, Any]:
    """Return what a call of the client sends, or why it refuses."""
    api.recorder.sent.clear()
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            call(str(folder))
    except Exception as error:  # whatever it raises is its refusal
        return {"refused": f"{type(error).__name__}: {error}", "sent": []}
    return {"refused": None, "sent": list(api.recorder.sent), "said": said.getvalue()}


def client() -> Any:
    """Return the real client with a recorder for its network, and uploads that only note names."""
    from kaggle.api.kaggle_api_extended import KaggleApi
    from kaggle.models.upload_file import UploadFile
    from requests import HTTPError

    class Recorded(KaggleApi):  # type: ignore[misc]
        recorder = Recorder()

        def build_kaggle_client(self) -> Recorder:
            return self.recorder

        def dataset_status(self, dataset: str, *_: Any) -> str:
            raise HTTPError("no such dataset")  # so that it is a new one

        def _upload_file(self, name: str, *_: Any, **__: Any) -> UploadFile:
            file = UploadFile()
            file.token = name
            return file

    api = Recorded()
    api.authenticate()
    return api


if __name__ == "__main__":
    found, api = {}, client()
    for name in sys.argv[1:]:
        found[name] = {
            "kernel": asked(api, api.kernels_push, Path(name)),
            "dataset": asked(api, api.dataset_create_new, Path(name) / "dataset"),
        }
    print(json.dumps(found, default=str))
