"""Steps of a training: each option against what defines it, on a network of a thousand weights."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from test_search_steps import images

import dnas
from dnas import supernet
from dnas.data import Feed
from dnas.devices import replicate
from dnas.errors import ConfigError
from dnas.ops import ConvOp, GlobalPoolOp, LinearOp
from dnas.optimisers import learning_rate, sgd_cosine, weight_optimiser
from dnas.train import TrainPhase
from dnas.train.config import PRESETS, TrainConfig, complete
from dnas.train.phase import Teacher

SPACE = tiny.plain_space()
NETWORK = SPACE.fix(tuple(0 for _ in SPACE.choices))


@pytest.fixture(autouse=True)
def quick_to_compile(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "other")


def phase(batch=12, augment="none", class_weights=None, teacher=None, **options):
    data = images()
    feed = Feed(
        data.train, batch_size=batch, resolution=8, channels=3, mean=data.mean, std=data.std, augment=augment, seed=1,
        classes=tiny.CLASSES,
    )  # fmt: skip
    config = complete(TrainConfig(**{"epochs": 4, "batch_size": batch, "devices": 1, **options}))
    return TrainPhase(NETWORK, feed, config, None, teacher, class_weights)


def begin(of, seed=0):
    return of.init(*supernet.init(NETWORK, jax.random.key(seed))[1:])


def after(of, steps=3, seed=0):
    state = begin(of, seed)
    losses = []
    for step in range(steps):
        state, info = of.step(state, 0, step)
        losses.append(float(info.loss))
    return state, losses


def test_the_preset_quick_is_the_training_of_before():
    """SGD with a cosine rate and L2 on kernels, written out."""
    of = phase()
    state, losses = after(of)
    _, params, stats = supernet.init(NETWORK, jax.random.key(0))
    optimiser = sgd_cosine(0.1, 4 * of.feed.steps_per_epoch, 1e-4)
    opt = optimiser.init(params)

    @jax.jit
    def step(params, stats, opt, x, y):
        def loss(params):
            logits, new = supernet.apply(of.net, params, stats, x, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), new

        (value, stats), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_ = optimiser.update(gradients, opt, params)
        return optax.apply_updates(params, updates), stats, opt_, value

    for number, wanted in enumerate(losses):
        params, stats, opt, value = step(params, stats, opt, *of.feed.batch(number))
        assert float(value) == pytest.approx(wanted, rel=1e-5)
    tiny.assert_close(state.params, params, 1e-5)
    tiny.assert_close(state.stats, stats, 1e-5)


def test_parts_of_a_batch_sum_to_its_gradient():
    """Where BN has nothing to say (its statistics do differ between parts), accumulation changes nothing but rounding."""
    layers = (ConvOp(in_=3, out=4, kernel=3, norm=None, bias=True), GlobalPoolOp(), LinearOp(in_=4, out=tiny.CLASSES))
    bare = dnas.Architecture(layers, resolution=8, num_classes=tiny.CLASSES)
    found = []
    for parts in (1, 3):
        of = dataclasses.replace(phase(accumulate=parts), architecture=bare)
        state = of.init(*supernet.init(bare, jax.random.key(0))[1:])
        for step in range(2):
            state, info = of.step(state, 0, step)
        found.append((state.params, float(info.loss), jax.device_get(state.sums)))
    tiny.assert_close(found[1][0], found[0][0], 1e-5)
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-5)
    assert found[1][2]["images"] == found[0][2]["images"] == 24 and found[1][2]["hits"] == found[0][2]["hits"]


def test_the_average_is_that_of_the_weights():
    of = phase(ema=0.9)
    state, wanted = begin(of), jax.tree.map(np.asarray, supernet.init(NETWORK, jax.random.key(0))[1])
    for step in range(4):
        state, _ = of.step(state, 0, step)
        decay = min(0.9, (1 + step) / (10 + step))
        wanted = jax.tree.map(lambda a, b, d=decay: d * a + (1 - d) * np.asarray(b), wanted, state.params)
    tiny.assert_close(state.measured[0], wanted, 1e-5)
    assert begin(phase()).average is None


def test_the_teacher_and_the_labels_share_the_loss():
    net, params, stats = supernet.init(NETWORK, jax.random.key(5))
    x, y = phase().feed.batch(0)
    given, _ = supernet.apply(net, params, stats, x)
    own, _ = supernet.apply(net, *supernet.init(NETWORK, jax.random.key(0))[1:], x, train=True)
    hard = float(optax.softmax_cross_entropy_with_integer_labels(own, y).mean())
    p, q = jax.nn.softmax(given / 2), jax.nn.softmax(own / 2)
    soft = 4 * float((p * (jnp.log(p) - jnp.log(q))).sum(-1).mean())
    for share in (0.0, 0.3, 1.0):
        of = phase(teacher=Teacher(net, params, stats), teacher_weight=share, teacher_temperature=2.0)
        assert after(of, 1)[1][0] == pytest.approx((1 - share) * hard + share * soft, rel=1e-4)


def test_class_weights_and_smoothing_are_in_the_loss():
    x, y = phase().feed.batch(0)
    logits, _ = supernet.apply(phase().net, *supernet.init(NETWORK, jax.random.key(0))[1:], x, train=True)
    chances = jax.nn.log_softmax(logits)
    factors = np.array([0.5, 1.0, 3.0], np.float32)
    wanted = float((-chances[np.arange(12), y] * factors[y]).mean())
    assert after(phase(class_weights=(0.5, 1.0, 3.0)), 1)[1][0] == pytest.approx(wanted, rel=1e-4)
    soft = 0.9 * np.eye(3)[y] + 0.1 / 3
    assert after(phase(label_smoothing=0.1), 1)[1][0] == pytest.approx(float(-(chances * soft).sum(-1).mean()), rel=1e-4)


def test_drop_path_leaves_out_blocks_for_whole_images_and_keeps_the_mean():
    of = phase(drop_path=0.5, dropout=0.0)
    residual = [s for s in of.net.slots if s.candidates[0].op.has_residual]
    noise = of._noise(jax.random.key(3))
    shape = (4000, 2, 2, 3)
    x, y = jnp.ones(shape), jnp.full(shape, 3.0)
    alone = np.asarray(noise(residual[0], x, y))  # one residual block: the first has rate 0
    assert len(residual) == 1 and np.array_equal(alone, y)
    many = dataclasses.replace(NETWORK, layers=(NETWORK.layers[0], *[NETWORK.layers[1]] * 3, *NETWORK.layers[2:]))
    wide = dataclasses.replace(of, architecture=many)
    noise, blocks = wide._noise(jax.random.key(3)), [s for s in wide.net.slots if s.candidates[0].op.has_residual]
    for slot, rate in zip(blocks, (0, 0.25, 0.5), strict=True):
        out = np.asarray(noise(slot, x, y))
        assert (out == out[:, :1, :1, :1]).all() and out.mean() == pytest.approx(3, rel=0.05)
        assert (out[:, 0, 0, 0] == 1).mean() == pytest.approx(rate, abs=0.04)


def test_dropout_is_before_the_classifier_alone():
    of = phase(dropout=0.4)
    noise, y = of._noise(jax.random.key(0)), jnp.ones((50, 1, 1, 100))
    for slot in of.net.slots[:-2]:
        assert noise(slot, y, y) is y
    out = np.asarray(noise(of.net.slots[-2], y, y))
    assert (out == 0).mean() == pytest.approx(0.4, abs=0.03) and out.mean() == pytest.approx(1, abs=0.05)
    assert phase()._noise(jax.random.key(0)) is None


def test_steps_are_the_same_again_and_differ_by_seed():
    options = dict(augment="crop+flip+mixup", dropout=0.3, drop_path=0.3, label_smoothing=0.1, clip=1.0, ema=0.9)
    first, again, other = (after(phase(**options, seed=s), 2)[0] for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True))
    assert not np.array_equal(jax.tree.leaves(first.params)[0], jax.tree.leaves(other.params)[0])


def test_several_devices_make_the_steps_of_one():
    options = dict(accumulate=2, label_smoothing=0.1, ema=0.9, augment="crop+mixup")
    one, many = (after(phase(devices=n, **options), 2)[0] for n in (1, 3))
    tiny.assert_close(replicate(None, jax.device_get(many.params)), jax.device_get(one.params), 1e-5)


def test_a_second_step_compiles_nothing():
    of = phase(ema=0.9, augment="crop")
    state = begin(of)
    for step in range(3):
        state, _ = of.step(state, 0, step)
    assert of._program._cache_size() == 1


def test_learning_rates():
    full = complete(TrainConfig(preset="cifar", epochs=10, warm_up=0.2))
    rate = [float(learning_rate(full, 100)(s)) for s in (0, 100, 200, 600, 1000)]
    np.testing.assert_allclose(rate, [0, 0.05, 0.1, 0.05, 0], atol=1e-6)
    steps = complete(TrainConfig(preset="imagenet", epochs=20, warm_up=0.1))
    rate = [float(learning_rate(steps, 100)(s)) for s in (0, 199, 239, 240, 480)]
    np.testing.assert_allclose(rate, [0, 0.064 * 0.995, 0.064, 0.064 * 0.973, 0.064 * 0.973**2], rtol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adamw"])
def test_only_kernels_decay_unless_all_are_asked_for(name):
    params = {"a": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}}
    for everything in (False, True):
        config = complete(TrainConfig(optimiser=name, weight_decay=0.1, lr=1.0, epochs=1, decay_all=everything))
        optimiser = weight_optimiser(config, 10)
        updates, _ = optimiser.update(jax.tree.map(jnp.zeros_like, params), optimiser.init(params), params)
        assert (np.asarray(updates["a"]["kernel"]) < 0).all()
        assert ((np.asarray(updates["a"]["bias"]) < 0) == everything).all()


def test_rmsprop_is_tensorflows():
    config = complete(TrainConfig(optimiser="rmsprop", weight_decay=0.0, lr=0.1, epochs=1000, schedule="step", warm_up=0.0))
    optimiser, g = weight_optimiser(config, 1000), 0.5
    params = {"kernel": jnp.zeros(1)}
    state = optimiser.init(params)
    mean, moment = 1.0, 0.0  # averages begin at 1, epsilon is inside the root, the rate inside the momentum
    for _ in range(3):
        updates, state = optimiser.update({"kernel": jnp.full(1, g)}, state, params)
        mean = 0.9 * mean + 0.1 * g * g
        moment = 0.9 * moment + 0.1 * g / (mean + 1e-3) ** 0.5
        assert float(updates["kernel"][0]) == pytest.approx(-moment, rel=1e-5)


def test_clipping_bounds_the_norm_of_all_gradients_together():
    optimiser = weight_optimiser(complete(TrainConfig(clip=1.0, weight_decay=0.0, momentum=0.0, lr=1.0, epochs=1000)), 1000)
    params = {"a": {"kernel": jnp.zeros(1)}, "b": {"kernel": jnp.zeros(1)}}
    updates, _ = optimiser.update(
        {"a": {"kernel": jnp.full(1, 3.0)}, "b": {"kernel": jnp.full(1, 4.0)}}, optimiser.init(params), params
    )
    np.testing.assert_allclose([updates["a"]["kernel"][0], updates["b"]["kernel"][0]], [-0.6, -0.8], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset": "cifr"}, "did you mean 'cifar'"),
        ({"lr": -1}, "--lr is -1; expected a number from 0"),
        ({"epochs": 2.5}, "--epochs is 2.5; expected a whole number"),
        ({"accumulate": 3}, "--accumulate 3 does not divide --batch-size 64"),
        ({"init": ("weights",)}, "expected supernet RUN or weights FILE"),
        ({"normalise": "start"}, "takes mean and std from --init weights"),
        ({"optimiser": "adam"}, "did you mean 'adamw'"),
    ],
)
def test_wrong_options_are_one_sentence(options, words):
    with pytest.raises(ConfigError, match=words):
        complete(TrainConfig(**options))


def test_presets_say_everything_and_every_value_can_be_overridden():
    for name, values in PRESETS.items():
        assert set(values) >= set(PRESETS["quick"]), name
        full = complete(TrainConfig(preset=name))
        assert all(getattr(full, k) == v for k, v in values.items())
        assert complete(TrainConfig(preset=name, lr=0.5, epochs=1, augment="none")).lr == 0.5
        assert TrainConfig(**full.to_dict()) == full
