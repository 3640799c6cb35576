"""The search as pure steps: ``init(setup)`` and ``step(setup, state, batch, kind, temperature) -> (state, info)``.

One compiled program computes the gradients for weight steps and architecture steps alike; the updates are small programs.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from dnas import gates as gates_lib
from dnas import supernet
from dnas.config import SearchConfig, complete, with_recipe
from dnas.data import Dataset, Feed, Splits, split
from dnas.devices import data_mesh, replicate, shared_mesh, split_batch
from dnas.errors import ConfigError
from dnas.gates import Logits
from dnas.latency.costs import Cost, read
from dnas.latency.table import LatencyTable
from dnas.latency.terms import Terms, latency_ms, price
from dnas.loop import Info
from dnas.masked import masked_update
from dnas.methods import Method, method
from dnas.objective import Objective, Seen, Settings, Total, begin, combine, objective
from dnas.optimisers import sgd_cosine
from dnas.search.schedule import Kind, Schedule
from dnas.space import Space

Batch = tuple[jax.Array, jax.Array]


class State(NamedTuple):
    """Everything that a search must not forget; a plain pytree."""

    params: Any
    stats: Any
    logits: Logits
    weight_opt: Any
    theta_opt: Any
    key: jax.Array  # uint32[2]: PRNG key data
    step: jax.Array  # i32[]: steps of both kinds so far
    sums: dict[str, jax.Array]  # f32[]: losses, hits and images of this epoch, per kind
    objective_state: Total  # multipliers and averaged gradients


@dataclasses.dataclass(frozen=True)
class Setup:
    """A search that is ready to start: what does not change while it runs."""

    config: SearchConfig
    space: Space
    lut: LatencyTable
    terms: Terms
    dataset: Dataset
    splits: Splits
    schedule: Schedule
    objects: tuple[str, ...] = ()  # which of space, lut and data have no name that a command could give
    remarks: tuple[str, ...] = ()  # what else has to be said of the result
    others: tuple[Cost, ...] = ()  # costs besides the latency by ``lut``
    supernet_sha256: str | None = None  # of ``frozen``
    frozen: Any = dataclasses.field(default=None, repr=False, compare=False)  # (params, stats) that stay as they are
    family: Setup | None = dataclasses.field(default=None, repr=False, compare=False)  # whose member with one target this is
    like: Setup | None = dataclasses.field(default=None, repr=False, compare=False)  # but for target and seed: shares programs

    @cached_property
    def members(self) -> tuple[Setup, ...]:
        """One setup for each target of a family; of any other search, itself."""
        config = self.config
        if not config.family_ms:
            return (self,)
        one = [dataclasses.replace(config, family_ms=(), target_ms=t) for t in config.family_ms]
        first = dataclasses.replace(self, config=one[0], family=self)
        return (first, *(dataclasses.replace(first, config=c, like=first) for c in one[1:]))

    @property
    def method(self) -> Method:
        return method(self.config.method)

    @cached_property
    def net(self) -> supernet.Net:
        return supernet.Net.of(self.space)

    @cached_property
    def feeds(self) -> dict[str, Feed]:
        """Augmented batches for the weights, plain ones for everything that measures."""
        if self.family:
            return self.family.feeds
        assert self.config.augment is not None
        plain = {k: self.feed(getattr(self.splits, k)) for k in ("architecture", "selection")}
        return {
            **plain,
            "weights": self.feed(self.splits.weights, self.config.augment),
            "plain": self.feed(self.splits.weights),
        }

    def feed(self, part: Any, augment: str = "none") -> Feed:
        return feed(self.config, self.space, self.dataset, part, augment)

    @cached_property
    def mesh(self) -> Mesh | None:
        """Devices over which batches are split; None for one."""
        return data_mesh(self.config.devices or 1, self.config.devices)  # ``prepare`` has checked that it divides all batches

    @cached_property
    def costs(self) -> tuple[Cost, ...]:
        """Latency by the table, and the others that have a target."""
        return (Cost(self.lut.name, "ms", self.terms, self.config.target_ms, self.lut), *self.others)

    @cached_property
    def objective(self) -> Objective:
        c = self.config
        assert c.objective and c.strength is not None and c.alpha is not None and c.beta is not None
        targets = tuple(1.0 if cost.target is None else cost.target for cost in self.costs)
        steps = self.schedule.total_theta_steps
        follow = c.derive == "argmax"
        return objective(c.objective).make(Settings(targets, c.strength, c.alpha, c.beta, c.reference_ms, steps, follow))

    @cached_property
    def weight_optimiser(self) -> optax.GradientTransformation:
        assert self.config.lr is not None and self.config.weight_decay is not None
        return sgd_cosine(self.config.lr, self.schedule.total_weight_steps, self.config.weight_decay)

    @cached_property
    def theta_optimiser(self) -> optax.GradientTransformation:
        assert self.config.theta_lr is not None and self.config.theta_weight_decay is not None
        assert self.config.theta_lr_end is not None
        decay = self.config.theta_weight_decay
        l2 = [optax.add_decayed_weights(decay)] if decay else []  # L2 in the gradient, as the paper's Adam has it
        start, steps = self.config.theta_lr, self.schedule.total_theta_steps
        lr = optax.linear_schedule(start, start * self.config.theta_lr_end, round(0.8 * steps), round(0.2 * steps))
        return optax.chain(*l2, optax.adam(start if self.config.theta_lr_end == 1 else lr))

    @cached_property
    def programs(self) -> _Programs:
        return _Programs(self)


def feed(config: SearchConfig, space: Space, dataset: Dataset, part: Any, augment: str = "none") -> Feed:
    """Batches of ``part`` in the size and channels that ``space`` takes. Errors: DataError where they cannot be made so."""
    assert config.batch_size is not None
    return Feed(
        part, batch_size=config.batch_size, resolution=space.resolution, channels=space.input_channels,
        mean=dataset.mean, std=dataset.std, augment=augment, seed=config.seed, mesh=shared_mesh(),
    )  # fmt: skip


def init(setup: Setup) -> State:
    """Fresh weights, equal logits. The same seed gives the same state."""
    key = jax.random.key(setup.config.seed)
    weights_key, steps_key = jax.random.split(key)
    if setup.frozen is None:
        _, params, stats = supernet.init(setup.space, weights_key)
    else:
        params, stats = jax.tree.map(jnp.array, setup.frozen)  # states are donated
    logits = gates_lib.zeros(setup.space)
    weight_opt = () if setup.frozen else jax.jit(setup.weight_optimiser.init)(params)
    state = State(
        params, stats, logits, weight_opt, jax.jit(setup.theta_optimiser.init)(logits),
        jax.random.key_data(steps_key), jnp.zeros((), jnp.int32), zero_sums(),
        begin(setup.objective, logits, len(setup.costs)),
    )  # fmt: skip
    return replicate(setup.mesh, state)


def zero_sums() -> dict[str, jax.Array]:
    names = ("loss", "hits", "images", "steps")
    return {f"{kind}_{name}": jnp.zeros(()) for kind in ("weights", "theta") for name in names}


def step(setup: Setup, state: State, batch: Batch, kind: Kind, temperature: float) -> tuple[State, Info]:
    """One step of ``kind`` on ``batch``, split over the devices; ``state`` is donated. A second call compiles nothing.

    Weight steps minimise the cross-entropy alone and update BN statistics; architecture steps minimise the objective on
    batch statistics and update none. Both draw gates from the current logits at ``temperature``.
    """
    programs = setup.programs
    batch = split_batch(setup.mesh, batch)
    grads = programs.gradients(state.params, state.stats, state.logits, state.key, state.step, jnp.float32(temperature), *batch)
    accuracy = grads.hits / batch[1].shape[0]
    if kind == "weights":
        return programs.update_weights(state, grads), Info(grads.loss, accuracy)
    if kind == "theta":
        new, loss = programs.update_theta(state, grads)
        return new, Info(loss, accuracy)
    raise ConfigError(f"unknown kind of step {kind!r}; expected 'weights' or 'theta'")


class Gradients(NamedTuple):
    """What the one large program returns."""

    loss: jax.Array
    hits: jax.Array
    images: jax.Array
    latency_ms: jax.Array
    params: Any
    logits_of_loss: Logits
    logits_of_latency: Logits
    stats: Any
    ran: Any
    sampled: Any


class _Programs:
    """The jitted functions of one setup. They close over its static parts and are traced once each."""

    def __init__(self, setup: Setup):
        self.setup = setup
        self.traces = {"gradients": 0, "update_weights": 0, "update_theta": 0}
        same: _Programs | None = setup.like.programs if setup.like else None
        twin = same if same and [c.target for c in setup.costs] == [c.target for c in same.setup.costs] else None
        self.gradients: Any = same.gradients if same else jax.jit(self._counted(self._gradients))
        self.update_weights: Any = (
            same.update_weights if same else jax.jit(self._counted(self._update_weights), donate_argnums=0)
        )
        self.update_theta: Any = twin.update_theta if twin else jax.jit(self._counted(self._update_theta), donate_argnums=0)

    def _counted(self, function: Any) -> Any:
        def traced(*args: Any) -> Any:
            self.traces[function.__name__.lstrip("_")] += 1
            return function(*args)

        return traced

    def _gradients(
        self, params: Any, stats: Any, logits: Logits, key: Any, count: Any, temperature: Any, x: Any, y: Any
    ) -> Gradients:
        setup, config = self.setup, self.setup.config
        key = jax.random.fold_in(jax.random.wrap_key_data(key), count)

        def losses(params: Any, logits: Logits) -> Any:
            gates = setup.method.draw(key, logits, temperature)
            out, new_stats = supernet.apply(
                setup.net, params, stats, x, gates, True, compute=config.compute_dtype, remat=config.remat
            )
            loss = optax.softmax_cross_entropy_with_integer_labels(out.astype(jnp.float32), y).mean()
            return loss, (latency_ms(setup.terms, gates), (out.argmax(-1) == y).sum(), new_stats, gates.active)

        value = jax.value_and_grad(losses, argnums=(1, 0) if setup.frozen is None else (1,), has_aux=True)
        (loss, (ms, hits, new_stats, active)), (d_logits, *d_params) = value(params, logits)
        d_latency = jax.grad(lambda v: latency_ms(setup.terms, setup.method.draw(key, v, temperature)))(logits)
        gates = gates_lib.Gates({}, active)
        sampled = None
        if active is not None:
            sampled = {n: jnp.zeros(v.shape, bool).at[active[n]].set(True) for n, v in logits.items()}
        ran = supernet.ran(setup.net, params, gates)
        images = jnp.float32(y.shape[0])
        by_params = d_params[0] if d_params else None
        return Gradients(loss, hits.astype(jnp.float32), images, ms, by_params, d_logits, d_latency, new_stats, ran, sampled)

    def _update_weights(self, state: State, grads: Gradients) -> State:
        params, opt = masked_update(self.setup.weight_optimiser, grads.params, state.weight_opt, state.params, grads.ran)
        return _advance(state, grads, "weights")._replace(params=params, weight_opt=opt, stats=grads.stats)

    def _update_theta(self, state: State, grads: Gradients) -> tuple[State, jax.Array]:
        loss, total, objective_state = combine(self.setup.objective, state.objective_state, self._seen(state.logits, grads))
        logits, opt = masked_update(self.setup.theta_optimiser, total, state.theta_opt, state.logits, grads.sampled)
        new = _advance(state, grads, "theta")
        return new._replace(logits=logits, theta_opt=opt, objective_state=objective_state), loss

    def _seen(self, logits: Logits, grads: Gradients) -> Seen:
        """The step as the objective sees it: what was drawn, and the exact expectation of every cost."""
        expected, likeliest, slopes = [], [], []
        picked = {n: jax.nn.one_hot(i, logits[n].shape[0]) for n, i in gates_lib.argmax(logits).items()}
        for cost in self.setup.costs:
            value, slope = jax.value_and_grad(lambda v, t=cost.terms: latency_ms(t, gates_lib.softmax(v)))(logits)
            expected.append(value)
            likeliest.append(latency_ms(cost.terms, picked))
            slopes.append(jax.tree.map(lambda g, t=cost.target or 1.0: g / t, slope))
        return Seen(
            grads.loss, grads.latency_ms, jnp.stack(expected), jnp.stack(likeliest), grads.logits_of_loss,
            grads.logits_of_latency, tuple(slopes),
        )  # fmt: skip


def _advance(state: State, grads: Gradients, kind: Kind) -> State:
    """Counter and sums after a step of ``kind``."""
    found = {"loss": grads.loss, "hits": grads.hits, "images": grads.images, "steps": jnp.float32(1)}
    sums = state.sums | {f"{kind}_{n}": state.sums[f"{kind}_{n}"] + v for n, v in found.items()}
    return state._replace(step=state.step + 1, sums=sums)


def prepare(
    config: SearchConfig,
    space: Space,
    lut: LatencyTable,
    dataset: Dataset,
    frozen: Any = None,
) -> Setup:
    """Resolve every default and check that the search can work, before anything is computed. ``frozen``: (params, stats) of a
    supernet whose weights are not to be trained.

    Errors: ConfigError (an unreachable target, with the reachable range), DataError, LatencyError.
    """
    method(config.method)  # an unknown name is said first
    space = space.at(num_classes=dataset.num_classes)
    terms = price(space, lut, config.missing)
    fastest, slowest = terms.extreme(1)[0], terms.extreme(-1)[0]
    config = with_recipe(config)
    others = tuple(read(space, text, config.missing) for text in config.also)
    assert config.objective is not None
    if others and not objective(config.objective).several:
        raise ConfigError(f"--objective {config.objective} takes one latency table; for several costs use --objective lagrange")
    splits = split(dataset, config.seed)
    sizes = {k: feed(config, space, dataset, getattr(splits, k)) for k in ("weights", "architecture", "train")}
    whole = {k: f.batch_size for k, f in sizes.items()}
    mesh = data_mesh(math.gcd(*whole.values()), config.devices, " and ".join(f"{n} ({k} split)" for k, n in whole.items()))
    theta_steps, targets = config.theta_passes * sizes["architecture"].steps_per_epoch, len(config.family_ms) or 1
    config = complete(config, grey=dataset.channels == 1, theta_steps=theta_steps / targets, middle_ms=(fastest + slowest) / 2)
    for cost, flag in (
        *((Cost(lut.name, "ms", terms, t, lut), "--target-ms") for t in config.family_ms or [config.target_ms]),
        *((c, f"--also {c.name}=") for c in others),
    ):
        cost.check(space, flag)
    config = dataclasses.replace(config, devices=mesh.size if mesh else 1, distributed=jax.process_count() > 1)
    if config.objective == "mul-log" and fastest <= 1e-3:
        raise ConfigError(
            f"--objective mul-log takes the logarithm of microseconds, and {space.name} has networks of "
            f"{fastest * 1e3:.3g} us on {lut.device}; use --objective absolute"
        )
    schedule = Schedule.of(config, sizes["weights"].steps_per_epoch if frozen is None else 0, theta_steps, targets)
    return Setup(config, space, lut, terms, dataset, splits, schedule, others=others, frozen=frozen)
