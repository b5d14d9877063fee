"""The aliases of a composite and its parts in MLflow, and what is intended with them.

Tags of the composite's registered model: `intent`, while a move of the champion is under way, and
`history.<number>` for each move that was carried out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lifecycle.registry.promotion import Intent

if TYPE_CHECKING:
    from mlflow import MlflowClient

INTENT, HISTORY = "intent", "history."


@dataclass(frozen=True, slots=True)
class MlflowShelf:
    """See `lifecycle.registry.promotion.Shelf`; `whole` is the composite's name."""

    client: MlflowClient
    whole: str

    def alias(self, name: str, alias: str) -> str | None:
        model = self._model(name)
        found = model.aliases.get(alias) if model else None
        return None if found is None else str(found)

    def point(self, name: str, alias: str, version: str | None) -> None:
        if version is not None:
            self.client.set_registered_model_alias(name, alias, version)
        elif self.alias(name, alias) is not None:
            self.client.delete_registered_model_alias(name, alias)

    def has(self, name: str, version: str) -> bool:
        return bool(self.client.search_model_versions(f"name = '{name}' and version_number = {int(version)}"))

    def intent(self) -> Intent | None:
        text = self._tags().get(INTENT)
        return Intent.read(text) if text else None

    def intend(self, intent: Intent | None) -> None:
        if intent is not None:
            self.client.set_registered_model_tag(self.whole, INTENT, intent.text)
        elif INTENT in self._tags():
            self.client.delete_registered_model_tag(self.whole, INTENT)

    def history(self) -> list[Intent]:
        kept = [Intent.read(text) for key, text in self._tags().items() if key.startswith(HISTORY)]
        return sorted(kept, key=lambda intent: intent.number)

    def remember(self, intent: Intent) -> None:
        self.client.set_registered_model_tag(self.whole, f"{HISTORY}{intent.number:06d}", intent.text)

    def _tags(self) -> dict[str, str]:
        model = self._model(self.whole)
        return dict(model.tags) if model else {}

    def _model(self, name: str) -> Any:
        found = self.client.search_registered_models(f"name = '{name}'", max_results=1)
        return found[0] if found else None
