"""Moving the champion: which aliases go where, and an intent that makes the move whole or undone.

A registry moves one alias at a time. So what is intended is written down first, in one write, where the aliases are;
whoever comes next completes it, or undoes it when it can no longer be completed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lifecycle.declare.registry import Decision, Promotion
from lifecycle.registry.aliases import CANDIDATE, CHAMPION, PREVIOUS, Aliases, Intent, Move

WHY_CHARACTERS = 1000  # of the 5000 that a tag of a registered model holds


@dataclass(frozen=True, slots=True)
class Member:
    """A version that would be champion together with others."""

    version: str
    digest: str
    parents: Mapping[str, str] | None  # registered model -> digest that it was made from; None: no run is recorded
    path: str  # of its artifact


def carry_out(aliases: Aliases, intent: Intent) -> Promotion:
    """Make all moves of an intent, so that a kill at any point leaves `settle` enough to finish or undo it."""
    aliases.write_intent(intent)
    _finish(aliases, intent)
    return intent.promotion


def settle(aliases: Aliases) -> None:
    """Complete what a killed process left half done; undo it if a version that it moves to is no longer there."""
    intent = aliases.read_intent()
    if intent is None:
        return
    if all(move.after is None or aliases.has_version(move.name, move.after) for move in intent.moves):
        _finish(aliases, intent)
        return
    for move in intent.moves:
        lost = move.before is not None and not aliases.has_version(move.name, move.before)
        aliases.set(move.name, move.alias, None if lost else move.before)
    aliases.delete_intent()


def _finish(aliases: Aliases, intent: Intent) -> None:
    for move in intent.moves:
        aliases.set(move.name, move.alias, move.after)
    aliases.append_history(intent)
    aliases.delete_intent()


def plan_promotion(aliases: Aliases, versions: Mapping[str, str], who: str, when: str, why: str) -> Intent:
    """Return the intent to make `versions` (registered model -> version, the composite among them) champions.

    A model that had a champion and is not among them loses it: a champion is what the composite was made with.
    """
    history, composite = aliases.read_history(), aliases.composite
    former = {move.name for intent in history for move in intent.moves}
    moves = []
    for name in sorted(former | versions.keys(), key=lambda name: (name == composite, name)):
        champion, after = aliases.read(name, CHAMPION), versions.get(name)
        if champion != after:
            moves.append(Move(name, PREVIOUS, aliases.read(name, PREVIOUS), champion))
            moves.append(Move(name, CHAMPION, champion, after))
        if after is not None and aliases.read(name, CANDIDATE) == after:
            moves.append(Move(name, CANDIDATE, after, None))
    before, after = aliases.read(composite, CHAMPION), versions[composite]
    why = _check_reason(why)
    promotion = Promotion(kind="promote", before=before, after=after, who=who, when=when, why=why)
    return Intent(len(history) + 1, promotion, tuple(moves))


def plan_rollback(aliases: Aliases, who: str, when: str, why: str) -> Intent:
    """Return the intent to undo the last promotion that was not undone yet: `previous` is champion again.

    `ValueError` if there is none, if it was the first, or if an alias no longer is where it put it.
    """
    history, composite = aliases.read_history(), aliases.composite
    standing: list[Intent] = []
    for intent in history:
        if intent.promotion.kind == "promote":
            standing.append(intent)
        else:
            standing.pop()
    if not standing:
        raise ValueError(f"{composite} has no champion that was promoted: there is nothing to roll back")
    last = standing[-1]
    before, after = last.promotion.after, last.promotion.before
    if after is None:
        raise ValueError(f"{composite} version {before} is the first champion: there is no previous one")
    moves = [move for move in last.moves if move.alias != CANDIDATE]
    for move in moves:
        if (now := aliases.read(move.name, move.alias)) != move.after:
            raise ValueError(
                f"{move.alias} of {move.name} is version {now}, not {move.after} as promotion {last.number} left it: "
                "somebody moved it by hand; put it back first"
            )
        if move.before is not None and not aliases.has_version(move.name, move.before):
            raise ValueError(f"{move.name} version {move.before}, which was {move.alias}, is no longer registered")
    why = _check_reason(why)
    promotion = Promotion(kind="rollback", before=before, after=after, who=who, when=when, why=why)
    back = tuple(Move(move.name, move.alias, move.after, move.before) for move in moves)
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


def check_evidence(members: Mapping[str, Member], evidence: Mapping[str, Mapping[str, str]], label: str) -> None:
    """`ValueError` naming the first model that evidence was made with and that is not among `members` as it was.

    Args:
        members: Registered model -> version.
        evidence: Path of what the verdict was made of -> what the run that wrote it read (path -> digest).
        label: The version that would be champion.
    """
    paths = {member.path: (name, member) for name, member in members.items()}
    for artifact, reads in evidence.items():
        for path, digest in reads.items():
            if path in paths and paths[path][1].digest != digest:
                name, member = paths[path]
                raise ValueError(
                    f"{label} is not promoted: {artifact} was made with {name} {digest}, but the version that would be "
                    f"champion is {member.digest}; `dvc repro register` judges with the models that lie here"
                )


def _check_reason(why: str) -> str:
    text = " ".join(why.split())
    if not text or len(text) > WHY_CHARACTERS:
        raise ValueError(f"why: say it in 1 to {WHY_CHARACTERS} characters, not {len(text)}")
    return text
