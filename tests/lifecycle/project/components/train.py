import time
from dataclasses import dataclass

from components.artifacts import Numbers, Weights
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, StepLog, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimizer:
    learning_rate: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    steps: int
    seconds_a_step: float
    optimizer: Optimizer


@stage(machine="gpu")
def train(
    train: Train,
    numbers: Input[Numbers],
    weights: Output[Weights],
    metrics: Output[Metrics],
    losses: Output[Losses],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Sum the numbers, a step at a time, from where it was."""
    done = scratch.path / "steps"
    first = int(done.read_text()) if done.exists() else 0
    weights.path.mkdir()
    (weights.path / "model.safetensors").write_text("half")
    for step in range(first, train.steps):
        log.metrics({"loss": 1 / (step + 1)}, step)
        time.sleep(train.seconds_a_step)
        done.write_text(str(step + 1))
    total = sum(int(file.read_text()) for file in numbers.path.iterdir())
    (weights.path / "model.safetensors").write_text(str(total))
    metrics.path.write_text(f'{{"total": {total}, "first": {{"step": {first}}}}}')
    losses.path.write_text("step,loss\n" + "".join(f"{step},{1 / (step + 1)}\n" for step in range(train.steps)))
