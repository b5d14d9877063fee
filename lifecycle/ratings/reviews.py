"""People rate in MLflow's review queues: a packet's items in, their answers out.

Every rater has an experiment and queues of her own, and may see no other: a shared item would be done with the first
answer, and nobody is to read what another said. MLflow shows a trace's response preview as Markdown beside the
questions; the item's picture is an attachment of the trace, and the preview names it by its absolute address.

Who answered is `completed_by` of a queue's item: the server binds it to the name that signed in. An answer's own
source can be forged, and answers may be missing, so that `PinnedRatings.write_answers` checks again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lifecycle.ratings.packet import Item, Packet, Question

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Trace
    from mlflow.genai.review_queues import ReviewQueue, ReviewQueueItem

EXPERIMENT = "ratings"
"""Raters' experiments are `ratings/PACKET/NAME`."""

ITEM = "canvas.item"
"""The tag of a trace that names its item."""

AT_ONCE = 50  # items in one request


@dataclass(frozen=True, slots=True)
class Answer:
    """One rater's answer to one question about one item, as the server has it; nothing is checked."""

    rater: str  # whose queue it stood in
    item_id: str
    question: str
    answer: str
    status: str  # of the queue's item: "pending" | "complete" | "declined"
    completed_by: str | None
    completed_ms: int | None  # since the epoch
    given_ms: int


@dataclass(frozen=True, slots=True)
class Desk:
    """Where a rater works."""

    rater: str
    experiment: str
    pages: tuple[str, ...]  # addresses, one a queue


