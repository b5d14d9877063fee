"""People rate in MLflow's review queues: a packet's items in, their answers out.

Every rater has an experiment and queues of her own, and may see no other: a shared item would be done with the first
answer, and nobody is to read what another said. MLflow shows a trace's response preview as Markdown beside the
questions; the item's image is an attachment of the trace, and the preview names it by its absolute address. A prompt
holds words of the catalogue, so Markdown gets it escaped, and never beside that address.

Who answered is `completed_by` of a queue's item: the server binds it to the name that signed in. An answer's own
source can be forged, and answers may be missing, so that `PinnedRatings.write_ratings` checks again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from lifecycle.ratings.packet import Item, Packet
from lifecycle.record.tracking import configure_mlflow
from lifecycle.record.untrusted import escape_markdown

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Trace
    from mlflow.genai.review_queues import ReviewQueue, ReviewQueueItem
    from mlflow.store.entities.paged_list import PagedList

T = TypeVar("T")

EXPERIMENT = "ratings"  # raters' experiments are `ratings/PACKET/NAME`
ITEM = "canvas.item"  # the tag of a trace that names its item
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
class RaterPages:
    """Where a rater works."""

    rater: str
    experiment: str
    pages: tuple[str, ...]  # addresses, one a queue


@dataclass(frozen=True, slots=True)
class Reviews:
    """The queues of one packet on an MLflow server, or in the store behind it."""

    client: MlflowClient
    packet: Packet

    @classmethod
    def open(cls, uri: str, packet: Packet) -> Reviews:
        """Open the queues of `packet` at `uri`; imports MLflow (2 to 3 s)."""
        configure_mlflow()
        import mlflow
        from mlflow.tracking.client import MlflowClient

        mlflow.set_tracking_uri(uri)
        return cls(MlflowClient(uri), packet)

    def load(self, rater: str, address: str) -> RaterPages:
        """Put the packet before `rater`, whose browser calls the server `address`; what is there already stays."""
        import mlflow

        experiment = self._find_or_create_experiment(rater)
        mlflow.set_experiment(experiment_id=experiment)
        traces = {trace.info.tags[ITEM]: trace.info.trace_id for trace in self._list_traces(experiment)}
        queues = []
        for kind in self.packet.kinds:
            # An order of the rater's own. The newest stands on top, so that the last one put in comes first.
            items = [item for item in self.packet.items if item.kind == kind]
            items = random.Random(rater).sample(items, len(items))
            for item in items:
                if item.item_id not in traces:
                    traces[item.item_id] = self._create_trace(item, address)
            mlflow.flush_trace_async_logging()  # a queue takes only what has arrived
            queues.append(self._fill_queue(experiment, rater, kind, [traces[item.item_id] for item in items]))
        page = f"{address}/#/experiments/{experiment}/review-queue?selectedQueueId="
        return RaterPages(rater, experiment, tuple(page + queue for queue in queues))

    def read_answers(self) -> Iterator[Answer]:
        """Yield what every rater of this packet has answered so far."""
        by_text = {question.text: question.name for question in self.packet.questions}
        for experiment in self.client.search_experiments(filter_string=f"name LIKE '{self._prefix}%'"):
            rater = experiment.name.removeprefix(self._prefix)
            queues = self._list_queues(experiment.experiment_id)
            items = {item.item_id: item for queue in queues for item in _list_items(queue)}
            for trace in self._list_traces(experiment.experiment_id):
                item = items.get(trace.info.trace_id)
                for feedback in trace.info.assessments or ():
                    if feedback.name in by_text and feedback.valid is not False and feedback.feedback is not None:
                        yield Answer(
                            rater,
                            trace.info.tags[ITEM],
                            by_text[feedback.name],
                            str(feedback.feedback.value),
                            str(item.status.value) if item else "pending",
                            item.completed_by if item else None,
                            item.completed_time_ms if item else None,
                            feedback.last_update_time_ms or 0,
                        )

    @property
    def _prefix(self) -> str:
        return f"{EXPERIMENT}/{self.packet.name}/"

    def _find_or_create_experiment(self, rater: str) -> str:
        existing = self.client.get_experiment_by_name(self._prefix + rater)
        return str(existing.experiment_id if existing else self.client.create_experiment(self._prefix + rater))

    def _list_traces(self, experiment: str) -> Iterator[Trace]:
        search = partial(self.client.search_traces, locations=[experiment], max_results=100, include_spans=False)
        return (trace for trace in _read_pages(search) if ITEM in trace.info.tags)

    def _create_trace(self, item: Item, address: str) -> str:
        """Create a trace that shows `item`; return its id."""
        import mlflow
        from mlflow.tracing.attachments import Attachment

        image = Attachment(content_type="image/png", content_bytes=item.image.read_bytes())
        prompt = escape_markdown(item.prompt)
        with mlflow.start_span(item.item_id) as span:
            span.set_inputs({"prompt": prompt})
            span.set_outputs({"picture": image})
            source = f"{address}/ajax-api/2.0/mlflow/get-trace-artifact?request_id={span.trace_id}&path={image.id}"
            mlflow.update_current_trace(
                tags={ITEM: item.item_id}, request_preview=prompt, response_preview=f"![The image]({source})"
            )
        return str(span.trace_id)

    def _fill_queue(self, experiment: str, rater: str, kind: str, traces: Sequence[str]) -> str:
        """Put `traces` into the queue of `kind` for `rater` alone, made if need be; return its id."""
        from mlflow.genai import review_queues

        name = f"{self.packet.name} {kind}"
        queues = {queue.name: queue for queue in self._list_queues(experiment)}
        queue = queues.get(name) or review_queues.create_review_queue(
            name,
            queue_type="custom",
            users=[rater],
            schema_ids=self._find_or_create_schemas(experiment, kind),
            experiment_id=experiment,
        )
        present = {item.item_id for item in _list_items(queue)}
        missing = [trace for trace in traces if trace not in present]
        for start in range(0, len(missing), AT_ONCE):
            review_queues.add_items_to_review_queue(queue.queue_id, item_ids=missing[start : start + AT_ONCE])
        return str(queue.queue_id)

    def _find_or_create_schemas(self, experiment: str, kind: str) -> list[str]:
        """Return the ids of the questions of `kind`, made if need be. MLflow shows the newest on top."""
        from mlflow.genai import label_schemas

        schemas = label_schemas.list_label_schemas(experiment_id=experiment)
        ids = {schema.name: str(schema.schema_id) for schema in schemas}
        questions = [question for question in self.packet.questions if question.kind == kind]
        for question in reversed(questions):
            if question.text not in ids:
                schema = label_schemas.create_label_schema(
                    question.text,
                    type="feedback",
                    input=label_schemas.InputCategorical(options=list(question.answers)),
                    experiment_id=experiment,
                )
                ids[question.text] = str(schema.schema_id)
        return [ids[question.text] for question in questions]

    def _list_queues(self, experiment: str) -> list[ReviewQueue]:
        from mlflow.genai import review_queues

        return list(review_queues.list_review_queues(experiment_id=experiment, max_results=100))


def _list_items(queue: ReviewQueue) -> Iterator[ReviewQueueItem]:
    from mlflow.genai import review_queues

    return _read_pages(partial(review_queues.list_review_queue_items, queue.queue_id, max_results=100))


def _read_pages(fetch: Callable[..., PagedList[T]]) -> Iterator[T]:
    """Yield what `fetch` gives, page after page."""
    token = None
    while True:
        page = fetch(page_token=token)
        yield from page
        if not (token := page.token):
            return
