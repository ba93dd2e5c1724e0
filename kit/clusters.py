"""Jobs on a Dask cluster: one on this machine (`local:N`), or one whose scheduler has an address.

Dask distributed does the work: it hands jobs to whichever worker is free, and a lost worker's to
another. What is checked here would make results wrong or errors unreadable: workers of another
version, or that do not see the folders.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import re
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import kit
from kit import _memory, jobs
from kit._memory import TRIM
from kit.errors import JobError, SettingsError
from kit.jobs import Job, Outcome, call

log = logging.getLogger(__name__)

LOOK = 5.0  # seconds after which one looks whether workers are left
PARTS = 512  # in which many jobs are handed out: each costs a message there and back
ANSWER, GRACE, START = 10.0, 2.0, 60.0
"""Seconds to answer in, for a scheduler; that Dask then takes besides; to come in, for a worker."""
VERSION = "(__import__('kit').__version__, __import__('platform').python_version())"
BACKEND = "KERAS_BACKEND"
DEATHS = 1  # of a worker of our own in which a job may be at work: the second is suspicious


@dataclass(frozen=True)
class Terms:
    """What each worker must fit at every job: it may have come after the first were looked at.

    Attributes:
        versions: Of the kit and of Python.
        folder: The folder that jobs start in, for relative paths.
        sees: Other folders that must be there.
        backend: KERAS_BACKEND of the command; "": none is said.
    """

    versions: tuple[str, str]
    folder: str
    sees: tuple[str, ...]
    backend: str

    def keep(self) -> None:
        """Go to the folder, in a worker, or raise `SettingsError` where it does not fit."""
        where, mine = platform.node(), _mine()
        if mine != self.versions:
            raise _other_version(where, mine, self.versions)
        for place in (self.folder, *self.sees):
            if not os.path.isdir(place):
                raise _unseen(Path(place), f"{where}: none of that name")
        os.chdir(self.folder)
        os.environ.pop(BACKEND, None)
        if self.backend:  # the processes that train begin with it
            os.environ[BACKEND] = self.backend


class Cluster:
    """A cluster that jobs run on; see `kit.jobs.Engine`."""

    def __init__(self, client: Any, sees: Sequence[str] = ()) -> None:
        """Take a client, and the folders that every worker must see."""
        self._client = client
        self._terms = Terms(_mine(), os.getcwd(), tuple(sees), os.environ.get(BACKEND, ""))

    @property
    def size(self) -> int:
        """Return how many jobs run at a time."""
        return sum(self._client.nthreads().values())

    def each(self, work: Sequence[Job], *, networks: bool = False) -> Generator[Outcome]:
        """Run jobs and yield their outcomes in the order of the jobs.

        A job that raises `KitError` is an outcome with that error, and so is one whose worker died
        again and again; any other exception stops the run. Close the generator if it is left before
        its end: that cancels what has not begun.

        Args:
            work: The jobs.
            networks: Whether each takes one of the workers' `GPU` (Dask's resource of that name),
                where they have any.

        Raises:
            JobError: The cluster was lost.
        """
        from distributed import CancelledError

        step = -(-len(work) // PARTS)
        parts = [work[start : start + step] for start in range(0, len(work), max(step, 1))]
        take = {"GPU": 1} if networks and self._gpus() else None
        futures = self._client.map(_in_turn, parts, terms=self._terms, pure=False, resources=take)
        try:
            for number, part in enumerate(parts):
                yield from self._outcomes(part, futures[number], take)
                futures[number] = None  # the cluster forgets it, so that memory stays flat
        except (CancelledError, OSError) as error:
            raise JobError("the cluster was lost", received=repr(error),
                           remedy="the same command goes on where it was") from error  # fmt: skip
        finally:
            with contextlib.suppress(Exception):  # a lost cluster has nothing to cancel
                self._client.cancel([future for future in futures if future is not None])

    def tell(self, said: Callable[..., object], *args: object) -> None:
        """Call a function once in each worker, at once, whatever it is doing."""
        with contextlib.suppress(Exception):  # a lost cluster is told nothing
            self._client.run(said, *args, on_error="return")

    def _gpus(self) -> bool:
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        return any(worker["resources"].get("GPU") for worker in workers)

    def _outcomes(self, part: Sequence[Job], future: Any, take: Any) -> list[Outcome]:
        """Return the outcomes of some jobs; those in whose time two workers died, one by one."""
        from distributed import KilledWorker

        try:
            return self._result(future)
        except KilledWorker:
            return [self._once_more(job, take) for job in part]

    def _result(self, future: Any) -> list[Outcome]:
        """Return what a job gave, and do not wait for ever where no worker is left."""
        alone: float | None = None
        while True:
            try:
                found: list[Outcome] = future.result(timeout=LOOK)
            except TimeoutError:
                if future.done():  # the job's own
                    raise
            else:
                return found
            if self.size:
                alone = None
            elif alone is None:
                alone = time.monotonic()
                log.warning("no worker is left; waiting for another")
                self._begin_again()
            elif time.monotonic() - alone > START:
                raise JobError("the cluster has no workers left", remedy="start some: dask worker "
                               "ADDRESS; the same command goes on where it was")  # fmt: skip

    def _begin_again(self) -> None:
        """Start our own workers anew: one that dies while it starts is not replaced by Dask."""
        own = self._client.cluster
        if own is not None:
            number = len(own.workers) or jobs.cores()
            own.scale(0)
            own.scale(number)

    def _once_more(self, job: Job, take: Any) -> Outcome:
        """Return a job's outcome, or that its worker dies of it alone."""
        from distributed import KilledWorker

        try:
            (found,) = self._result(self._client.submit(
                _in_turn, [job], terms=self._terms, pure=False, resources=take
            ))  # fmt: skip
        except KilledWorker as error:
            died = JobError(
                f"{job.name} killed its workers, and was set aside",
                received=f"the last one: {error.last_worker.address}",
                remedy="it may have lacked memory: fewer workers a machine, smaller settings; "
                "the same command tries it again",
            )  # fmt: skip
            return Outcome(job.name, None, died, 0.0)
        else:
            return found


