"""Batch normalisation with its activation, keeping only the input for the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from dnas.layers.conv import block_size, per_channel
from dnas.layers.shares import ALL, OWN, on_each, summed

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "hswish": jax.nn.hard_swish,
    "swish": jax.nn.swish,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "sigmoid": jax.nn.sigmoid,
    "hsigmoid": jax.nn.hard_sigmoid,
}


class BatchNorm(nnx.Module):
    """act((x - mean) / sqrt(var + eps) * scale + bias); Ioffe & Szegedy 2015, arXiv:1502.03167.

    Statistics are float32 or wider; the running variance is the biased one, as in Flax.
    """

    def __init__(self, channels: int, act: str | None, eps: float):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.var = nnx.BatchStat(jnp.ones(channels))
        self.act = act
        self.eps = eps

    def __call__(
        self, x: Float[Array, "n h w c"], train: bool | jax.Array, momentum: float | jax.Array
    ) -> Float[Array, "n h w c"]:
        """See ``batch_norm``; keeps the new running statistics."""
        y, self.mean[...], self.var[...] = batch_norm(
            x, self.scale[...], self.bias[...], self.mean[...], self.var[...], self.act, self.eps, train, momentum
        )
        return y


def batch_norm(
    x: Float[Array, "n h w c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    mean: Float[Array, " c"],
    var: Float[Array, " c"],
    act: str | None,
    eps: float,
    train: bool | jax.Array,
    momentum: float | jax.Array,
) -> tuple[Float[Array, "n h w c"], Float[Array, " c"], Float[Array, " c"]]:
    """Normalised and activated ``x``, and the running mean and variance after it.

    ``train``: normalise by the batch and move the running statistics to momentum * old + (1 - momentum) * batch. A bool[]
    array makes one program serve both, without a gradient through the batch's statistics.
    """
    if train is False:
        return _affine(x, mean, scale * lax.rsqrt(var + eps), bias, act), mean, var
    if train is True:
        y, batch_mean, batch_var = normalise(x, scale, bias, act, eps)
        return y, moved(mean, batch_mean, momentum), moved(var, batch_var, momentum)
    batch_mean, batch_var = _moments(x)
    kept = jnp.where(train, momentum, 1.0).astype(mean.dtype)
    use_mean, use_var = jnp.where(train, batch_mean, mean), jnp.where(train, batch_var, var)
    y = _affine(x, use_mean, scale * lax.rsqrt(use_var + eps), bias, act)
    return y, kept * mean + (1 - kept) * batch_mean, kept * var + (1 - kept) * batch_var


def moved(old: jax.Array, batch: jax.Array, momentum: float | jax.Array) -> jax.Array:
    """A running statistic after a batch's."""
    return momentum * old + (1 - momentum) * batch


def _affine(x: jax.Array, mean: jax.Array, gain: jax.Array, bias: jax.Array, act: str | None) -> jax.Array:
    z = (x.astype(mean.dtype) - per_channel(mean, x)) * per_channel(gain, x) + per_channel(bias, x)
    return activate(z, act).astype(x.dtype)


def activate(x: jax.Array, act: str | None) -> jax.Array:
    return x if act is None else ACTIVATIONS[act](x)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalise(
    x: Float[Array, "n h w c"], scale: Float[Array, " c"], bias: Float[Array, " c"], act: str | None, eps: float
) -> tuple[Float[Array, "n h w c"], Float[Array, " c"], Float[Array, " c"]]:
    """Batch-normalised and activated ``x``, and the batch's mean and (biased) variance; these two carry no gradient."""
    return _forward(x, scale, bias, act, eps)


@partial(jax.jit, static_argnums=(3, 4))  # jit: traced once for all that are alike, and for derivatives
def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array, act: str | None, eps: float):  # type: ignore[no-untyped-def]
    mean, var = _moments(x)
    return _affine(x, mean, scale * lax.rsqrt(var + eps), bias, act), mean, var


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance per channel, float32 or wider, in one pass."""
    count = x.size // x.shape[-1]
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    shift = x[0].astype(dtype).mean((0, 1))  # near the mean, so that the one-pass variance does not cancel

    def powers(image: jax.Array) -> tuple[jax.Array, jax.Array]:
        centred = image.astype(dtype) - per_channel(shift, image)
        return centred, centred * centred

    first, second = (s / count for s in channel_sums(powers, x))
    return shift + first, jnp.maximum(second - first * first, 0)


def _fwd(x: jax.Array, scale: jax.Array, bias: jax.Array, act: str | None, eps: float):  # type: ignore[no-untyped-def]
    y, mean, var = _forward(x, scale, bias, act, eps)
    return (y, mean, var), (x, scale, bias, mean, lax.rsqrt(var + eps))


@partial(jax.jit, static_argnums=(0, 1))
def _bwd(act: str | None, eps: float, saved: tuple[jax.Array, ...], cotangents: tuple[jax.Array, ...]):  # type: ignore[no-untyped-def]
    x, scale, bias, mean, inverse = saved
    count = x.size // x.shape[-1]

    def parts(image: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(normalised x, gradient at the activation's input)"""
        normal = (image.astype(mean.dtype) - per_channel(mean, image)) * per_channel(inverse, image)
        _, pull = jax.vjp(lambda z: activate(z, act), normal * per_channel(scale, image) + per_channel(bias, image))
        return normal, pull(dy.astype(mean.dtype))[0]

    def products(image: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        normal, dz = parts(image, dy)
        return dz * normal, dz

    dscale, dbias = channel_sums(products, x, cotangents[0])
    normal, dz = parts(x, cotangents[0])
    dx = per_channel(scale * inverse, x) * (dz - per_channel(dbias / count, x) - normal * per_channel(dscale / count, x))
    return dx.astype(x.dtype), dscale.astype(scale.dtype), dbias.astype(bias.dtype)


normalise.defvjp(_fwd, _bwd)


def channel_sums(terms: Callable[..., tuple[jax.Array, ...]], *maps: Float[Array, "n h w c"]) -> tuple[jax.Array, ...]:
    """Sums over batch, height and width of ``terms(*maps)``.

    On CPU maps are accumulated a few images at a time: one pass over memory, also inside the branches of ``lax.switch``.
    """
    if jax.default_backend() != "cpu":
        return tuple(t.sum((0, 1, 2)) for t in terms(*maps))
    return on_each(partial(_by_images, terms), (OWN,) * len(maps), ALL)(*maps)


def _by_images(terms: Callable[..., tuple[jax.Array, ...]], *maps: jax.Array) -> tuple[jax.Array, ...]:
    count = maps[0].shape[0]
    example = [jax.ShapeDtypeStruct((1, *m.shape[1:]), m.dtype) for m in maps]
    one = jax.eval_shape(terms, *example)
    images = block_size(count, 4 * sum(t.size * t.dtype.itemsize for t in one))

    def add(index: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        found = terms(*(lax.dynamic_slice_in_dim(m, index * images, images, 0) for m in maps))
        return tuple(total + term for total, term in zip(sums, found, strict=True))

    zeros = tuple(jnp.zeros((images, *t.shape[1:]), t.dtype) for t in one)
    sums = lax.fori_loop(0, count // images, add, zeros)
    return tuple(summed([s.sum((0, 1, 2)) for s in sums]))