@dataclass(frozen=True, slots=True)
class Reviews:
    """The queues of one packet on an MLflow server, or in the store behind it."""

    client: MlflowClient
    uri: str
    packet: Packet

    @classmethod
    def open(cls, uri: str, packet: Packet) -> Reviews:
        """Queues of `packet` at `uri`; imports MLflow (2 to 3 s)."""
        import mlflow
        from mlflow.tracking.client import MlflowClient

        mlflow.set_tracking_uri(uri)
        return cls(MlflowClient(uri), uri, packet)

    def load(self, rater: str, address: str) -> Desk:
        """Put the packet before `rater`; what is there already stays. `address` is the server's, as her browser
        calls it."""
        import mlflow

        experiment = self._experiment(rater)
        mlflow.set_experiment(experiment_id=experiment)
        found = self._items_there(experiment)
        queues = []
        for kind in self.packet.kinds:
            # The newest stands on top, so that the last one put in comes first.
            wanted = _shuffled([item for item in self.packet.items if item.kind == kind], rater)
            for item in wanted:
                if item.item_id not in found:
                    found[item.item_id] = self._trace(item, address)
            mlflow.flush_trace_async_logging()  # a queue takes only what has arrived
            queues.append(self._fill(experiment, rater, kind, [found[item.item_id] for item in wanted]))
        page = f"{address}/#/experiments/{experiment}/review-queue?selectedQueueId="
        return Desk(rater, experiment, tuple(page + queue for queue in queues))

    def answers(self) -> Iterator[Answer]:
        """What every rater of this packet has answered so far."""
        for experiment in self.client.search_experiments(filter_string=f"name LIKE '{self._prefix}%'"):
            rater = experiment.name.removeprefix(self._prefix)
            done = {item.item_id: item for queue in self._queues(experiment.experiment_id) for item in _items(queue)}
            for trace in self._traces(experiment.experiment_id):
                yield from _answers(rater, trace, done.get(trace.info.trace_id), self.packet.questions)

    @property
    def _prefix(self) -> str:
        return f"{EXPERIMENT}/{self.packet.name}/"

    def _experiment(self, rater: str) -> str:
        name = self._prefix + rater
        found = self.client.get_experiment_by_name(name)
        return str(found.experiment_id if found is not None else self.client.create_experiment(name))

    def _traces(self, experiment: str) -> Iterator[Trace]:
        token = None
        while True:
            page = self.client.search_traces(
                locations=[experiment], max_results=100, page_token=token, include_spans=False
            )
            yield from (trace for trace in page if ITEM in trace.info.tags)
            if not (token := page.token):
                return

    def _items_there(self, experiment: str) -> dict[str, str]:
        """item_id -> trace id."""
        return {trace.info.tags[ITEM]: trace.info.trace_id for trace in self._traces(experiment)}

    def _trace(self, item: Item, address: str) -> str:
        """A trace that shows `item`; its id."""
        import mlflow
        from mlflow.tracing.attachments import Attachment

        picture = Attachment(content_type="image/png", content_bytes=item.picture.read_bytes())
        with mlflow.start_span(item.item_id) as span:
            span.set_inputs({"prompt": item.prompt})
            span.set_outputs({"picture": picture})
            shown = f"{address}/ajax-api/2.0/mlflow/get-trace-artifact?request_id={span.trace_id}&path={picture.id}"
            mlflow.update_current_trace(
                tags={ITEM: item.item_id},
                request_preview=item.prompt,
                response_preview=f"![{item.prompt}]({shown})",
            )
        return str(span.trace_id)

    def _fill(self, experiment: str, rater: str, kind: str, traces: Sequence[str]) -> str:
        """The id of a queue of `kind` that holds `traces`, for `rater` alone."""
        from mlflow.genai import review_queues

        name = f"{self.packet.name} {kind}"
        queues = {queue.name: queue for queue in self._queues(experiment)}
        queue = queues.get(name) or review_queues.create_review_queue(
            name,
            queue_type="custom",
            users=[rater],
            schema_ids=self._schemas(experiment, kind),
            experiment_id=experiment,
        )
        there = {item.item_id for item in _items(queue)}
        missing = [trace for trace in traces if trace not in there]
        for start in range(0, len(missing), AT_ONCE):
            review_queues.add_items_to_review_queue(queue.queue_id, item_ids=missing[start : start + AT_ONCE])
        return str(queue.queue_id)

    def _schemas(self, experiment: str, kind: str) -> list[str]:
        """The ids of the questions of `kind`, made if need be. The newest is shown on top."""
        from mlflow.genai import label_schemas

        known = {one.name: str(one.schema_id) for one in label_schemas.list_label_schemas(experiment_id=experiment)}
        for question in reversed([one for one in self.packet.questions if one.kind == kind]):
            if question.text not in known:
                made = label_schemas.create_label_schema(
                    question.text,
                    type="feedback",
                    input=label_schemas.InputCategorical(options=list(question.answers)),
                    experiment_id=experiment,
                )
                known[question.text] = str(made.schema_id)
        return [known[one.text] for one in self.packet.questions if one.kind == kind]

    def _queues(self, experiment: str) -> list[ReviewQueue]:
        from mlflow.genai import review_queues

        return list(review_queues.list_review_queues(experiment_id=experiment, max_results=100))


def _items(queue: ReviewQueue) -> Iterator[ReviewQueueItem]:
    from mlflow.genai import review_queues

    token = None
    while True:
        page = review_queues.list_review_queue_items(queue.queue_id, max_results=100, page_token=token)
        yield from page
        if not (token := page.token):
            return


def _answers(rater: str, trace: Trace, done: ReviewQueueItem | None, questions: Sequence[Question]) -> Iterator[Answer]:
    by_text = {question.text: question.name for question in questions}
    for given in trace.info.assessments or ():
        if given.name in by_text and given.valid is not False and given.feedback is not None:
            yield Answer(
                rater,
                trace.info.tags[ITEM],
                by_text[given.name],
                str(given.feedback.value),
                "pending" if done is None else str(done.status.value),
                None if done is None else done.completed_by,
                None if done is None else done.completed_time_ms,
                given.last_update_time_ms or 0,
            )


def _shuffled(items: Sequence[Item], rater: str) -> list[Item]:
    """An order of the rater's own."""
    return random.Random(rater).sample(items, len(items))
