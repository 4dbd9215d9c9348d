"""What was seen decides the verdict: each fault alone turns one check of a healthy machine."""

from dataclasses import replace
from pathlib import Path

import pytest

from avs_core.pipelines import node_facts
from avs_core.pipelines.node_facts import NodeFacts
from avs_core.pipelines.verdicts import Check, Clock, RayNode, node_checks, same_versions, store_checks
from avs_core.storage.examine import StoreFacts

NODE = RayNode("10.0.0.7", 8.0, 1.0, 2e9, 20e9)
FACTS = NodeFacts(
    versions={"python": "3.11.7"},
    gpus=("H200",),
    gpu_fault="",
    decoders={"pyav": "", "decord": ""},
    disk_free=100 * 10**9,
    disk_total=200 * 10**9,
    shared_memory=3 * 10**9,
    memory_available=16 * 10**9,
)
CLOCK = Clock(0.01, 0.001)


def troubled(checks: list[Check]) -> dict[str, str]:
    assert all(bool(check.advice) == (check.state != "ok") for check in checks)
    return {check.name: check.state for check in checks if check.state != "ok"}


def test_a_healthy_machine_has_nothing_to_change() -> None:
    checks = list(node_checks(NODE, FACTS, CLOCK))
    assert troubled(checks) == {}
    assert {check.where for check in checks} == {"10.0.0.7"}


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        ({"gpus": ()}, {"GPUs": "problem"}),
        ({"gpus": ("H200", "H200")}, {"GPUs": "warning"}),
        ({"gpu_fault": "CUDA error: no kernel image"}, {"GPUs": "problem"}),
        ({"decoders": {"pyav": "", "decord": "no wheel"}}, {"decoder decord": "warning"}),
        ({"decoders": {"pyav": "broken", "decord": ""}}, {"decoder pyav": "problem"}),
        ({"disk_free": 9 * 10**9}, {"disk to spill to": "problem"}),
        ({"disk_free": 10**9, "disk_total": 10 * 10**9}, {"disk to spill to": "warning"}),
        ({"memory_available": 10**9}, {"memory": "warning"}),
        ({"shared_memory": 64 * 10**6}, {"object store": "warning"}),
    ],
)
def test_each_fault_turns_its_check(facts: dict[str, object], verdict: dict[str, str]) -> None:
    assert troubled(list(node_checks(NODE, replace(FACTS, **facts), CLOCK))) == verdict


def test_a_node_that_lends_less_memory_than_a_decoder_may_take_is_found_unless_it_lends_no_cpus() -> None:
    lends_little = replace(NODE, memory=4.2e9)
    assert troubled(list(node_checks(lends_little, FACTS, CLOCK))) == {"memory": "warning"}
    assert troubled(list(node_checks(replace(lends_little, cpus=0.0), FACTS, CLOCK))) == {}


@pytest.mark.parametrize(("limit", "seen"), [("1000000\n", 10**6), ("max\n", None), (str(2**63 - 4096), None)])
def test_a_containers_limit_is_not_the_memory_of_its_host(
    limit: str, seen: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(limit)
    monkeypatch.setattr(node_facts, "MEMORY_LIMITS", (tmp_path / "none", tmp_path / "memory.max"))
    found = node_facts._memory_available()
    assert found == seen if seen else found > 10**8


@pytest.mark.parametrize(
    ("ahead_s", "within_s", "state"),
    [(1.9, 0.0, None), (-2.5, 0.1, "warning"), (2.5, 1.0, None), (31.0, 0.5, "problem"), (-31.0, 0.5, "problem")],
)
def test_a_clock_is_blamed_for_what_the_question_itself_can_not_explain(
    ahead_s: float, within_s: float, state: str | None
) -> None:
    assert troubled(list(node_checks(NODE, FACTS, Clock(ahead_s, within_s)))).get("clock") == state


def test_versions_must_agree_and_say_who_has_which() -> None:
    same = {"driver": {"ray": "2.60.0", "code": "abc"}, "a": {"ray": "2.60.0", "code": "abc"}}
    assert troubled(list(same_versions(same))) == {}
    checks = list(same_versions(same | {"b": {"ray": "2.60.0", "code": "def"}}))
    assert troubled(checks) == {"version of code": "problem"}
    found = next(check.found for check in checks if check.name == "version of code")
    assert found == "abc on driver, a; def on b"


def test_a_library_that_is_missing_everywhere_is_a_problem_too() -> None:
    assert troubled(list(same_versions({"driver": {"torch": "missing"}}))) == {"version of torch": "problem"}


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (StoreFacts(True, "", True, True, 0.01), {}),
        (StoreFacts(False, "", True, True, 0.01), {"store: read and list": "problem"}),
        (StoreFacts(True, "403", True, True, 0.01), {"store: missing keys": "problem"}),
        (StoreFacts(True, "", False, True, 0.01), {"store: conditional writes": "problem"}),
        (StoreFacts(True, "", True, False, 0.01), {"store: conditional writes": "problem"}),
        (StoreFacts(True, "", True, True, 0.6), {"store: latency": "warning"}),
    ],
)
def test_a_store_must_keep_its_word(facts: StoreFacts, verdict: dict[str, str]) -> None:
    assert troubled(list(store_checks("10.0.0.7", facts))) == verdict
