"""What the search command can be told: every option with its unit and default. No JAX here, so that --help is instant."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any, Literal, get_args

from dnas.errors import ConfigError, nearest
from dnas.recipes import REFERENCE_BETA, STRENGTHS, TRAITS, Traits, constants

Augment = Literal["none", "crop", "crop-flip"]


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Search a space for the network that is most accurate at a latency, and train what was found for a short while.

    Options whose default is "the recipe's" take it from --recipe; the values in use are written to config.json.
    """

    lut: str = ""
    """Latency table: a shipped name (samsung_s8.json) or a path (./mine.json). Unit: ms per op. Needed unless
    --resume; or with another --cost alone, when samsung_s8.json reports the latency and nothing holds it."""
    space: str = "fbnet_mini"
    """Search space: a shipped name (fbnet_mini, fbnet_cifar, fbnet), with options (fbnet:expand1=true), or a .py or
    .json file. A .py file is code and is run. No unit."""
    data: str = "digits"
    """Images: digits, idx:FOLDER, npz:FILE or tfds:NAME. No unit."""
    data_dir: str | None = None
    """Folder of prepared tfds: data sets. Default: TFDS's own. No unit."""
    target_ms: float | None = None
    """Latency that the network should have, in ms. Default: the middle of the space's range."""
    family_ms: tuple[float, ...] = ()
    """Targets of a family, in ms: one supernet, an architecture for each. Written more plainly as --target-ms 10,15,20,30.
    Default: none, one architecture."""
    from_supernet: str | None = None
    """Run folder of a finished search, whose weights are kept as they are: only the architecture is searched again, for another
    target or latency table. Everything else is as in that run. No unit. Default: none."""
    seeds: int = 1
    """Searches to run, with seeds from --seed on, and to report by mean and spread; their supernets choose a network together.
    No unit."""
    also: tuple[str, ...] = ()
    """Further costs and their targets: TABLE.json=MS for another device, macs=N, params=N (numbers), peak-activation-bytes=N,
    energy=N (mJ, where the entries of --lut state it). Written more plainly as --lut b.json --target-ms 8 after the first
    --lut, and --cost macs --target 100e6."""
    objective: Literal["lagrange", "absolute", "add-linear", "hinge", "mul-log", "mnasnet-soft", "mnasnet-hard"] | None = None
    """Loss of the architecture step, for latency LAT: lagrange finds the coefficient with which expected latency meets the
    target; absolute is CE + strength * |LAT / target - 1|; add-linear is CE + strength * (LAT / target - 1); hinge is CE +
    strength * max(0, LAT / target - 1), strength growing over the first half; mul-log is FBNet's CE * alpha * (log LAT)^beta,
    with LAT in microseconds and no target; mnasnet-soft and mnasnet-hard are rewards, accuracy * (LAT / target)^-strength, on
    both sides or above the target only. No unit. Default: the recipe's (short lagrange, paper mul-log), or lagrange with
    --target-ms; absolute for reinforce."""
    method: str = "gumbel"
    """How networks are sampled and logits learn: gumbel (FBNet: soft Gumbel-softmax over all candidates), softmax (DARTS: the
    same without noise), straight-through (one candidate counts, all run), gdas (one counts, one runs), two-path
    (ProxylessNAS: one runs for the weights, two for the logits), reinforce (TuNAS: one runs, a reward for the logits),
    single-path (uniform paths, then evolution), random-search (networks of a latency band, trained one by one);
    docs/methods.md compares them. No unit."""
    evaluations: int | None = None
    """Networks that single-path measures or random-search trains, at most as many as epochs: a number from 1. No unit.
    Default: the recipe's (single-path short 200, paper 1000), 8 for random-search."""
    evolution: Literal["regularised", "nsga2"] | None = None
    """How single-path looks for its network: regularised evolution by loss, or nsga2 by loss and all costs. No unit.
    Default: regularised."""
    band: float | None = None
    """Where the band of random-search begins, as a share of the target, 0 to 1; it ends there. No unit. Default: 0.9."""
    gates: Literal["batch", "sample"] | None = None
    """Gates of gumbel and straight-through: one draw for each batch, or one for each sample of it. No unit. Default: batch."""
    entropy_weight: float | None = None
    """Weight of the mean entropy of the choices, in units of ln n, in the loss of the logits: above 0 they decide sooner,
    below 0 later. No unit. Default: 0."""
    skip_dropout: float | None = None
    """Chance at the start, 0 to 1, that identities are left out of a choice's draw; it falls to 0 at 60 % of the run. No unit.
    Default: 0."""
    min_depth: int | None = None
    """Layers that each stage has at least, or all of them where it has fewer: a whole number from 1; shallower networks are
    taken out of the space. No unit. Default: none."""
    recipe: Literal["short", "paper"] = "short"
    """Schedule: short is given in fractions of the run; paper has FBNet's published constants. No unit."""
    epochs: int | None = None
    """Passes over the weight split. Default: the recipe's (short 25, paper 90)."""
    batch_size: int | None = None
    """Images per step. Default: the recipe's (short 64, paper 192)."""
    train_epochs: int | None = None
    """Passes over all training images when the chosen network is trained at the end; 0 trains none.
    Default: the recipe's (30)."""
    seed: int = 0
    """Seed of initial weights, splits, batches and gates: a whole number from 0. No unit."""
    out: str | None = None
    """Run folder to write; must be new or empty. No unit.
    Default: runs/SPACE-DATA-sSEED-DATE-TIME."""
    resume: str | None = None
    """Run folder to continue; takes every other option from its config.json. No unit. Default: none."""
    derive: Literal["budget", "predictor", "argmax", "sample"] | None = None
    """How the network is chosen at the end: budget takes the most probable networks that keep every target, exactly, and of
    these the one of the smallest loss on the selection split; predictor measures networks of all latencies around the target,
    learns what options add to their losses, alone and together, and takes the best one by that which keeps every target,
    whatever the logits say; argmax takes the likeliest candidate of each layer, which may miss the target; sample draws
    networks and keeps the best so. No unit. Default: budget where there is a target, else argmax."""
    derive_samples: int | None = None
    """Networks drawn by --derive sample, or listed by budget, to be compared, or that predictor learns from: a number from 1.
    Default: 32 by budget, 16 by sample, 64 by predictor."""
    derive_from: float | None = None
    """Share of the target, 0 to 1, below which --derive budget leaves networks out while latency still presses on the logits,
    unless there are none above. No unit. Default: 0.98 where that leaves as many networks as are compared, else 0."""
    missing: Literal["error", "cost-model"] | None = None
    """What to do for an op without a table entry. No unit. Default: the cost model of an estimated table, else an error."""
    augment: Augment | None = None
    """Augmentation of training images. No unit. Default: crop for grey images, crop-flip for others."""
    warm_up: float | None = None
    """Share of the epochs, 0 to 1, before the architecture is trained. Default: the recipe's (short 0.3, paper 10 of 90)."""
    theta_passes: int = 1
    """Passes over the architecture split in each epoch after the warm-up. The targets of a family share its steps: as many
    passes as targets give each of them the steps of a search of its own. No unit."""
    theta_images: Literal["own", "weights"] | None = None
    """Images that the logits learn from, a fifth of the training images: own, which the weights never see; weights, which the
    weights learn from, too. No unit. Default: the recipe's (own)."""
    temperature_start: float | None = None
    """Temperature of the gates in the first epoch. No unit. Default: the recipe's (5); softmax 1, gdas 10."""
    temperature_end: float | None = None
    """Temperature of the gates in the last epoch; it falls geometrically, for gdas linearly. No unit. Default: the recipe's
    (short 0.1, paper falls by 0.956 an epoch); softmax 1, gdas 0.1."""
    optimiser: Literal["sgd", "nesterov", "rmsprop"] | None = None
    """Optimiser of the weights, all with momentum 0.9: sgd; nesterov; rmsprop with epsilon 1, as TuNAS has it. No unit.
    Default: sgd; by --recipe paper nesterov for two-path, rmsprop for reinforce."""
    label_smoothing: float | None = None
    """Share of each label, 0 to 1, that weight steps spread over all classes. No unit. Default: 0; by --recipe paper 0.1 for
    two-path and reinforce."""
    lr: float | None = None
    """Learning rate of the weights at the start of its cosine, per step. Default: the recipe's (0.1)."""
    weight_decay: float | None = None
    """L2 on convolution and linear weights, per step. Default: the recipe's (1e-4)."""
    theta_lr: float | None = None
    """Adam's learning rate of the logits, per step. Default: the recipe's (short 25 / architecture steps, for
    reinforce 2.5, paper 0.01)."""
    theta_lr_end: float | None = None
    """What --theta-lr is multiplied by at the end: up to 1 it falls linearly from a fifth of the architecture steps on, above 1
    it grows exponentially. No unit. Default: the recipe's (short 0.1, paper 1), 10 for reinforce."""
    theta_beta1: float | None = None
    """Adam's beta_1 of the logits, 0 to 1: what their moving average of gradients keeps per step. Default: 0.9, in
    ProxylessNAS' and TuNAS' methods (two-path, reinforce) 0."""
    theta_every: int | None = None
    """Weight steps before each architecture step. No unit. Default: 5 for two-path, else none: an epoch takes all weight
    steps, then as many architecture steps as its split has batches."""
    zero_gradient: bool | None = None
    """Of two-path: take a gradient also where the candidate that is on is an identity; ProxylessNAS' code takes none there.
    No unit. Default: yes."""
    theta_weight_decay: float | None = None
    """L2 on the logits, per step. Default: the recipe's (short 0, paper 5e-4)."""
    strength: float | None = None
    """lambda of the objectives absolute and hinge. No unit. Default: the recipe's (4), and 0.1 for add-linear, where latency
    has no other bound, and for reinforce; mnasnet-soft 0.07, mnasnet-hard 1."""
    alpha: float | None = None
    """alpha of mul-log, for LAT in microseconds, or in ms with --reference-ms. No unit. Default: the recipe's (0.2)."""
    beta: float | None = None
    """beta of mul-log, for LAT in microseconds, or in ms with --reference-ms. No unit. Default: the recipe's (0.6), and
    ProxylessNAS's 0.3 with --reference-ms."""
    reference_ms: float | None = None
    """Reference of mul-log, in ms, above 1: (log LAT / log reference)^beta with LAT in ms, as ProxylessNAS has it.
    Default: none, as FBNet has it."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """Type of maps and products while training: float32, or bfloat16 with parameters, statistics and logits still in
    float32. No unit."""
    remat: bool = False
    """Keep only the input of each layer for the backward pass: less memory, more time. No unit."""
    devices: int | None = None
    """Devices that share each batch: a number from 1; a CPU is made as many, up to its cores. No unit. Default: as many local
    ones as divide the batch, and all of all processes with --distributed."""
    distributed: bool = False
    """Run as one of several processes, on one host or more, that share each batch: found by JAX under SLURM, Open MPI, on TPU
    pods and in Kubernetes, else from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. No unit."""
    checkpoint_s: float = 20.0
    """Shortest time between two checkpoints, in seconds; they are written at the end of an epoch."""

    def __post_init__(self) -> None:
        if not isinstance(self.also, list | tuple) or not all(isinstance(text, str) for text in self.also):
            raise ConfigError(f"--also is {self.also!r}; expected texts such as macs=100e6")
        object.__setattr__(self, "also", tuple(self.also))  # JSON has lists
        object.__setattr__(self, "family_ms", tuple(self.family_ms))
        for name, value in vars(self).items():  # NumPy's numbers become Python's, which JSON can store
            if isinstance(value, numbers.Real) and type(value) not in (bool, int, float):
                object.__setattr__(self, name, int(value) if isinstance(value, numbers.Integral) else float(value))
        for field, low, high in _RANGES:
            value = getattr(self, field)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (is_number and low <= value <= high):
                raise ConfigError(f"{_flag(field)} is {value!r}; expected a number from {low:g} to {high:g}")
        for target in self.family_ms:
            if not isinstance(target, int | float) or isinstance(target, bool) or not 1e-9 <= target <= 1e9:
                raise ConfigError(f"--target-ms has {target!r} among its targets; expected numbers from 1e-09 to 1e+09")
        if len({f"{t:g}" for t in self.family_ms}) < len(self.family_ms):
            raise ConfigError(
                f"--target-ms {','.join(f'{t:g}' for t in self.family_ms)} has a target twice; expected different ones"
            )
        if self.family_ms and self.target_ms is not None:
            raise ConfigError(f"--target-ms {self.target_ms:g} and --family-ms are both given; expected one of them")
        for field in _WHOLE:
            value = getattr(self, field)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
                raise ConfigError(f"{_flag(field)} is {value!r}; expected a whole number")
        for field, words in _WORDS.items():
            value = getattr(self, field)
            if value is not None and value not in words:
                raise ConfigError(f"{_flag(field)} is {value!r}{nearest(str(value), words)}")

    @property
    def compute_dtype(self) -> str | None:
        """What ``dnas.apply`` takes: None computes in the images' own type."""
        return None if self.compute == "float32" else self.compute

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


