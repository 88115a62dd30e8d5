"""Many downloads at once from a server of whose answers 30 % are faulty; `make chaos` is the long form.

CHAOS_SEED=… repeats a run, as far as threads allow.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from chaos_server import SHARE, Chaos
from driving import Digest, Driver, Failed, Finished, Settings, new_job
from server import Server

COUNT = 100  # downloads by each host
ROUNDS = 10  # of Retry, each for what failed in the one before
SEED = int(os.environ.get("CHAOS_SEED", "1"))
SETTINGS = Settings(timeout=1.0, connections=16, split_seconds=0.05, first_delay=0.0)


@pytest.mark.timeout(120)
def test_whatever_comes_all_files_are_right_in_the_end(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path
) -> None:
    driver = new_driver(SETTINGS)
    chaos = Chaos(server, SEED)
    jobs = [_job(chaos.add(number), tmp_path) for number in range(COUNT)]
    for _ in range(ROUNDS):
        driver.submit(*jobs)
        outcomes = {job.uid: driver.outcome(job) for job in jobs}
        assert all(isinstance(outcome, (Finished, Failed)) for outcome in outcomes.values()), f"{SEED=}"
        jobs = [job for job in jobs if isinstance(outcomes[job.uid], Failed)]
    assert [outcomes[job.uid] for job in jobs] == [], f"{SEED=}"
    assert chaos.problems(tmp_path) == [], f"{SEED=}"
    assert sum(chaos.met.values()) > chaos.answers * SHARE / 2  # it was no fine day


def _job(link: str, folder: Path):
    url, _, digest = link.partition("#sha256=")
    return new_job(url, folder, digest=Digest("sha256", digest) if digest else None)
