"""No tool that a stage uses may call home: set before any of them is imported, unless the user chose otherwise."""

from __future__ import annotations

import os

OFF = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "EVIDENTLY_DISABLE_TELEMETRY": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "DAFT_ANALYTICS_ENABLED": "0",
    "DISABLE_VERSION_CHECK": "1",  # litdata
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def switch_off() -> None:
    """Set the variables of `OFF` that are not set yet; child processes inherit them."""
    for name, value in OFF.items():
        os.environ.setdefault(name, value)
