"""The aliases of a composite and its parts in MLflow, and the move of the champion that is written down with them.

Tags of the composite's registered model: `intent`, while a move of the champion is under way, and
`history.<number>` for each move that was carried out. Aliases:

    candidate   the version that was registered last
    champion    the version in use
    previous    the champion before it
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from lifecycle.declare.registry import Promotion

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
INTENT, HISTORY = "intent", "history."


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

    def to_json(self) -> str:
        moves = [[move.name, move.alias, move.before, move.after] for move in self.moves]
        return json.dumps({"number": self.number, **asdict(self.promotion), "moves": moves}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Intent:
        fields = json.loads(text)
        number, moves = fields.pop("number"), fields.pop("moves")
        return cls(number, Promotion(**fields), tuple(Move(*move) for move in moves))


@dataclass(frozen=True, slots=True)
class Aliases:
    """Where the aliases of the model named `composite` and its parts are. A write happens whole or not at all."""

    client: MlflowClient
    composite: str

    def read(self, name: str, alias: str) -> str | None:
        """Return the version that an alias points at."""
        model = self._find_model(name)
        version = model.aliases.get(alias) if model else None
        return None if version is None else str(version)

    def set(self, name: str, alias: str, version: str | None) -> None:
        """Point an alias at a version; None removes it. The same again changes nothing."""
        if version is not None:
            self.client.set_registered_model_alias(name, alias, version)
        elif self.read(name, alias) is not None:
            self.client.delete_registered_model_alias(name, alias)

    def has_version(self, name: str, version: str) -> bool:
        return bool(self.client.search_model_versions(f"name = '{name}' and version_number = {int(version)}"))

    def read_intent(self) -> Intent | None:
        text = self._read_tags().get(INTENT)
        return Intent.from_json(text) if text else None

    def write_intent(self, intent: Intent) -> None:
        self.client.set_registered_model_tag(self.composite, INTENT, intent.to_json())

    def delete_intent(self) -> None:
        if INTENT in self._read_tags():
            self.client.delete_registered_model_tag(self.composite, INTENT)

    def read_history(self) -> list[Intent]:
        """Return what was carried out, oldest first."""
        intents = [Intent.from_json(text) for key, text in self._read_tags().items() if key.startswith(HISTORY)]
        return sorted(intents, key=lambda intent: intent.number)

    def append_history(self, intent: Intent) -> None:
        """Add to the history. The same again changes nothing."""
        self.client.set_registered_model_tag(self.composite, f"{HISTORY}{intent.number:06d}", intent.to_json())

    def _read_tags(self) -> dict[str, str]:
        model = self._find_model(self.composite)
        return dict(model.tags) if model else {}

    def _find_model(self, name: str) -> RegisteredModel | None:
        models = self.client.search_registered_models(f"name = '{name}'", max_results=1)
        return models[0] if models else None
