"""Jobs on a Dask cluster: a real scheduler and two worker processes on loopback."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import project
import pytest
from calls import crash, fail, gone, slow, square

import kit
from kit import _memory, apart, clusters, jobs
from kit.errors import ImageError, JobError, SettingsError
from kit.jobs import Job

distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
PAGES = 2048  # of 4 KiB: 8 MiB
pytestmark = pytest.mark.filterwarnings("ignore")  # Dask's own


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A scheduler with two workers, started as a team would; the kit only gets its address."""
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
    ):
        yield cluster.scheduler_address
    del dask


@pytest.fixture
def cluster(address: str) -> Iterator[clusters.Cluster]:
    with clusters.on(address) as found:
        assert found is not None
        yield found


def run(work: list[Job]) -> list[jobs.Outcome]:
    return jobs.run(work, title="test", progress=False)


def die(*_: Any) -> int:
    os._exit(7)


def where(*_: Any) -> tuple[int, str]:
    return os.getpid(), os.getcwd()


def faults(*_: Any) -> tuple[bool, int]:
    """Return whether Dask's setting of the allocator stands, and the page faults of 20 arrays."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(PAGES * 512)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return _memory.TRIM in os.environ, after - before


def once(folder: Path, number: int) -> int:
    """Write a file unless it stands, slowly, and leave a trace of having been at work."""
    place = folder / f"{number}.txt"
    if not place.exists():
        (folder / f"{number}-{os.getpid()}-{time.time_ns()}.try").touch()
        (folder / "pid").write_text(str(os.getpid()))
        time.sleep(0.2)
        place.write_text(str(number))
    return number


def test_outcomes_come_in_the_order_of_the_jobs_and_are_those_of_one_process(
    cluster: clusters.Cluster,
) -> None:
    work = [Job(f"job {x}", square, (x, w)) for x, w in enumerate([0.5, 0, 0.1, 0, 0])]
    work.append(Job("bad", fail, (5,)))
    found = run(work)
    here = [jobs.call(job) for job in work]
    assert [one.name for one in found] == [one.name for one in here]
    assert [one.value for one in found] == [0, 1, 4, 9, 16, None]
    error = found[-1].error
    assert isinstance(error, ImageError)
    assert (str(error), error.path) == (str(here[-1].error), "5.png")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_workers_use_freed_memory_again_whatever_dask_asks_of_the_allocator(
    cluster: clusters.Cluster,
) -> None:
    for asked, there in jobs.values(run([Job(str(n), faults, (n,)) for n in range(4)])):
        assert not asked and there < 10 * PAGES  # 20 * PAGES if each array is asked for anew


def test_a_cluster_of_ours_leaves_this_process_as_it_was() -> None:
    before = dict(os.environ)
    with clusters.on("local:1"):
        assert jobs.values(run([Job("a", faults)]))[0][0] is False
    assert _memory.TRIM not in {*os.environ} - {*before}


def test_jobs_run_in_the_workers_and_in_our_folder(cluster: clusters.Cluster) -> None:
    found = jobs.values(run([Job(str(n), where, (n,)) for n in range(8)]))
    assert os.getpid() not in {pid for pid, _ in found}
    assert {folder for _, folder in found} == {os.getcwd()}
    assert cluster.size == 2


def test_more_jobs_than_messages_keep_their_order(cluster: clusters.Cluster) -> None:
    work = [Job(str(n), fail if n % 500 == 7 else square, (n,)) for n in range(1200)]
    found = run(work)
    assert [one.name for one in found] == [str(n) for n in range(1200)]
    wrong = [n for n in range(1200) if n % 500 == 7]
    assert [n for n, one in enumerate(found) if one.error is not None] == wrong
    assert all(one.value == n * n for n, one in enumerate(found) if n not in wrong)


def test_any_other_exception_stops_the_run_and_cancels_the_rest(
    cluster: clusters.Cluster, tmp_path: Path
) -> None:
    work = [Job("bad", crash), *(Job(str(n), once, (tmp_path, n)) for n in range(60))]
    with pytest.raises(ZeroDivisionError):
        run(work)
    time.sleep(1.5)
    assert len(list(tmp_path.glob("*.txt"))) < 30
    assert jobs.values(run([Job("a", square, (3,))])) == [9]


def test_a_lost_workers_jobs_go_elsewhere_and_nothing_is_done_twice(
    cluster: clusters.Cluster, tmp_path: Path
) -> None:
    def strike() -> None:
        while len(list(tmp_path.glob("*.txt"))) < 6:
            time.sleep(0.05)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=strike)
    killer.start()
    found = run([Job(str(n), once, (tmp_path, n)) for n in range(40)])
    killer.join()
    assert jobs.values(found) == list(range(40))
    assert [(tmp_path / f"{n}.txt").read_text() for n in range(40)] == list(map(str, range(40)))
    tries = [len(list(tmp_path.glob(f"{n}-*.try"))) for n in range(40)]
    assert max(tries) <= 2 and tries.count(2) <= 1  # only what was under way at that moment


def test_a_job_that_kills_its_workers_is_named_and_the_others_are_done(
    cluster: clusters.Cluster,
) -> None:
    work = [Job(f"slide {n}", die if n == 4 else square, (n, 0.05)) for n in range(12)]
    found = run(work)
    (wrong,) = [one for one in found if one.error is not None]
    assert wrong.name == "slide 4"
    assert isinstance(wrong.error, JobError)
    assert "slide 4 killed its workers, and was set aside" in str(wrong.error)
    assert [one.value for one in found] == [None if n == 4 else n * n for n in range(12)]


def test_a_network_has_a_process_of_its_own_there_too(cluster: clusters.Cluster) -> None:
    workers = {pid for pid, _ in jobs.values(run([Job(str(n), where, (n,)) for n in range(8)]))}
    found = list(apart.each([Job("a", where), Job("b", die), Job("c", fail, (1,))]))
    assert found[0].value[0] not in workers | {os.getpid()}
    assert "the process of b died. Received: exit code 7" in str(found[1].error)
    assert isinstance(found[2].error, ImageError)


def test_outcomes_left_early_cancel_what_has_not_begun(
    cluster: clusters.Cluster, tmp_path: Path
) -> None:
    work = [Job(str(n), once, (tmp_path, n)) for n in range(60)]
    with contextlib.closing(jobs.each(work, title="test", progress=False)) as found:
        assert next(found).value == 0
    time.sleep(1.5)
    done = len(list(tmp_path.glob("*.txt")))
    time.sleep(1.0)
    assert len(list(tmp_path.glob("*.txt"))) == done < 30


def test_after_the_block_jobs_run_here_again(address: str) -> None:
    with clusters.on(address):
        assert jobs.engine() is not None
    assert jobs.engine() is None
    assert jobs.values(run([Job("a", where)]))[0][0] == os.getpid()
    with clusters.on(None) as nothing:
        assert nothing is None and jobs.engine() is None


def refused(address: str, **more: Any) -> str:
    with pytest.raises(SettingsError) as caught, clusters.on(address, **more):
        raise AssertionError("it was opened")
    return str(caught.value)


def test_a_worker_of_another_version_is_refused_with_both_and_the_host(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = kit.__version__
    monkeypatch.setattr(kit, "__version__", "9.9.9")
    said = refused(address)
    assert "expected: kit 9.9.9" in said.lower() and f"kit {real} on Python" in said
    assert "tcp://127.0.0.1:" in said


def test_a_worker_of_another_version_that_comes_later_does_no_job(
    cluster: clusters.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = kit.__version__
    monkeypatch.setattr(kit, "__version__", "9.9.9")
    later = clusters.Cluster(cluster._client)  # opened, and never compared with its workers
    with pytest.raises(SettingsError, match=rf"kit 9\.9\.9 on.*kit {real} on.*every machine"):
        list(later.each([Job("a", where)]))


def backend(*_: Any) -> str | None:
    return os.environ.get("KERAS_BACKEND")


def test_workers_take_the_backend_of_the_command(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for named in ("jax", None):
        if named:
            monkeypatch.setenv("KERAS_BACKEND", named)
        else:
            monkeypatch.delenv("KERAS_BACKEND")
        with clusters.on(address):
            assert jobs.values(run([Job("a", backend)])) == [named]


def test_a_worker_that_loses_a_folder_does_no_job(address: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with clusters.on(address, sees=[tmp_path / "data"]):
        assert len(run([Job("a", where)])) == 1
        (tmp_path / "data").rmdir()
        with pytest.raises(SettingsError, match=r"does not see a folder.*none of that name"):
            run([Job("a", where)])


def test_what_is_left_before_its_end_ends_the_processes_of_the_workers(
    cluster: clusters.Cluster, tmp_path: Path
) -> None:
    with contextlib.closing(
        apart.each([Job("quick", square, (2,)), Job("b", slow, (tmp_path,))])
    ) as e:
        assert next(e).value == 4
        end = time.monotonic() + 60
        while not (tmp_path / "started").is_file():
            assert time.monotonic() < end
            time.sleep(0.05)
    assert gone(int((tmp_path / "started").read_text()))
    assert not (tmp_path / "ended").exists()
    assert [one.value for one in apart.each([Job("again", square, (3,))])] == [9]


def test_a_cluster_without_a_worker_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(clusters, "LOOK", 0.3)
    with clusters.on("local:1") as own:
        assert own is not None
        with contextlib.closing(own.each([Job("a", once, (tmp_path, 1))] * 3)) as found:
            assert next(found).value == 1
            own._client.cluster.scale(0)  # as if it had died while it started
            assert [one.value for one in found] == [1, 1]
    assert "no worker is left" in caplog.text


def test_a_temporary_folder_stands_where_the_workers_see_it(
    cluster: clusters.Cluster, tmp_path: Path
) -> None:
    with jobs.scratch("kit-test-", tmp_path / "beside") as folder:
        assert Path(folder).parent == tmp_path / "beside"
    assert list((tmp_path / "beside").iterdir()) == []


def test_a_folder_that_a_worker_does_not_see_is_named(address: str, tmp_path: Path) -> None:
    assert f"the folder is not here. File: {tmp_path / 'no'}" in refused(
        address, sees=[tmp_path / "no"]
    )
    with clusters.on(address, sees=[tmp_path], writes=[tmp_path / "new"]):
        pass
    assert (tmp_path / "new").is_dir() and not list((tmp_path / "new").iterdir())


def test_a_folder_of_the_same_name_and_other_content_is_refused(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda place: [*listed(place), "seen by this process alone"])
    said = refused(address, sees=[tmp_path])
    assert "does not see a folder" in said and "another content" in said
    assert str(tmp_path) in said or os.getcwd() in said


def test_an_address_that_does_not_answer_is_refused_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clusters, "ANSWER", 1.0)
    start = time.monotonic()
    said = refused("tcp://127.0.0.1:9")
    assert "the cluster does not answer" in said and "Received: tcp://127.0.0.1:9" in said
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n<html></html>" * 9])
def test_what_listens_and_is_no_scheduler_is_refused_in_time(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "ANSWER", 1.0)

    class Other(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(said)
            over.wait(60)

    over, start = threading.Event(), time.monotonic()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Other) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.server_address[1]}"
        assert "the cluster does not answer" in refused(address)
        over.set()
        server.shutdown()
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    "address",
    ["local:0", "local:two", "local:\u00b2", "local:", "http://a:1", "tcp://a", "host", "8786"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    assert "local:N" in refused(address)


def test_without_dask_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "find_spec", lambda name: None)
    assert "pip install 'dask[distributed]'" in refused("local:2")


def test_a_cluster_and_a_number_of_workers_exclude_each_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command in (
        ("run", "idc_patches"), ("data", "verify", "idc_patches"),
        ("predict", "run", "--data", "d", "--out", "o"),
        ("patches", "s.tif", "--patch-size", "8", "--out", "p"),
    ):  # fmt: skip
        assert project.code_of(*command, "--cluster", "local:2", "--workers", "2") == 2
        assert "--cluster and --workers exclude each other" in capsys.readouterr().err


def seen_gpus(wait: float = 0.5) -> str | None:
    time.sleep(wait)
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_gpus_of_this_machine_are_dealt_to_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three workers and two GPUs: networks go where one is, the rest everywhere."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    with clusters.on("local:3"):
        networks = jobs.values(apart.each([Job(str(n), seen_gpus, (0.1,)) for n in range(4)]))
        others = jobs.values(run([Job(str(n), seen_gpus) for n in range(12)]))
    assert set(networks) == {"4", "7"}
    assert set(others) == {"4", "7", "-1"}


def hungry(*_: Any) -> int:
    raise MemoryError("array of 9 TB")


def test_a_job_that_lacks_memory_is_named_and_the_others_are_done(
    cluster: clusters.Cluster,
) -> None:
    found = run([Job("a", square, (2,)), Job("large", hungry), Job("b", square, (3,))])
    assert [one.value for one in found] == [4, None, 9]
    assert "memory does not suffice for large. Received: MemoryError('array of 9 TB')" in str(
        found[1].error
    )


def eats(*_: Any) -> int:
    """Hold more and more memory, until somebody ends this process."""
    held = []
    while True:
        held.append(bytearray(16 << 20))
        time.sleep(0.02)


def test_a_worker_out_of_memory_is_ended_and_its_job_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import dask

    monkeypatch.setattr(distributed, "Client", partial(distributed.Client, memory_limit=400 << 20))
    no_swap = {f"distributed.worker.memory.{name}": False for name in ("spill", "pause")}
    with dask.config.set(no_swap), clusters.on("local:2"):
        found = run([Job("a", square, (2,)), Job("large", eats), Job("b", square, (3,))])
    assert [one.value for one in found] == [4, None, 9]
    assert "large killed its workers, and was set aside" in str(found[1].error)


INTERRUPTED = """
import sys
from pathlib import Path
from kit import clusters, jobs
from test_clusters import once
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    try:
        with clusters.on("local:2"):
            jobs.run([jobs.Job(str(n), once, (folder, n)) for n in range(500)], title="test")
    except KeyboardInterrupt:
        sys.exit(130)
"""


def test_ctrl_c_cancels_the_rest_and_leaves_what_is_done(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    root = Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, script, tmp_path], stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])},
    )  # fmt: skip
    end = time.monotonic() + 60
    while len(list(tmp_path.glob("*.txt"))) < 6:
        assert time.monotonic() < end, "the workers did not start"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    done = sorted(tmp_path.glob("*.txt"))
    assert all(path.read_text() == path.stem for path in done)
    time.sleep(1)
    assert sorted(tmp_path.glob("*.txt")) == done and len(done) < 100