_SAMPLES = {"budget": 32, "predictor": 64, "argmax": 32, "sample": 16}  # networks, by way to derive
_RANGES = (
    ("target_ms", 1e-9, 1e9), ("epochs", 1, 1e6), ("batch_size", 1, 1e6), ("train_epochs", 0, 1e6), ("seed", 0, 2**32 - 1),
    ("warm_up", 0, 1), ("temperature_start", 1e-12, 1e3), ("temperature_end", 1e-12, 1e3), ("lr", 0, 1e3), ("theta_lr", 0, 1e3),
    ("weight_decay", 0, 1), ("theta_weight_decay", 0, 1), ("strength", 0, 1e6), ("alpha", 0, 1e6), ("beta", 0, 1e3),
    ("checkpoint_s", 0, 1e9), ("derive_samples", 1, 1e6), ("derive_from", 0, 1),
    ("devices", 1, 1e6), ("seeds", 1, 1000), ("theta_passes", 1, 1e4), ("theta_lr_end", 0, 1e3), ("theta_beta1", 0, 0.9999),
    ("theta_every", 1, 1e6), ("evaluations", 1, 1e6), ("band", 0, 1), ("entropy_weight", -1e3, 1e3),
    ("skip_dropout", 0, 1), ("label_smoothing", 0, 1), ("min_depth", 1, 1e3), ("reference_ms", 1.001, 1e9),
)  # fmt: skip
_WHOLE = (
    "epochs", "batch_size", "train_epochs", "seed", "derive_samples", "devices", "seeds", "theta_passes", "theta_every",
    "evaluations", "min_depth",
)  # fmt: skip
_WORDS: dict[str, tuple[str, ...]] = {
    "objective": ("lagrange", "absolute", "add-linear", "hinge", "mul-log", "mnasnet-soft", "mnasnet-hard"),
    "evolution": ("regularised", "nsga2"), "optimiser": ("sgd", "nesterov", "rmsprop"),
    "gates": ("batch", "sample"), "theta_images": ("own", "weights"), "recipe": ("short", "paper"),
    "missing": ("error", "cost-model"),
    "augment": get_args(Augment), "derive": tuple(_SAMPLES), "compute": ("float32", "bfloat16"),
}  # fmt: skip


