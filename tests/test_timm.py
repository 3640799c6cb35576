"""timm's own models: built from exported strings they have equal counts and, with copied weights, equal logits."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import tiny

from dnas import supernet, zoo
from dnas.arch import Architecture
from dnas.backbone import levels
from dnas.errors import ArchitectureError
from dnas.interchange.timm import build
from dnas.interchange.timm_write import write
from dnas.weights import from_torch

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # what PyTorch and timm deprecate is theirs
torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm", reason="timm and PyTorch are installed for one test job only (extra: timm)")

# a network of the zoo, and the model of timm (or torchvision, tv) of which it is the architecture
MODELS = (
    "mobilenetv2_100", "mobilenetv3_large_100", "mnasnet_100", "fbnetc_100", "efficientnet_b0", "mobilenetv4_conv_small",
)  # fmt: skip
EXPORTED = ("mixnet_s", "ofa_note10_08", "proxyless_mobile", "mobilenetv1_100")


def randomised(model: Any) -> Any:
    """``model`` in float64 with statistics and biases that do something, in evaluation."""
    model, draw = model.double().eval(), torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=draw) + 0.5)
        elif name.endswith(("running_mean", "bias")):
            value.copy_(0.1 * torch.randn(value.shape, generator=draw))
    return model


def assert_equal_logits(network: Architecture, model: Any) -> None:
    network, model = network.at(64), randomised(model)
    images = np.random.default_rng(0).normal(size=(2, 3, 64, 64))
    with torch.no_grad():
        wanted = model(torch.tensor(images)).numpy()
    with jax.enable_x64(True):
        params, stats = from_torch(network, model.state_dict())
        net = supernet.Net.of(network)
        logits = tiny.compiled(lambda p, s, x: supernet.apply(net, p, s, x)[0])(params, stats, images.transpose(0, 2, 3, 1))
    assert logits.dtype == np.float64
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-10 * np.abs(wanted).max())


def test_exported_strings_build_models_of_equal_counts() -> None:
    built = 0
    for name in zoo.names():
        network = Architecture.load(name)
        try:
            recipe, _ = write(network)
        except ArchitectureError:
            continue
        with torch.device("meta"):
            model = build(recipe)
        assert sum(p.numel() for p in model.parameters()) == network.params, name
        built += 1
    assert built >= 70


@pytest.mark.parametrize("name", MODELS)
def test_logits_of_timms_models(name: str) -> None:
    assert_equal_logits(Architecture.load(name), timm.create_model(name))


@pytest.mark.parametrize("name", EXPORTED)
def test_logits_of_exported_models(name: str) -> None:
    network = Architecture.load(name)
    assert_equal_logits(network, build(write(network)[0]))


def test_logits_of_torchvision() -> None:
    models = pytest.importorskip("torchvision.models")
    assert_equal_logits(Architecture.load("mobilenetv2_100"), models.mobilenet_v2())


@pytest.mark.parametrize("name", ["mobilenetv2_100", "mnasnet_100", "efficientnet_b0", "mixnet_s", "fbnetc_100"])
def test_levels_are_timms(name: str) -> None:
    network = Architecture.load(name)
    with torch.device("meta"):
        info = timm.create_model(name, features_only=True).feature_info
    found = [network.shapes[i + 1].channels for i in levels(supernet.Net.of(network)).values()]
    assert info.reduction()[1:] == [4, 8, 16, 32] and info.channels()[1:] == found
