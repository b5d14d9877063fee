"""For every test: no library reports home."""

from __future__ import annotations

from lifecycle.telemetry import switch_off

switch_off()
