"""dnas itself: the steps that ``python -m dnas.search`` runs."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.supernet.case import Case
from benchmarks.supernet.jax_common import device_peak, random_batch
from dnas import gates as gates_lib
from dnas import supernet
from dnas.config import SearchConfig
from dnas.data import Dataset
from dnas.devices import split_batch
from dnas.gates import Gates, Logits
from dnas.latency.table import LatencyTable
from dnas.methods import METHODS, Form, everywhere
from dnas.search import engine
from dnas.space import Space
from dnas.train import TrainPhase
from dnas.train.config import TrainConfig, complete


class Side:
    """A weight step of ``case``: gradients for weights and logits, and the update of the weights."""

    def __init__(self, case: Case):
        space = case.build()
        self.run: Any = _Fixed(case, space) if case.mode == "fixed" else _Search(case, space)
        self.batch = split_batch(self.run.mesh, random_batch(case))
        self.parameters = sum(v.size for v in jax.tree.leaves(self.run.state.params))

    def prepare(self) -> dict[str, float]:
        """Compile; seconds of tracing and compilation; bytes of temporary memory and of outputs not updated in place."""
        found: dict[str, float] = {"trace_s": 0.0, "compile_s": 0.0, "temp_bytes": 0}
        for holder, name, arguments in self.run.programs(self.batch):
            start = time.perf_counter()
            lowered = holder[name].lower(*arguments())
            found["trace_s"] += time.perf_counter() - start
            start = time.perf_counter()
            compiled = lowered.compile()
            found["compile_s"] += time.perf_counter() - start
            memory = compiled.memory_analysis()
            made = memory.output_size_in_bytes - memory.alias_size_in_bytes  # gradients: they live between two programs
            found["temp_bytes"] = max(found["temp_bytes"], memory.temp_size_in_bytes + made)
            holder[name] = compiled
        return found

    def step(self) -> float:
        return float(self.run.step(self.batch))

    def device_peak(self) -> int | None:
        return device_peak()


class _Search:
    def __init__(self, case: Case, space: Space):
        name = "gumbel"
        if case.mode == "sampled":
            name = f"benchmark-{case.paths}"
            METHODS[name] = Form(name, lambda space, config: everywhere(_largest(case.paths)))
        images = np.zeros((8 * case.batch, space.resolution, space.resolution, 3), np.uint8)
        labels = np.arange(len(images)) % 2
        data = Dataset.from_arrays(images, labels, classes=[f"class {i}" for i in range(space.num_classes)])
        config = SearchConfig(
            lut="samsung_s8.json", batch_size=case.batch, method=name, lr=1e-3, compute=case.compute,  # type: ignore[arg-type]
            remat=case.remat, devices=case.devices,
        )  # fmt: skip
        self.setup = engine.prepare(config, space, LatencyTable.load("samsung_s8.json"), data)
        self.mesh = self.setup.mesh
        chosen = case.chosen(space)
        logits = {n: np.zeros(len(c.options), np.float32) for n, c in space.choices.items()}
        for n, indices in chosen.items():
            logits[n][indices] = 1e-3 * np.arange(len(indices), 0, -1)
        self.state = engine.init(self.setup)._replace(logits=jax.tree.map(jnp.asarray, logits))

    def programs(self, batch: Any) -> Any:
        p, s = self.setup.programs, self.state
        given = (s.params, s.stats, s.logits, s.key, s.step, jnp.float32(1), *batch)
        made: list[Any] = []
        yield vars(p.gradients["weights"]), "jitted", lambda: given
        made.append(p.gradients["weights"](*given))
        yield vars(p.update_weights), "jitted", lambda: (s, made[0])

    def step(self, batch: Any) -> Any:
        self.state, info = engine.step(self.setup, self.state, batch, "weights", 1.0)
        jax.block_until_ready(self.state)
        return info.loss


class _Fixed:
    def __init__(self, case: Case, space: Space):
        genotype = [v[0] for v in case.chosen(space).values()]
        batches: Any = _Batches(case.batch)
        recipe = TrainConfig(epochs=1000, lr=1e-3, remat=case.remat, devices=case.devices, compute=case.compute)  # type: ignore[arg-type]
        self.phase = TrainPhase(space.fix(genotype), batches, complete(recipe))
        self.mesh = self.phase.mesh
        _, params, stats = supernet.init(self.phase.architecture, jax.random.key(0))
        self.state = self.phase.init(params, stats)

    def programs(self, batch: Any) -> Any:
        self.phase._program  # noqa: B018  made when it is first asked for
        yield vars(self.phase), "_program", lambda: (self.state, *batch)

    def step(self, batch: Any) -> Any:
        self.state, info = self.phase._program(self.state, *batch)
        jax.block_until_ready(self.state)
        return info.loss


class _Batches:
    """As much of a feed as a schedule asks for."""

    steps_per_epoch = 1000

    def __init__(self, batch_size: int):
        self.batch_size = batch_size


def _largest(paths: int) -> Any:
    """The candidates with the largest logits of each layer run: the path is an argument of the program, not a constant."""

    def draw(key: jax.Array, logits: Logits, temperature: jax.Array) -> Gates:
        active = {n: jax.lax.top_k(v, paths)[1].astype(jnp.int32) for n, v in logits.items()}
        return Gates(gates_lib.softmax(logits, temperature).weights, active)

    return draw