def _mine() -> tuple[str, str]:
    """Return the versions of the kit and of Python here."""
    return kit.__version__, platform.python_version()


def _in_turn(part: Sequence[Job], terms: Terms) -> list[Outcome]:
    terms.keep()
    return [call(job) for job in part]


def _other_version(worker: str, said: Sequence[str], mine: Sequence[str]) -> SettingsError:
    return SettingsError(
        "a worker has another version", expected=f"kit {mine[0]} on Python {mine[1]}",
        received=f"{worker}: kit {said[0]} on Python {said[1]}",
        remedy="install the same on every machine",
    )  # fmt: skip


def _unseen(folder: Path, received: str) -> SettingsError:
    return SettingsError(
        "a worker does not see a folder", path=folder, received=received,
        remedy="lay data and --out on a file system that all workers share",
    )  # fmt: skip


@contextlib.contextmanager
def on(
    address: str | None, *, sees: Sequence[Path] = (), writes: Sequence[Path] = ()
) -> Iterator[Cluster | None]:
    """Have all jobs of `kit.jobs` and `kit.apart` run on a cluster while the block lasts.

    Args:
        address: `tcp://HOST:PORT` of a scheduler, `local:N` for N workers on this machine, or None:
            then nothing changes.
        sees: Folders that every worker must see.
        writes: The same for folders that are written to; they are made.

    Raises:
        SettingsError: The address is none, does not answer, or has no workers; Dask is not here;
            a worker has another version of the kit or of Python, or does not see a folder.
    """
    if address is None:
        yield None
        return
    if find_spec("distributed") is None:
        raise SettingsError("--cluster needs Dask distributed",
                            remedy="pip install 'dask[distributed]'")  # fmt: skip
    client = _connect(address)
    try:
        _await_workers(client, address)
        _check_versions(client)
        for folder in (Path.cwd(), *sees):
            _check_folder(client, Path(folder))
        client.register_plugin(_here(address), name="kit-here")
        for folder in writes:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".seen-") as mark:
                _check_folder(client, Path(folder), Path(mark.name).name)
        places = [str(Path(folder).resolve()) for folder in (*sees, *writes)]
        cluster = Cluster(client, places)
        with jobs.through(cluster):
            yield cluster
    finally:
        with contextlib.suppress(TimeoutError):  # a worker that is slow to end is ended
            client.close()


def own_workers(address: str) -> int:
    """Return how many workers of this machine an address asks for; 0: those of a scheduler.

    Raises:
        SettingsError: It is no address.
    """
    kind, _, rest = address.partition(":")
    if kind == "local" and rest.isdecimal() and int(rest) > 0:
        return int(rest)
    if not re.fullmatch(r"(?:tcp|tls|ucx)://\S+:\d+", address):
        raise SettingsError(
            "no such cluster", expected="tcp://HOST:PORT, or local:N with N from 1 on",
            received=f"--cluster {address}", remedy="--cluster local:2 for two workers here",
        )  # fmt: skip
    return 0


def _connect(address: str) -> Any:
    logging.getLogger("distributed").setLevel(logging.ERROR)  # it tells of every end
    if own_workers(address):
        return _local(own_workers(address))
    found = _asked(address)
    if isinstance(found, Exception):
        raise SettingsError(
            "the cluster does not answer", expected=f"a Dask scheduler within {ANSWER:.0f} s",
            received=address, remedy="start one (dask scheduler), or look at host and port: "
            "8786 is a scheduler's, 8787 its dashboard's",
        ) from found  # fmt: skip
    return found


