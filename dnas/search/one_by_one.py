"""Random search as a search: networks of the band, trained one after another from fresh weights by one program."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from dnas import supernet
from dnas.devices import replicate
from dnas.errors import ConfigError
from dnas.evaluate import Accuracy
from dnas.methods.random_search import Best, proposals
from dnas.methods.selection import Problem
from dnas.search.engine import Setup, State
from dnas.space import Genotype

SURE = 100.0  # logit of the options that a network has; all others have 0


def networks(setup: Setup) -> list[Genotype]:
    """The networks that ``--evaluations`` and ``--band`` ask for. Errors: ConfigError where the band has fewer."""
    config = setup.config
    assert config.evaluations is not None and config.band is not None
    problem = Problem(setup.space, setup.limits(None), np.random.default_rng(config.seed))
    found = list(itertools.islice(proposals(problem, config.band), config.evaluations))
    if len(found) < config.evaluations:
        raise ConfigError(
            f"--evaluations {config.evaluations}: between {config.band:g} and 1 times the target {len(found)} networks were "
            "found; expected at most as many, or a smaller --band"
        )
    return found


def fresh(setup: Setup, state: State, genotype: Genotype) -> State:
    """``state`` before the training of one network: new weights, the same for the same genotype, and logits that name it."""
    key = jax.random.key(setup.config.seed)
    for code in genotype:
        key = jax.random.fold_in(key, code)
    _, params, stats = supernet.init(setup.space, key)
    options = zip(setup.space.choices.items(), genotype, strict=True)
    logits = {name: SURE * jax.nn.one_hot(code, len(choice.options)) for (name, choice), code in options}
    opt = jax.jit(setup.weight_optimiser.init)(params)
    return replicate(setup.mesh, state._replace(params=params, stats=stats, weight_opt=opt, logits=logits))


def keep(state: State, found: Accuracy) -> State:
    """``state`` after the training of one network, which is remembered if it is the best so far."""
    best = state.method_state
    if int(best.n) and (found.hits, -found.loss) <= (int(best.hits), -float(best.loss)):
        return state
    own = jax.tree.map(jnp.copy, (state.params, state.stats, state.logits))  # states are donated
    return state._replace(
        method_state=Best(own[0], own[1], own[2], jnp.int32(found.hits), jnp.int32(found.n), jnp.float32(found.loss))
    )


def best(state: State) -> tuple[State, Accuracy]:
    """``state`` with the weights and logits of the best network, and its accuracy."""
    found: Best = state.method_state
    accuracy = Accuracy(int(found.hits), int(found.n), float(found.loss))
    return state._replace(params=found.params, stats=found.stats, logits=found.logits), accuracy
