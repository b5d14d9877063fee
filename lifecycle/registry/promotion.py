"""Moving the champion: which aliases go where, and an intent that makes the move whole or undone.

A registry moves one alias at a time. So what is intended is written down first, in one write, where the aliases are;
whoever comes next completes it, or undoes it when it can no longer be completed. Aliases:

    candidate   the version that was registered last
    champion    the version in use
    previous    the champion before it
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from lifecycle.declare.registry import Decision, Promotion

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
WHY_CHARACTERS = 1000  # of the 5000 that a tag of a registered model holds


@dataclass(frozen=True, slots=True)
class Move:
    """An alias of a registered model from one version to another; None: the alias is not there."""

    name: str
    alias: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Intent:
    """A move of the champion as it is written down before it begins, and in the history after it."""

    number: int
    promotion: Promotion
    moves: tuple[Move, ...]

    @property
    def text(self) -> str:
        moves = [[move.name, move.alias, move.before, move.after] for move in self.moves]
        return json.dumps({"number": self.number, **asdict(self.promotion), "moves": moves}, separators=(",", ":"))

    @classmethod
    def read(cls, text: str) -> Intent:
        fields = json.loads(text)
        number, moves = fields.pop("number"), fields.pop("moves")
        return cls(number, Promotion(**fields), tuple(Move(*move) for move in moves))


@dataclass(frozen=True, slots=True)
class Member:
    """A version that would be champion together with others."""

    version: str
    digest: str
    parents: Mapping[str, str] | None
    """Registered model -> digest that it was made from; None: no run is recorded that made it."""


class Shelf(Protocol):
    """Where the aliases are: every call is one write that happens or does not."""

    def alias(self, name: str, alias: str) -> str | None:
        """The version that an alias points at."""

    def point(self, name: str, alias: str, version: str | None) -> None:
        """Set an alias; None removes it. The same again changes nothing."""

    def has(self, name: str, version: str) -> bool:
        """Whether there is such a version."""

    def intent(self) -> Intent | None:
        """The intent that is written down."""

    def intend(self, intent: Intent | None) -> None:
        """Write an intent down, or remove it."""

    def history(self) -> list[Intent]:
        """What was carried out, oldest first."""

    def remember(self, intent: Intent) -> None:
        """Add to the history. The same again changes nothing."""


def carry_out(shelf: Shelf, intent: Intent) -> None:
    """Make all moves of an intent, so that a kill at any point leaves `settle` enough to finish or undo it."""
    shelf.intend(intent)
    _finish(shelf, intent)


def settle(shelf: Shelf) -> Literal["completed", "undone"] | None:
    """Bring to an end what a killed process left half done; None if nothing was left.

    It is completed if every version that it moves to is still there, else undone.
    """
    intent = shelf.intent()
    if intent is None:
        return None
    if all(move.after is None or shelf.has(move.name, move.after) for move in intent.moves):
        _finish(shelf, intent)
        return "completed"
    for move in intent.moves:
        lost = move.before is not None and not shelf.has(move.name, move.before)
        shelf.point(move.name, move.alias, None if lost else move.before)
    shelf.intend(None)
    return "undone"


def _finish(shelf: Shelf, intent: Intent) -> None:
    for move in intent.moves:
        shelf.point(move.name, move.alias, move.after)
    shelf.remember(intent)
    shelf.intend(None)


def promoted(shelf: Shelf, whole: str, versions: Mapping[str, str], who: str, when: str, why: str) -> Intent:
    """The intent to make `versions` (registered model -> version, the composite `whole` among them) champions.

    A model that had a champion and is not among them loses it: a champion is what the composite was made with.
    """
    history = shelf.history()
    former = {move.name for intent in history for move in intent.moves}
    moves = []
    for name in sorted(former | versions.keys(), key=lambda name: (name == whole, name)):
        champion, after = shelf.alias(name, CHAMPION), versions.get(name)
        if champion != after:
            moves += [
                Move(name, PREVIOUS, shelf.alias(name, PREVIOUS), champion),
                Move(name, CHAMPION, champion, after),
            ]
        if after is not None and shelf.alias(name, CANDIDATE) == after:
            moves.append(Move(name, CANDIDATE, after, None))
    promotion = Promotion(
        kind="promote",
        before=shelf.alias(whole, CHAMPION),
        after=versions[whole],
        who=who,
        when=when,
        why=_reason(why),
    )
    return Intent(len(history) + 1, promotion, tuple(moves))


def rolled_back(shelf: Shelf, whole: str, who: str, when: str, why: str) -> Intent:
    """The intent to undo the last promotion that was not undone yet: `previous` is champion again.

    `ValueError` if there is none, if it was the first, or if an alias no longer is where it put it.
    """
    history = shelf.history()
    standing: list[Intent] = []
    for intent in history:
        if intent.promotion.kind == "promote":
            standing.append(intent)
        else:
            standing.pop()
    if not standing:
        raise ValueError(f"{whole} has no champion that was promoted: there is nothing to roll back")
    last = standing[-1]
    if last.promotion.before is None:
        raise ValueError(f"{whole} version {last.promotion.after} is the first champion: there is no previous one")
    moves = [move for move in last.moves if move.alias != CANDIDATE]
    for move in moves:
        if (now := shelf.alias(move.name, move.alias)) != move.after:
            raise ValueError(
                f"{move.alias} of {move.name} is version {now}, not {move.after} as promotion {last.number} left it: "
                "somebody moved it by hand; put it back first"
            )
        if move.before is not None and not shelf.has(move.name, move.before):
            raise ValueError(f"{move.name} version {move.before}, which was {move.alias}, is no longer registered")
    back = tuple(Move(move.name, move.alias, move.after, move.before) for move in moves)
    promotion = Promotion(
        kind="rollback",
        before=last.promotion.after,
        after=last.promotion.before,
        who=who,
        when=when,
        why=_reason(why),
    )
    return Intent(len(history) + 1, promotion, back)


def check_decision(decision: Decision, challenger: str, champion: str | None, label: str) -> None:
    """`ValueError` unless `decision` lets the model of digest `challenger` replace that of digest `champion`."""
    if decision.challenger != challenger:
        raise ValueError(
            f"{label} is not promoted: the verdict is about another model ({decision.challenger}), not {challenger}; "
            "`dvc repro gate register` judges what lies here"
        )
    if decision.outcome != "pass":
        raise ValueError(f"{label} is not promoted: the verdict is {decision.outcome}: {'; '.join(decision.reasons)}")
    if decision.champion != champion:
        raise ValueError(
            f"{label} is not promoted: the verdict compares it with {decision.champion or 'no champion'}, but the "
            f"champion is {champion or 'none'} by now; `python -m lifecycle champion pull` and judge again"
        )


def check_not_rolled_back(history: Iterable[Intent], version: str, label: str) -> None:
    """`ValueError` if the last that was done with composite `version` was to roll it back."""
    moves = [intent.promotion for intent in history]
    last = next((move for move in reversed(moves) if version in (move.before, move.after)), None)
    if last is not None and last.kind == "rollback" and last.before == version:
        raise ValueError(
            f"{label} is not promoted: {last.who} rolled it back ({last.why}); "
            "`python -m lifecycle promote --why ...` if it is to be champion all the same"
        )


def check_parents(members: Mapping[str, Member]) -> None:
    """`ValueError` naming the first of `members` (registered model -> version) that was not made from the others."""
    for name, member in members.items():
        label = f"{name} version {member.version} is not promoted"
        if member.parents is None:
            raise ValueError(
                f"{label}: no run is recorded that made it ({member.digest}), so its parents are unknown; "
                "`dvc repro --force` on its stage records one"
            )
        for parent, digest in member.parents.items():
            if parent not in members:
                raise ValueError(f"{label}: its parent {parent} was not registered with it")
            if digest != members[parent].digest:
                raise ValueError(
                    f"{label}: it was made from {parent} {digest}, and version {members[parent].version} of {parent}, "
                    f"which would be champion with it, is {members[parent].digest}; make {name} again from that one"
                )


def _reason(why: str) -> str:
    text = " ".join(why.split())
    if not text or len(text) > WHY_CHARACTERS:
        raise ValueError(f"why: say it in 1 to {WHY_CHARACTERS} characters, not {len(text)}")
    return text