def with_recipe(config: SearchConfig) -> SearchConfig:
    """``config`` with the constants of recipe and method where none is given; ``complete`` does the rest."""
    traits = TRAITS.get(config.method, Traits())
    names = {f.name for f in dataclasses.fields(SearchConfig)}
    if refused := [f for f in traits.lacks if f in names and getattr(config, f) is not None]:
        takers = [n for n, t in TRAITS.items() if refused[0] not in t.lacks]
        raise ConfigError(f"--method {config.method} does not take {_flag(refused[0])}; drop it ({', '.join(takers)} take it)")
    if config.objective is not None and config.objective not in traits.objectives:
        raise ConfigError(
            f"--method {config.method} does not take --objective {config.objective}; it takes {', '.join(traits.objectives)}"
        )
    chosen = {k: v for k, v in constants(config.recipe, config.method).items() if k in names and getattr(config, k) is None}
    if config.objective is None and (config.target_ms is not None or config.family_ms or config.also) and traits.objectives:
        chosen["objective"] = traits.objectives[0]
    if config.objective in STRENGTHS and config.strength is None:
        chosen["strength"] = STRENGTHS[config.objective]
    if config.reference_ms is not None and config.beta is None:
        chosen["beta"] = REFERENCE_BETA
    full = dataclasses.replace(config, **chosen)
    if full.objective == "mul-log" and (full.target_ms is not None or full.family_ms):
        raise ConfigError(
            "--target-ms has no place in the objective mul-log, which has no target; drop it, or --objective mul-log (a target "
            "picks --objective lagrange)"
        )
    if full.objective == "mul-log" and full.derive in ("budget", "predictor"):
        raise ConfigError(
            f"--derive {full.derive} needs a target, and the objective mul-log has none; use --derive argmax or sample"
        )
    if full.derive == "predictor" and full.derive_samples == 1:
        raise ConfigError("--derive predictor with --derive-samples 1; expected at least 2 networks to learn from")
    if full.objective != "mul-log" and full.reference_ms is not None:
        raise ConfigError(f"--reference-ms belongs to --objective mul-log; here the objective is {full.objective}")
    if full.derive_from is not None and _way(full) != "budget":
        raise ConfigError(f"--derive-from belongs to --derive budget; here it is --derive {_way(full)}")
    return full


