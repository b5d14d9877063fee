import pytest
import torch
from torch.nn import functional as F

from canvas.uve.model import build_uve
from canvas.uve.spec import UveSpec
from canvas.uve.training import ProxyClassifier, ProxySoftmax

SPEC = UveSpec(
    trunk="resnet10t",
    trunk_args={"channels": [8, 8, 8, 8], "stem_width": 8},
    image_size=32,
    embed_dim=16,
    init_from=None,
)
CLASSES = {"scene": ["forest", "lobby"], "product": ["a", "b", "c"]}


@pytest.fixture
def model() -> ProxyClassifier:
    torch.manual_seed(0)
    return ProxyClassifier(build_uve(SPEC), CLASSES, temperature=0.05).eval()


def batch(scene: list[int], product: list[int]) -> dict:
    images = torch.randint(
        0, 256, (len(scene), 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    return {"images": images, "labels": torch.tensor([scene, product]).T}


def test_logits_are_cosines_over_the_temperature(model):
    given = batch([0, 1], [0, 1])
    images = given["images"].float() / 127.5 - 1
    expected = F.normalize(model.uve(images), dim=1) @ F.normalize(model.proxies["scene"], dim=1).T / 0.05
    assert torch.allclose(model(images)["scene"], expected, atol=1e-4)


def test_the_loss_is_the_weighted_sum_of_the_tasks(model):
    loss, parts = ProxySoftmax({"scene": 1.0, "product": 0.5})(model, batch([0, 1], [2, 1]), None)
    assert float(loss) == pytest.approx(float(parts["scene"]) + 0.5 * float(parts["product"]), rel=1e-6)


def test_missing_labels_give_no_gradient(model):
    ProxySoftmax({"scene": 1.0, "product": 1.0})(model, batch([-1, -1], [2, -1]), None)[0].backward()
    assert not model.proxies["scene"].grad.any()
    assert model.proxies["product"].grad.any()
    model.zero_grad()
    ProxySoftmax({"scene": 1.0, "product": 1.0})(model, batch([-1, -1], [-1, -1]), None)[0].backward()
    assert not any(weight.grad.any() for weight in model.parameters() if weight.grad is not None)


def test_it_does_not_matter_how_a_batch_is_cut_up(model):
    objective = ProxySoftmax({"scene": 1.0, "product": 0.5})
    whole = batch([0, -1, 1, 1], [2, 1, -1, -1])
    halves = [{name: column[at : at + 2] for name, column in whole.items()} for at in (0, 2)]
    parts = [objective(model, half, None)[0] for half in halves]
    assert float(objective(model, whole, None)[0]) == pytest.approx(float(sum(parts)) / 2, rel=1e-5)
