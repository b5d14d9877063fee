"""A stage that shows all others shows a new one without being changed, in DVC, in Kubeflow and on the page."""

from __future__ import annotations

import json
from pathlib import Path

from tests.graph.conftest import Project
from tests.graph.edges import dvc_edges, kfp_edges, makers
from tests.graph.test_project import NEW_STAGE

SHOW = '''"""Show every stage."""

from lifecycle.declare.stage import Collected, Metrics, Output, Report, stage


@stage()
def show(collected: Collected, index: Output[Report], metrics: Output[Metrics]) -> None:
    """Show every stage."""
    from evaluation.pages.index import render_index_page, read_metrics

    decision = {"outcome": "fail", "reasons": ["too square"]}
    page = render_index_page("reports/show/index.html", "Toy", decision, {"count": 1}, collected.exhibits)
    index.path.write_text(page)
    metrics.path.write_text(f\'{{"stages": {len(read_metrics(collected.exhibits))}}}\')
'''


def test_a_new_stage_is_shown_by_itself(repository: Project) -> None:
    repository.write("components/show.py", SHOW)
    repository.pipelines("graph")
    repository.ok("dvc", "repro", "show")
    before = repository.read("reports/show/index.html")
    assert "The gates say: fail" in before
    assert "<p>too square</p>" in before
    for piece in ("Square the first numbers", "sum.squares", "data:image/png", 'href="../square/report.html"', "cube"):
        assert piece in before
    assert "Double the mean" not in before
    assert json.loads(repository.read("reports/show/metrics.json")) == {"stages": 2}

    repository.write("components/double.py", NEW_STAGE.format(pipeline="train"))
    repository.pipelines("graph")
    dvc, (train, _) = repository.dvc(), repository.compiled()
    assert {"reports/square", "reports/double"} <= set(dvc["stages"]["show"]["deps"])
    assert kfp_edges(train, makers(dvc)) == dvc_edges(dvc)
    repository.ok("dvc", "repro", "show")
    page = repository.read("reports/show/index.html")
    assert page.index("Square the first numbers") < page.index("Average the squares") < page.index("Double the mean")
    assert "<td>doubled</td>" in page
    assert json.loads(repository.read("reports/show/metrics.json")) == {"stages": 3}


def test_kubeflow_hands_over_what_is_shown(toy: Project) -> None:
    toy.write("components/show.py", SHOW)
    toy.pipelines("graph")
    done = toy.pipelines("local", "--profile", "tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = Path(done.stdout.splitlines()[-1].removeprefix("Everything lies in "))
    assert (folder / "show" / "metrics").read_text() == '{"stages": 2}'
    assert "Square the first numbers" in (folder / "show" / "index").read_text()