def complete(config: SearchConfig, *, grey: bool, theta_steps: float, middle_ms: float) -> SearchConfig:
    """What depends on data and space: ``theta_steps`` are architecture steps in an epoch, for each target; ``middle_ms`` the
    default target."""
    recipe = constants(config.recipe, config.method)
    assert config.epochs is not None
    values: dict[str, Any] = {}
    if config.objective != "mul-log" and config.target_ms is None and not config.family_ms:
        values["target_ms"] = middle_ms
    lacks = TRAITS.get(config.method, Traits()).lacks
    if config.derive is None and "derive" not in lacks:
        values["derive"] = _way(config)
    if config.derive_samples is None and "derive_samples" not in lacks:
        values["derive_samples"] = _SAMPLES[_way(config)]
    if config.temperature_start is not None and config.temperature_end is None:
        values["temperature_end"] = config.temperature_start * recipe["temperature_decay"] ** (config.epochs - 1)
    if config.theta_lr is None and "theta_lr" not in lacks:
        values["theta_lr"] = recipe["theta_travel"] / max(theta_steps * (config.epochs - warm_up_epochs(config)), 1)
    if config.augment is None:
        values["augment"] = "crop" if grey else "crop-flip"
    return dataclasses.replace(config, **values)


def warm_up_epochs(config: SearchConfig) -> int:
    """Epochs before the architecture is trained; all of them for a method that does not train it."""
    assert config.epochs is not None
    if config.warm_up is None:
        return config.epochs
    return min(round(config.epochs * config.warm_up), config.epochs)


def _way(config: SearchConfig) -> Literal["budget", "predictor", "argmax", "sample"]:
    """How the network is derived."""
    return config.derive or ("argmax" if config.objective == "mul-log" else "budget")


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")