def _asked(address: str) -> Any:
    """Return the client of a scheduler, or why there is none.

    Dask waits for ever for what accepts and says nothing, and takes what another kind of server
    says for sizes of messages: so it asks in a thread, and may fail in any way.
    """
    from distributed import Client

    found: list[Any] = [TimeoutError(f"no answer in {ANSWER:.0f} s")]

    def ask() -> None:
        try:
            found[0] = Client(address, timeout=ANSWER)
        except Exception as error:  # whatever another kind of server makes it do
            found[0] = error

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER + GRACE)
    return found[0]


def _local(workers: int) -> Any:
    """Return the client of a cluster on this machine, which ends with it."""
    import dask
    from distributed import Client

    spawn = "distributed.nanny.pre-spawn-environ"  # Dask leaves it in this process too
    with dask.config.set({
        spawn: {key: value for key, value in dask.config.get(spawn).items() if key != TRIM},
        "distributed.scheduler.allowed-failures": DEATHS,
        "distributed.scheduler.worker-saturation": 1.0,  # a job waits where no other can kill it
    }):  # fmt: skip
        return Client(
            n_workers=workers, threads_per_worker=1, processes=True, env=jobs.WORKER,
            dashboard_address=":0", silence_logs=logging.CRITICAL,
        )  # fmt: skip


def _await_workers(client: Any, address: str) -> None:
    from distributed import TimeoutError as Late

    try:
        client.wait_for_workers(1, timeout=START)
    except (Late, OSError) as error:
        raise SettingsError(
            "the cluster has no workers", received=address, remedy="start some: dask worker ADDRESS"
        ) from error


def _here(address: str) -> Any:
    """Return what prepares every worker, also one that comes later.

    Its libraries have one thread each, freed memory is kept for the next array, and the workers of
    this machine have the GPUs dealt out to them. Elsewhere those that start workers say which GPU
    each has
    (`CUDA_VISIBLE_DEVICES=0 dask worker … --resources GPU=1`).
    """
    from distributed import WorkerPlugin

    class Here(WorkerPlugin):  # type: ignore[misc, unused-ignore]
        def __init__(self, dealt: Sequence[str]) -> None:
            self.dealt = dealt

        async def setup(self, worker: Any) -> None:
            os.environ.update(jobs.WORKER)
            _memory.keep_freed()
            if self.dealt:
                number = int(worker.name)
                mine = number < len(self.dealt)
                os.environ["CUDA_VISIBLE_DEVICES"] = self.dealt[number] if mine else "-1"
                await worker.set_resources(GPU=int(mine))

    dealt = jobs.dealt(own_workers(address)) if own_workers(address) else []
    return Here([place for place in dealt if place is not None])


def _answers(client: Any, call: Callable[..., Any], *args: object) -> list[tuple[str, Any]]:
    """Return what each worker says, or the error that it met; not of those that just go."""
    from distributed.comm.core import CommClosedError

    said = client.run(call, *args, on_error="return")
    return [(name, one) for name, one in said.items() if not isinstance(one, CommClosedError)]


def _check_versions(client: Any) -> None:
    """Refuse workers of another kit or Python: their results would not be ours."""
    mine = _mine()
    try:
        client.run_on_scheduler(eval, VERSION)
    except Exception as error:  # whatever its import of the kit made it do
        raise SettingsError(
            "the scheduler lacks the kit: it reads the jobs", received=error,
            expected=f"kit {mine[0]}", remedy="install it there",
        ) from error  # fmt: skip
    for worker, said in _answers(client, eval, VERSION):
        if isinstance(said, BaseException):
            raise SettingsError("a worker lacks the kit", received=f"{worker}: {said}",
                                expected=f"kit {mine[0]}", remedy="install it there")  # fmt: skip
        if tuple(said) != mine:
            raise _other_version(worker, said, mine)


def _check_folder(client: Any, folder: Path, mark: str = "") -> None:
    """Refuse workers that do not see a folder, or see another one of its name."""
    folder = folder.resolve()
    if not folder.is_dir():
        raise SettingsError("the folder is not here", path=folder)
    names = [mark] if mark else sorted(os.listdir(folder))[:8]
    for worker, said in _answers(client, _listed, str(folder)):
        if not isinstance(said, list) or not set(names) <= set(said):
            other = "none of that name" if not isinstance(said, list) else "another content"
            raise _unseen(folder, f"{worker}: {other}")


def _listed(folder: str) -> list[str] | None:
    return os.listdir(folder) if os.path.isdir(folder) else None
