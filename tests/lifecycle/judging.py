"""A stage for tests/lifecycle/project that judges: it reads every kind of pinned state, in forms of its own."""

from __future__ import annotations

from tests.lifecycle.conftest import Project

STAGE = '''
import json
from pathlib import Path

from components.artifacts import Numbers, Weights
from lifecycle.declare import pinned
from lifecycle.declare import stage as kinds
from lifecycle.declare.stage import Input, Output, stage
from lifecycle.workspace.digest import digest


class Best(pinned.PinnedChampion, path="best"):
    """The best weights so far."""


class Votes(pinned.PinnedRatings, path="votes"):
    """A line a vote."""

    @classmethod
    def write_empty(cls, folder):
        folder.mkdir()
        (folder / "votes.txt").write_text("")


class Lessons(pinned.PinnedFeedback, path="lessons"):
    """Votes that training learns from."""

    empty = "nothing is learnt"
    sources = (Votes, Numbers)

    @classmethod
    def write_empty(cls, folder):
        folder.mkdir()
        (folder / "lessons.txt").write_text("")

    @classmethod
    def write_feedback(cls, folder, before, votes, numbers):
        if not (fresh := (votes / "votes.txt").read_text()):
            raise ValueError("nobody has voted")
        folder.mkdir()
        (folder / "lessons.txt").write_text((before / "lessons.txt").read_text() + fresh)
        return f"{len(fresh.split())} votes about {len(list(numbers.iterdir()))} numbers"


class Judgement(kinds.Verdict, path="artifacts/judgement.json"):
    """What the votes say."""


@stage()
def judge(
    weights: Input[Weights], best: Input[Best], votes: Input[Votes], lessons: Input[Lessons], out: Output[Judgement]
) -> None:
    """Judge the weights by votes."""
    known = json.loads((best.path / "champion.json").read_text())
    won = len((votes.path / "votes.txt").read_text().split())
    outcome = "pass" if won else "pending"
    challenger = digest(weights.path)
    said = {"outcome": outcome, "reasons": [f"{won} votes"], "challenger": challenger, "champion": known.get("digest")}
    out.path.write_text(json.dumps(said))
'''

WRITE = """
from pathlib import Path
from components.judge import Best, Lessons, Votes
for kind in (Best, Votes, Lessons):
    kind.write_empty(Path(kind.path))
"""


def add_judge(project: Project) -> None:
    """Give the project, a git and DVC repository, the stage `judge` and pins of what it reads, all empty."""
    (project.root / "components" / "judge.py").write_text(STAGE)
    for command in (("python", "-c", WRITE), ("dvc", "add", "-q", "best", "votes", "lessons")):
        done = project.run(*command)
        assert done.returncode == 0, done.stderr
