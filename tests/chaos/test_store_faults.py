"""A store that refuses, breaks off, is slow, dies and comes back, under a whole job."""

import time
from collections.abc import Callable

import pytest

from tests.chaos import faulty_s3
from tests.chaos.faulty_s3 import Drawn, Exchange, Way
from tests.chaos.scene import DONE, Scene, end
from tests.s3_server import S3Server, Seaweed

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

SHARE = 0.08
"""Of all requests: several a unit, and yet a job that ends."""


JOBS = 3
"""At most: what is drawn may leave a job nearly in peace, and what was refused is asked for again by the next."""


def disturb(scene: Scene, server: S3Server, choice: faulty_s3.Choice) -> None:
    """Jobs that see the store through a front, until it has failed often enough: one of them, as a rule."""
    with faulty_s3.in_front_of(server, choice) as front:
        for _ in range(JOBS):
            end(scene.start(environment=front.server.environment), 1, *DONE)
            if front.injected > 5:
                break
        scene.toll.injected = front.injected
    assert scene.toll.injected > 5


REFUSALS = (
    faulty_s3.refused(500, "InternalError"),
    faulty_s3.refused(503, "SlowDown"),
    faulty_s3.lost(500, "InternalError"),
    faulty_s3.lost(503, "ServiceUnavailable"),
)
RESETS = (faulty_s3.reset_before, faulty_s3.reset_after, faulty_s3.broken_off)
DENIALS = (faulty_s3.refused(403, "AccessDenied"), faulty_s3.refused(404, "NoSuchKey"))
DELAYS = (*map(faulty_s3.delayed, (0.1, 0.5, 2.0)),)


def of_writes(act: Way) -> Callable[[Exchange], Way | None]:
    """Each second conditional write goes that way."""
    seen = iter(range(1_000_000))
    return lambda exchange: act if exchange.conditional and next(seen) % 2 == 0 else None


def of_videos(choice: faulty_s3.Choice) -> faulty_s3.Choice:
    """Only what reads a video fails, as the choice says."""
    return lambda exchange: choice(exchange) if exchange.path.endswith(".mp4") else None


CHOICES: dict[str, faulty_s3.Choice] = {
    "500 and 503, before and after the effect": Drawn(REFUSALS, SHARE),
    "connections reset before, after and in the middle": Drawn(RESETS, SHARE),
    "refused writers: 409, as S3 answers two at once": of_writes(faulty_s3.refused(409, "ConditionalRequestConflict")),
    "412 for what this very request wrote": of_writes(faulty_s3.lost(412, "PreconditionFailed")),
    "slow, and slower than the time limit": Drawn((*DELAYS * 5, faulty_s3.delayed(20.0)), 0.15),
    "403 and 404 for videos that are there": of_videos(Drawn(DENIALS, 0.4)),
}


@pytest.mark.parametrize("fault", CHOICES)
def test_the_store_answers_with(fault: str, scene: Scene, reachable: S3Server) -> None:
    scene.toll.fault = f"store: {fault}"
    disturb(scene, reachable, CHOICES[fault])
    scene.recover()


@pytest.mark.ci_slice
def test_all_of_it_at_once(scene: Scene, reachable: S3Server) -> None:
    scene.toll.fault = "store: refusals, resets and delays together"
    disturb(scene, reachable, Drawn((*REFUSALS, *RESETS, faulty_s3.delayed(0.5)), SHARE))
    scene.recover()


def test_the_server_is_killed_and_comes_back(scene: Scene, seaweed: Seaweed) -> None:
    scene.toll.fault, scene.toll.injected = "store: server killed, back after 5 s", 1
    job = scene.start()
    scene.wait_for(job, commits=2)
    seaweed.kill()
    time.sleep(5)
    seaweed.start()
    end(job, 1, *DONE)
    scene.recover()


def test_the_server_is_killed_and_stays_away(scene: Scene, seaweed: Seaweed) -> None:
    scene.toll.fault, scene.toll.injected = "store: server killed, away until the job has given up", 1
    job = scene.start()
    scene.wait_for(job, commits=2)
    seaweed.kill()
    try:
        assert "s3://" in end(job, 1)["message"]
    finally:
        seaweed.start()
    scene.recover()
