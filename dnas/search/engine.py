"""The search as pure steps: ``init(setup)`` and ``step(setup, state, batch, kind, temperature) -> (state, info)``.

One compiled program for each kind of gates computes gradients (one in all where weight and architecture steps draw alike); the
updates are small programs.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from dnas import gates as gates_lib
from dnas import supernet
from dnas.config import SearchConfig, complete, with_recipe
from dnas.data import Dataset, Feed, Splits, split
from dnas.depth import at_least
from dnas.derive import Limit
from dnas.devices import data_mesh, replicate, shared_mesh, split_batch
from dnas.errors import ConfigError
from dnas.gates import Logits
from dnas.latency.costs import Cost, read
from dnas.latency.table import LatencyTable
from dnas.latency.terms import Terms, price
from dnas.loop import Info
from dnas.methods import Method, method
from dnas.objective import Objective, Settings, Total, begin, objective, of_draw
from dnas.optimisers import sgd_cosine
from dnas.search.programs import Programs, arguments, zero_sums
from dnas.search.schedule import Kind, Schedule, theta_steps
from dnas.space import Space

if TYPE_CHECKING:
    from dnas.search.epoch import OnEpoch

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
    method_state: Any = ()  # what the method remembers, such as a baseline


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
    on_epoch: OnEpoch | None = dataclasses.field(default=None, repr=False, compare=False)  # whom every epoch is told to
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

    @cached_property
    def method(self) -> Method:
        return method(self.config.method).make(self.space, self.config)

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

    def limits(self, multipliers: list[float] | None) -> list[Limit]:
        """What a network that is chosen must keep; ``multipliers``: of each cost, by its target."""
        return [
            Limit(c.terms, c.target, max(multipliers[i], 0.0) / c.target if multipliers else 0.0, c.name)
            for i, c in enumerate(self.costs) if c.target is not None
        ]  # fmt: skip

    @cached_property
    def objective(self) -> Objective:
        c = self.config
        if c.objective is None:
            return of_draw(lambda task, ms: task)
        assert c.strength is not None and c.alpha is not None and c.beta is not None
        targets = tuple(1.0 if cost.target is None else cost.target for cost in self.costs)
        steps = self.schedule.total_theta_steps
        follow = c.derive == "argmax"
        return objective(c.objective).make(Settings(targets, c.strength, c.alpha, c.beta, c.reference_ms, steps, follow))

    @cached_property
    def weight_optimiser(self) -> optax.GradientTransformation:
        c = self.config
        assert c.lr is not None and c.weight_decay is not None and c.optimiser is not None
        return sgd_cosine(c.lr, self.schedule.total_weight_steps, c.weight_decay, optimiser=c.optimiser)

    @cached_property
    def theta_optimiser(self) -> optax.GradientTransformation:
        assert self.config.theta_lr is not None and self.config.theta_weight_decay is not None
        assert self.config.theta_lr_end is not None and self.config.theta_beta1 is not None
        decay, end = self.config.theta_weight_decay, self.config.theta_lr_end
        l2 = [optax.add_decayed_weights(decay)] if decay else []  # L2 in the gradient, as the paper's Adam has it
        start, steps = self.config.theta_lr, self.schedule.total_theta_steps
        lr: Any = optax.linear_schedule(start, start * end, round(0.8 * steps), round(0.2 * steps))
        if end > 1:
            lr = optax.exponential_decay(start, max(steps - 1, 1), end)
        return optax.chain(*l2, optax.adam(start if end == 1 else lr, b1=self.config.theta_beta1))

    @cached_property
    def programs(self) -> Programs:
        return Programs(self)


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
        params, stats, logits, weight_opt, jax.jit(setup.theta_optimiser.init)(logits) if setup.method.theta else (),
        jax.random.key_data(steps_key), jnp.zeros((), jnp.int32), zero_sums(),
        begin(setup.objective, logits), setup.method.init(params, stats, logits),
    )  # fmt: skip
    return replicate(setup.mesh, state)


def step(setup: Setup, state: State, batch: Batch, kind: Kind, temperature: float, all_on: bool = False) -> tuple[State, Info]:
    """One step of ``kind`` on ``batch``, split over the devices; ``state`` is donated. A second call compiles nothing.

    Weight steps minimise the cross-entropy alone and update BN statistics; architecture steps minimise the objective on
    batch statistics and update none. The method draws gates from the current logits at ``temperature``. ``all_on``: a weight
    step of a method's warm-up in which all candidates run.
    """
    programs = setup.programs
    if kind not in ("weights", "theta"):
        raise ConfigError(f"unknown kind of step {kind!r}; expected 'weights' or 'theta'")
    batch, heat = split_batch(setup.mesh, batch), jnp.float32(temperature)
    grads = programs.gradients["warm" if all_on else kind](*arguments(state, batch, heat))
    accuracy = grads.hits / batch[1].shape[0]
    if kind == "weights":
        return programs.update_weights(state, grads), Info(grads.loss, accuracy)
    new, loss = programs.update_theta(state, grads, heat)
    return new, Info(loss, accuracy)


def ahead(setup: Setup, state: State, batch: Batch, kind: Kind, all_on: bool = False) -> None:
    """Before the first step, with its arguments: begin to compile what is needed after its gradients."""
    setup.programs.ahead(state, split_batch(setup.mesh, batch), "warm" if all_on else kind)


def prepare(
    config: SearchConfig,
    space: Space,
    lut: LatencyTable,
    dataset: Dataset,
    frozen: Any = None,
    split_seed: int | None = None,
) -> Setup:
    """Resolve every default and check that the search can work, before anything is computed. ``frozen``: (params, stats) of a
    supernet whose weights are not to be trained; ``split_seed``: the seed by which its images were divided, so that those
    that measure are none that trained it. Default: the seed of ``config``.

    Errors: ConfigError (an unreachable target, with the reachable range), DataError, LatencyError.
    """
    method(config.method)  # an unknown name is said first
    space = space.at(num_classes=dataset.num_classes)
    space = at_least(space, config.min_depth) if config.min_depth else space
    terms = price(space, lut, config.missing)
    fastest, slowest = terms.extreme(1)[0], terms.extreme(-1)[0]
    config = with_recipe(config)
    others = tuple(read(space, lut, text, config.missing) for text in config.also)
    if others and config.objective and not objective(config.objective).several:
        raise ConfigError(f"--objective {config.objective} takes one latency table; for several costs use --objective lagrange")
    splits = split(dataset, config.seed if split_seed is None else split_seed, shared=config.theta_images == "weights")
    sizes = {k: feed(config, space, dataset, getattr(splits, k)) for k in ("weights", "architecture", "train")}
    whole = {k: f.batch_size for k, f in sizes.items()}
    mesh = data_mesh(math.gcd(*whole.values()), config.devices, " and ".join(f"{n} ({k} split)" for k, n in whole.items()))
    targets = len(config.family_ms) or 1
    weight_steps = sizes["weights"].steps_per_epoch if frozen is None else 0
    per_epoch = theta_steps(config, weight_steps, sizes["architecture"].steps_per_epoch)
    if config.method == "random-search":
        _check_random(config, frozen)
    if config.objective and not per_epoch:
        raise ConfigError(
            f"--theta-every {config.theta_every}: an epoch has {weight_steps} weight steps; expected at most as many (smaller "
            "batches make more)"
        )
    config = complete(config, grey=dataset.channels == 1, theta_steps=per_epoch / targets, middle_ms=(fastest + slowest) / 2)
    for cost, flag in (
        *((Cost(lut.name, "ms", terms, t, lut), "--target-ms") for t in config.family_ms or [config.target_ms]),
        *((c, f"--lut {c.name} --target-ms" if c.lut else f"--cost {c.name} --target") for c in others),
    ):
        cost.check(space, flag)
    config = dataclasses.replace(config, devices=mesh.size if mesh else 1, distributed=jax.process_count() > 1)
    unit, ms, instead = ("microseconds", 1e-3, "absolute") if config.reference_ms is None else ("ms", 1.0, "add-linear")
    if config.objective == "mul-log" and fastest <= ms:
        given = "" if config.reference_ms is None else f" --reference-ms {config.reference_ms:g}"
        raise ConfigError(
            f"--objective mul-log{given} takes the logarithm of {unit}, and {space.name} has networks of {fastest:.3g} ms on "
            f"{lut.device}; expected more than {ms:g} ms of all of them: use --objective {instead}"
        )
    schedule = Schedule.of(config, weight_steps, per_epoch, targets)
    return Setup(config, space, lut, terms, dataset, splits, schedule, others=others, frozen=frozen)


def _check_random(config: SearchConfig, frozen: Any) -> None:
    """Errors: ConfigError for what networks that are trained one by one cannot share."""
    assert config.evaluations is not None and config.epochs is not None
    if config.family_ms or frozen is not None:
        given = "several targets" if config.family_ms else "--from-supernet"
        raise ConfigError(f"--method random-search has no supernet for {given}; give one target, without --from-supernet")
    if config.evaluations > config.epochs:
        raise ConfigError(
            f"--evaluations {config.evaluations}: {config.epochs} epochs are not one for each network; expected at most as many"
        )
