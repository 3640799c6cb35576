"""The compiled functions of a search: gradients for each kind of gates, and two updates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dnas import evaluate, supernet
from dnas.ahead import Program
from dnas.devices import spread_over
from dnas.gates import Gates, Logits, one_hot
from dnas.latency.terms import latency_ms
from dnas.masked import masked_update
from dnas.methods import Draw
from dnas.methods.base import Maker, Marks
from dnas.methods.structure import identities
from dnas.objective import Seen, combine, hold
from dnas.search.schedule import Kind

if TYPE_CHECKING:
    from dnas.search.engine import Setup, State


SKIPS_FREE = 0.6  # of the steps, after which no identity is dropped any more
NEVER = -1e9  # logit of an option that is out of the question


class Gradients(NamedTuple):
    """What the one large program of a kind of gates returns.

    ``params``: by what ``supernet.on_paths`` finds for the options that are ``active``; None where weights are frozen.
    """

    loss: jax.Array
    hits: jax.Array
    images: jax.Array
    latency_ms: jax.Array
    params: Any
    logits_of_loss: Logits
    logits_of_latency: Logits
    stats: Any
    active: dict[str, jax.Array] | None
    moves: Marks | None


class Programs:
    """The jitted functions of one setup. They close over its static parts and are traced once each.

    ``gradients``: by kind of step (``warm``: weight steps with all candidates on), (params, stats, logits, key, count,
    temperature, x, y) -> Gradients; kinds whose gates have one maker share one, unless labels are smoothed for the weights.
    """

    def __init__(self, setup: Setup):
        self.setup = setup
        self.traces = {"gradients": 0, "update_weights": 0, "update_theta": 0}
        method, same = setup.method, setup.like.programs if setup.like else None
        twin = same if same and [c.target for c in setup.costs] == [c.target for c in same.setup.costs] else None
        smooth = setup.config.label_smoothing or 0.0
        makers = (("weights", method.weights, smooth), ("theta", method.theta, 0.0), ("warm", method.warm, smooth))
        kinds = {kind: (maker, smooth) for kind, maker, smooth in makers if maker}
        each = {k: Program(self._counted(self._gradients(*k))) for k in kinds.values()}
        own = {kind: each[k] for kind, k in kinds.items()}
        weights, theta = (Program(self._counted(f), donate_argnums=0) for f in (self._update_weights, self._update_theta))
        self.gradients: dict[str, Program] = same.gradients if same else own
        self.update_weights: Program = same.update_weights if same else weights
        self.update_theta: Program = twin.update_theta if twin else theta
        self.begun = same is not None

    def ahead(self, state: State, batch: tuple[Any, Any], kind: str) -> None:
        """Compile in a thread what comes after the first step's gradients, of ``kind``, in the order of its use; once."""
        self.begun = True
        setup, first, heat = self.setup, self.gradients[kind], jnp.float32(1)
        args = arguments(state, batch, heat)
        used = {"weights": setup.frozen is None, "theta": setup.schedule.total_theta_steps > 0}
        alike = {k: self.gradients.get(k) is first for k, need in used.items() if need}
        if setup.mesh is None:  # how gradients will be spread over devices is not known before
            grads = first.eval_shape(*args)
            if alike.get("weights"):
                self.update_weights.ahead(state, grads)
            if alike.get("theta"):
                self.update_theta.ahead(state, grads, heat)
            for other in (k for k, same in alike.items() if not same and k in self.gradients):
                self.gradients[other].ahead(*args)
        picked = one_hot(setup.space, (0,) * len(setup.space.choices))
        evaluate.ahead(setup.net, state.params, state.stats, setup.feeds["plain"], picked)

    def _gradients(self, maker: Maker, smooth: float) -> Any:
        def gradients(*args: Any) -> Gradients:
            with spread_over(self.setup.mesh):
                return self._compute(maker, smooth, *args)

        return gradients

    def _draw(self, maker: Maker, key: Any, count: Any, logits: Logits, temperature: Any, images: int = 0) -> Draw:
        """The draw of step ``count``; one for each of ``images`` where gates are per sample."""
        config = self.setup.config
        key = jax.random.fold_in(jax.random.wrap_key_data(key), count)
        if config.skip_dropout:
            key, coins = jax.random.split(key)
            logits = self._without_skips(coins, count, logits)
        if config.gates == "sample" and images:
            return jax.vmap(lambda k: maker(k, logits, temperature))(jax.random.split(key, images))
        return maker(key, logits, temperature)

    def _without_skips(self, key: jax.Array, count: jax.Array, logits: Logits) -> Logits:
        """Logits whose identities are out of the question, by choice, with a chance that falls to 0 at 60 % of the steps."""
        last = SKIPS_FREE * self.setup.schedule.before(self.setup.schedule.epochs)
        chance = (self.setup.config.skip_dropout or 0.0) * jnp.maximum(1 - count / max(last, 1), 0)
        coins = jax.random.bernoulli(key, chance, (len(logits),))
        skips = identities(self.setup.space)
        return {n: jnp.where(c & jnp.asarray(skips[n]), NEVER, v) for c, (n, v) in zip(coins, logits.items(), strict=True)}

    def _compute(
        self, maker: Maker, smooth: float, params: Any, stats: Any, logits: Logits, key: Any, count: Any, temperature: Any,
        x: Any, y: Any,
    ) -> Gradients:  # fmt: skip
        """Loss, latency and gradients of one draw on one batch; of each label ``smooth`` is spread over all classes."""
        setup, config = self.setup, self.setup.config

        def drawn(logits: Logits) -> Draw:
            return self._draw(maker, key, count, logits, temperature, x.shape[0])

        def losses(needed: Any, logits: Logits) -> Any:
            draw = drawn(logits)
            out, new_stats = supernet.apply(
                setup.net, needed, stats, x, draw.gates, True, compute=config.compute_dtype, remat=config.remat
            )
            scores = out.astype(jnp.float32)
            loss = optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()
            if smooth:
                loss = (1 - smooth) * loss - smooth * jax.nn.log_softmax(scores).mean()
            return loss, (latency_ms(setup.terms, draw.priced).mean(), (out.argmax(-1) == y).sum(), new_stats, draw)

        value = jax.value_and_grad(losses, argnums=(1, 0) if setup.frozen is None else (1,), has_aux=True)
        active = drawn(logits).gates.active
        (loss, (ms, hits, new_stats, draw)), (d_logits, *d_params) = value(supernet.on_paths(setup.net, params, active), logits)

        def latency(logits: Logits) -> jax.Array:
            return latency_ms(setup.terms, drawn(logits).priced).mean()

        d_latency = jax.grad(latency)(logits)
        images, by_params = jnp.float32(y.shape[0]), d_params[0] if d_params else None
        return Gradients(
            loss, hits.astype(jnp.float32), images, ms, by_params, d_logits, d_latency, new_stats, active, draw.moves
        )  # fmt: skip

    def _counted(self, function: Any) -> Any:
        def traced(*args: Any) -> Any:
            self.traces[function.__name__.lstrip("_")] += 1
            return function(*args)

        return traced

    def _update_weights(self, state: State, grads: Gradients) -> State:
        net, active = self.setup.net, grads.active
        _, pull = jax.vjp(lambda params: supernet.on_paths(net, params, active), state.params)
        every, ran = pull(grads.params)[0], supernet.ran(net, state.params, Gates({}, active))
        params, opt = masked_update(self.setup.weight_optimiser, every, state.weight_opt, state.params, ran)
        return _advance(state, grads, "weights")._replace(params=params, weight_opt=opt, stats=grads.stats)

    def _update_theta(self, state: State, grads: Gradients, temperature: jax.Array) -> tuple[State, jax.Array]:
        method, before = self.setup.method, state.logits
        assert method.theta is not None
        draw = self._draw(method.theta, state.key, state.step, before, temperature)
        objective = self.setup.objective
        loss, total, objective_state = combine(objective, state.objective_state, self._seen(before, grads))
        memory = state.method_state
        if method.score:
            total, memory = method.score(memory, loss, before, draw)
            total = jax.tree.map(jnp.add, total, self._entropy(before)[1])
        logits, opt = masked_update(self.setup.theta_optimiser, total, state.theta_opt, before, grads.moves)
        if method.correct:
            logits = method.correct(before, logits, grads.moves)
        logits, objective_state = hold(objective, objective_state, before, logits, self._price)
        new = _advance(state, grads, "theta")
        return new._replace(logits=logits, theta_opt=opt, objective_state=objective_state, method_state=memory), loss

    def _price(self, weights: Mapping[str, jax.Array]) -> jax.Array:
        """Each cost of options so weighed, by its target, f32[costs]."""
        return jnp.stack([latency_ms(cost.terms, weights) / (cost.target or 1.0) for cost in self.setup.costs])

    def _seen(self, logits: Logits, grads: Gradients) -> Seen:
        """The step as the objective sees it."""
        if self.setup.method.score:
            nothing = jax.tree.map(jnp.zeros_like, logits)
            return Seen(1 - grads.hits / grads.images, grads.latency_ms, nothing, nothing)
        entropy, d_entropy = self._entropy(logits)
        d_task = jax.tree.map(jnp.add, grads.logits_of_loss, d_entropy)
        return Seen(grads.loss + entropy, grads.latency_ms, d_task, grads.logits_of_latency)

    def _entropy(self, logits: Logits) -> tuple[jax.Array, Logits]:
        """``entropy_weight`` times the mean of H(softmax(theta)) / ln n over choices, and its gradient."""
        weight = self.setup.config.entropy_weight or 0.0

        def value(logits: Logits) -> jax.Array:
            open_ = [v for v in logits.values() if v.shape[0] > 1]
            parts = [-(jax.nn.softmax(v) * jax.nn.log_softmax(v)).sum() / math.log(v.shape[0]) for v in open_]
            return weight * jnp.stack(parts).mean()

        return jax.value_and_grad(value)(logits) if weight else (jnp.zeros(()), jax.tree.map(jnp.zeros_like, logits))


def arguments(state: State, batch: tuple[Any, Any], temperature: jax.Array) -> tuple[Any, ...]:
    """What the programs of gradients take."""
    return state.params, state.stats, state.logits, state.key, state.step, temperature, *batch


def zero_sums() -> dict[str, jax.Array]:
    names = ("loss", "hits", "images", "steps")
    return {f"{kind}_{name}": jnp.zeros(()) for kind in ("weights", "theta") for name in names}


def _advance(state: State, grads: Gradients, kind: Kind) -> State:
    """Counter and sums after a step of ``kind``."""
    found = {"loss": grads.loss, "hits": grads.hits, "images": grads.images, "steps": jnp.float32(1)}
    sums = state.sums | {f"{kind}_{n}": state.sums[f"{kind}_{n}"] + v for n, v in found.items()}
    return state._replace(step=state.step + 1, sums=sums)
