"""A lock in the store itself: one at a time moves aliases, also from several checkouts or machines.

MLflow's API has no transaction over several calls, but a registered model's name is unique in every store: who creates
the model `<composite>.lock` holds the lock, and deletes the model at the end.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

SUFFIX = ".lock"
STALE_SECONDS = 300.0
"""A move takes seconds: who holds the lock for so long was killed, on a machine that cannot be asked."""
WAIT_SECONDS = STALE_SECONDS + 10.0  # so that a killed holder's lock is taken over, not complained of
CLOCK_SECONDS = 2.0  # a clock that is set moves the time at which a process began
POLL_SECONDS = 0.1
CONFIRM_SECONDS = 0.3  # after a dead holder's lock was removed, which two may do at once


@contextmanager
def hold_store_lock(client: MlflowClient, composite: str) -> Iterator[None]:
    """Hold the lock of `composite` in the client's store. `ValueError`, naming who holds it, if it does not come
    free."""
    from mlflow.exceptions import MlflowException

    name, holder = composite + SUFFIX, f"{_describe_process(os.getpid())} {uuid.uuid4().hex}"
    until, took_over = time.monotonic() + WAIT_SECONDS, False
    while True:
        try:
            client.create_registered_model(name, tags={"holder": holder})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            if _read_holder(client, name)[0] != holder:  # else our own call made it, whose answer was lost
                if is_stale(client, name):
                    took_over = True
                    with suppress(MlflowException):  # somebody else was faster
                        client.delete_registered_model(name)
                elif time.monotonic() > until:
                    raise ValueError(
                        f"{composite} is being changed by {_read_holder(client, name)[0]}: try again when that is done"
                    ) from None
                else:
                    time.sleep(POLL_SECONDS)
                continue
        if took_over:
            time.sleep(CONFIRM_SECONDS)
        if _read_holder(client, name)[0] == holder:
            break
    try:
        yield
    finally:
        if _read_holder(client, name)[0] == holder:
            client.delete_registered_model(name)


def is_stale(client: MlflowClient, name: str) -> bool:
    """Whether the lock's holder is known to be dead, or has held it for too long."""
    holder, age = _read_holder(client, name)
    host, _, rest = holder.partition(":")
    if host == socket.gethostname():
        import psutil

        pid, _, began = rest.partition(" ")[0].partition(":")
        if pid.isdecimal():
            with suppress(psutil.Error, ValueError):
                process = psutil.Process(int(pid))
                is_another = abs(process.create_time() - float(began)) > CLOCK_SECONDS
                return is_another or process.status() == psutil.STATUS_ZOMBIE
            return True
    return age > STALE_SECONDS


def _describe_process(pid: int) -> str:
    """Return host, process id and when the process began, which is another after the number is used again."""
    import psutil

    return f"{socket.gethostname()}:{pid}:{psutil.Process(pid).create_time():.2f}"


def _read_holder(client: MlflowClient, name: str) -> tuple[str, float]:
    """Return who holds the lock and for how many seconds; ("", 0) if nobody does."""
    models = client.search_registered_models(f"name = '{name}'", max_results=1)
    if not models:
        return "", 0.0
    return str(models[0].tags.get("holder", "")), time.time() - models[0].creation_timestamp / 1000
