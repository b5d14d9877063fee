"""Several checkouts that share one store: one moves aliases at a time, in real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lifecycle.registry import lock
from lifecycle.registry.lock import hold_store_lock, is_stale
from lifecycle.registry.registry import MlflowRegistry
from tests.lifecycle.conftest import ROOT, Project
from tests.lifecycle.registering import WHOLE, decision, open_registry, register_trained

PROMOTE = """
import sys
from pathlib import Path
from tests.lifecycle.registering import WHOLE, decision, open_registry
from lifecycle.declare.registry import ModelVersion
home, digest, version, champion = sys.argv[1:]
registry = open_registry(Path(home))
print("ready", flush=True)
sys.stdin.readline()
try:
    candidate = ModelVersion(name=WHOLE, version=version, digest=digest)
    move = registry.promote(candidate, decision(digest, champion), "mine")
    print("moved", move.after)
except ValueError as error:
    print(error)
"""
HOLD = """
import sys, time
from mlflow import MlflowClient
from lifecycle.registry.lock import hold_store_lock
with hold_store_lock(MlflowClient(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def registry(project: Project, monkeypatch: pytest.MonkeyPatch) -> MlflowRegistry:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(lock, "CONFIRM_SECONDS", 0.0)
    return open_registry(project.root)


def start(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_checkouts_promote_at_once_and_one_is_refused(registry: MlflowRegistry, tmp_path: Path) -> None:
    home = registry.home
    old = register_trained(home, home, "old", None)[WHOLE]
    registry.promote(old, decision(old.digest, None), "the first")
    rivals = [register_trained(home, home, content, old.digest)[WHOLE] for content in ("b", "c")]
    store = f"sqlite:///{home}/.mlflow/mlflow.db"
    processes = []
    for number, rival in enumerate(rivals):
        checkout = tmp_path / f"checkout-{number}"
        checkout.mkdir()
        arguments = (str(checkout), rival.digest, rival.version, old.digest)
        processes.append(start(PROMOTE, *arguments, MLFLOW_TRACKING_URI=store))
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = sorted(process.communicate(timeout=120)[0] for process in processes)
    assert sum(answer.startswith("moved") for answer in answers) == 1, answers
    assert sum("but the champion is" in answer for answer in answers) == 1, answers
    moves = registry.read_history(WHOLE)
    assert [move.before for move in moves] == [None, "1"]
    assert registry.versions.client.get_model_version_by_alias(WHOLE, "champion").version == int(moves[-1].after or 0)
    assert not registry.versions.client.search_registered_models(f"name = '{WHOLE}.lock'")


def test_who_holds_it_is_named_and_a_killed_holders_lock_is_taken_over(
    registry: MlflowRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = registry.versions.client
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0.5)
    with start(HOLD, client.tracking_uri, WHOLE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        who = f"{socket.gethostname()}:{holder.pid}:"
        with pytest.raises(ValueError, match=f"{WHOLE} is being changed by {who}"), hold_store_lock(client, WHOLE):
            pass
        holder.send_signal(signal.SIGKILL)
    with hold_store_lock(client, WHOLE):
        assert not is_stale(client, f"{WHOLE}.lock")
    assert not client.search_registered_models(f"name = '{WHOLE}.lock'")


def test_another_machines_lock_is_taken_over_when_it_is_old(
    registry: MlflowRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = registry.versions.client
    client.create_registered_model(f"{WHOLE}.lock", tags={"holder": "another-machine:1:0.00 0"})
    assert not is_stale(client, f"{WHOLE}.lock")
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.0)
    with hold_store_lock(client, WHOLE):
        pass
    assert not client.search_registered_models(f"name = '{WHOLE}.lock'")


def test_a_clock_that_was_set_makes_no_holder_dead(registry: MlflowRegistry) -> None:
    client, name = registry.versions.client, f"{WHOLE}.lock"
    began = psutil.Process().create_time()
    for shift, is_dead in ((1.0, False), (-60.0, True)):
        holder = f"{socket.gethostname()}:{os.getpid()}:{began + shift:.2f} 0"
        client.create_registered_model(name, tags={"holder": holder})
        assert is_stale(client, name) is is_dead
        client.delete_registered_model(name)


def test_an_old_lock_is_waited_for() -> None:
    assert lock.WAIT_SECONDS > lock.STALE_SECONDS


def test_a_reader_takes_no_lock(registry: MlflowRegistry) -> None:
    with hold_store_lock(registry.versions.client, WHOLE):
        assert registry.read_history(WHOLE) == []
