"""Inverted residuals a few images at a time, so that their wide maps live in the processor's caches.

expand 1x1, BN, activation, depthwise, BN, activation, project 1x1 as one function with its own derivative. Only the output
of the depthwise convolution is kept for the backward pass. Three identities save whole passes over wide maps:

* the expansion e = x W is linear, so the mean and variance of its BN follow from those of x: mean(e) = mean(x) W and
  var(e_j) = W_j' cov(x) W_j; the BN then folds into W and a bias;
* P = x' dz (dz: the gradient at the first activation's input) gives both the gradient of W and the sums that BN's gradient
  needs: sum dz e_j = W_j' P_j;
* hence dx = dz (g W)' - (x - mean(x)) M - v, with a matrix M [c, c] and a vector v that are known after the last block.

For CPUs; the batch's statistics are always used (training). Maps are NHWC.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from dnas.layers.conv import Pads, divisor, per_channel, shift_add, spread, window
from dnas.layers.norm import activate

BLOCK_BYTES = 2**20  # one wide map of a block; second-level caches have 1 to 2 MiB
KEEP_CHANNELS = 48  # from this many input channels on, the expansion is kept: its product costs more than its memory traffic
PIECES = 8  # rows that are summed in registers by the kernel gradient

Maps = Float[Array, "n h w c"]


class Spec(NamedTuple):
    """What is known before the numbers. ``mids``: widths of the candidates that lie side by side."""

    mids: tuple[int, ...]
    act: str
    stride: int
    pads: Pads
    eps: float


class Weights(NamedTuple):
    """Candidates of one kernel size side by side: m = sum of their middle widths."""

    expand: Float[Array, "c m"]
    expand_scale: Float[Array, " m"]
    expand_bias: Float[Array, " m"]
    taps: Float[Array, "k k m"]
    depthwise_scale: Float[Array, " m"]
    depthwise_bias: Float[Array, " m"]
    project: tuple[Float[Array, "_ o"], ...]


class Moments(NamedTuple):
    """Batch means and biased variances before the two BNs; they carry no gradient."""

    expand_mean: Float[Array, " m"]
    expand_var: Float[Array, " m"]
    depthwise_mean: Float[Array, " m"]
    depthwise_var: Float[Array, " m"]


def input_moments(x: Maps) -> tuple[Float[Array, " c"], Float[Array, "c c"]]:
    """Mean and (biased) covariance of the channels of ``x``, without a gradient: ``blocked`` accounts for them."""
    flat = _flat(lax.stop_gradient(x))
    mean = _sums(flat) / flat.shape[0]
    centred = flat - per_channel(mean, flat)
    return mean, centred.T @ centred / flat.shape[0]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def blocked(
    spec: Spec, x: Maps, mean: Float[Array, " c"], cov: Float[Array, "c c"], w: Weights
) -> tuple[Float[Array, "n p q m*o"], Moments]:
    """Projections of all candidates side by side, before their last BN, and the batch's moments.

    ``mean``, ``cov``: ``input_moments(x)``.
    """
    return _forward(spec, x, mean, cov, w)[0]


class _Folded(NamedTuple):
    """Both BNs as factors: first activation's input = x kernel + bias; second one's = gain * d + offset."""

    kernel: jax.Array
    bias: jax.Array
    inverse: jax.Array
    gain: jax.Array
    offset: jax.Array
    depthwise_inverse: jax.Array


def _fold(spec: Spec, w: Weights, moments: Moments) -> _Folded:
    inverse = lax.rsqrt(moments.expand_var + spec.eps)
    gain = inverse * w.expand_scale
    second = lax.rsqrt(moments.depthwise_var + spec.eps)
    outer = second * w.depthwise_scale
    return _Folded(
        w.expand * per_channel(gain, w.expand),
        w.expand_bias - moments.expand_mean * gain,
        inverse,
        outer,
        w.depthwise_bias - moments.depthwise_mean * outer,
        second,
    )


def _forward(spec: Spec, x: Maps, mean: jax.Array, cov: jax.Array, w: Weights) -> Any:
    blocks = _Blocks(spec, x, w)
    first = Moments(mean @ w.expand, jnp.maximum((w.expand * (cov @ w.expand)).sum(0), 0), *_nothing(w))
    f = _fold(spec, w, first)
    keep = x.shape[-1] >= KEEP_CHANNELS
    pixels = blocks.images * blocks.height * blocks.width

    def convolve(i: jax.Array, carry: Any) -> Any:
        """Depthwise outputs, and their mean and centred second moment by Chan et al.'s update (1983)."""
        kept, outer, centre, spread_ = carry
        e = blocks.expand(blocks.at(x, i), f)
        a = blocks.padded(activate(e + per_channel(f.bias, e), spec.act))
        d = lax.optimization_barrier(shift_add(a, w.taps, spec.stride))  # else each of its readers computes it
        own = _sums(_flat(d)) / pixels
        centred = lax.optimization_barrier(jnp.square(d - per_channel(own, d)))
        step, share = own - centre, 1 / (i + 1).astype(own.dtype)
        spread_ = spread_ + _sums(_flat(centred)) + step * step * pixels * (1 - share)
        return (blocks.put(kept, e, i) if keep else kept), blocks.put(outer, d, i), centre + step * share, spread_

    zero = jnp.zeros_like(w.expand_scale)
    kept = blocks.empty(*x.shape[1:3]) if keep else jnp.zeros(())
    kept, d, centre, spread_ = lax.fori_loop(0, blocks.count, convolve, (kept, blocks.empty(), zero, zero))
    moments = first._replace(depthwise_mean=centre, depthwise_var=spread_ / (pixels * blocks.count))
    f = _fold(spec, w, moments)

    def project(i: jax.Array, out: jax.Array) -> jax.Array:
        block = blocks.at(d, i)
        parts = [
            _flat(activate(b * per_channel(g, b) + per_channel(o, b), spec.act)) @ kernel
            for b, g, o, kernel in zip(
                blocks.split(block), blocks.split(f.gain), blocks.split(f.offset), w.project, strict=True
            )
        ]
        return blocks.put(out, jnp.concatenate(parts, -1).reshape(*block.shape[:-1], -1), i)

    out = lax.empty((*d.shape[:-1], sum(k.shape[-1] for k in w.project)), x.dtype)
    out = lax.fori_loop(0, blocks.count, project, out)
    return (out, moments), (x, mean, cov, w, d, kept, moments)


def _nothing(w: Weights) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros_like(w.expand_scale), jnp.ones_like(w.expand_scale)


def _backward(spec: Spec, saved: Any, cotangents: Any) -> Any:
    x, mean, cov, w, d, kept, moments = saved
    dout = cotangents[0]
    blocks = _Blocks(spec, x, w)
    f = _fold(spec, w, moments)
    keep = x.shape[-1] >= KEEP_CHANNELS
    inner, outer = (m.size // m.shape[-1] for m in (x, d))
    widths = [kernel.shape[-1] for kernel in w.project]
    zero, k = jnp.zeros_like(w.expand_scale), blocks.k

    def second(i: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(centred depthwise output, second activation, gradient at that activation's input)"""
        block = blocks.at(d, i)
        grads = lax.split(blocks.at(dout, i), widths, axis=-1)
        db = jnp.concatenate([_flat(g) @ kernel.T for g, kernel in zip(grads, w.project, strict=True)], -1)
        z = block * per_channel(f.gain, block) + per_channel(f.offset, block)
        b, pull = jax.vjp(lambda z: activate(z, spec.act), z)
        return block - per_channel(moments.depthwise_mean, block), b, pull(db.reshape(block.shape))[0]

    def gather(i: jax.Array, carry: Any) -> Any:
        dz_kept, total, product, projections = carry
        centred, b, dz = second(i)
        dz = lax.optimization_barrier(dz)
        grads = lax.split(blocks.at(dout, i), widths, axis=-1)
        projections = tuple(p + _flat(own).T @ _flat(g) for p, own, g in zip(projections, blocks.split(b), grads, strict=True))
        dz_kept = blocks.put(dz_kept, dz, i) if keep else dz_kept
        return dz_kept, total + _sums(_flat(dz)), product + _sums(_flat(lax.optimization_barrier(dz * centred))), projections

    start = (blocks.empty() if keep else jnp.zeros(()), zero, zero, tuple(jnp.zeros_like(k) for k in w.project))
    dz_kept, dbias, product, dproject = lax.fori_loop(0, blocks.count, gather, start)
    dscale = product * f.depthwise_inverse

    def scatter(i: jax.Array, carry: Any) -> Any:
        dx, cross, total, taps = carry
        if keep:
            block, dz = blocks.at(d, i), blocks.at(dz_kept, i)
            centred = block - per_channel(moments.depthwise_mean, block)
        else:
            centred, _, dz = second(i)
        slope = f.depthwise_inverse * dscale / outer
        dd = per_channel(f.gain, dz) * (dz - per_channel(dbias / outer, dz) - centred * per_channel(slope, dz))
        dd = lax.optimization_barrier(spread(dd, k, spec.stride, spec.pads, blocks.size))
        own = blocks.at(x, i)
        e = blocks.at(kept, i) if keep else blocks.expand(own, f)
        a, pull = jax.vjp(lambda z: activate(z, spec.act), e + per_channel(f.bias, e))
        taps = blocks.add_taps(taps, blocks.padded(a), dd)
        dz = _flat(lax.optimization_barrier(pull(shift_add(dd, w.taps[::-1, ::-1], 1))[0]))
        dx = blocks.put(dx, (dz @ f.kernel.T).reshape(own.shape), i)
        return dx, cross + _flat(own).T @ dz, total + _sums(dz), taps

    start = (lax.empty(x.shape, x.dtype), jnp.zeros_like(w.expand), zero, (zero,) * (k * k))
    dx, cross, total, taps = lax.fori_loop(0, blocks.count, scatter, start)
    # from here on the matrices are [c, m] or smaller
    scale = f.inverse * ((w.expand * cross).sum(0) - moments.expand_mean * total)
    gain = f.inverse * w.expand_scale
    slope = f.inverse * scale
    dexpand = per_channel(gain, cross) * (cross - mean[:, None] * total[None] - (cov @ w.expand) * per_channel(slope, cross))
    inward = (w.expand * per_channel(gain * slope / inner, w.expand)) @ w.expand.T
    offset = w.expand @ (gain * total / inner) - mean @ inward
    dx = dx - (_flat(x) @ inward).reshape(x.shape) - per_channel(offset, x)
    dw = Weights(dexpand, scale, total, jnp.stack(taps).reshape(w.taps.shape), dscale, dbias, dproject)
    return dx, jnp.zeros_like(mean), jnp.zeros_like(cov), dw


blocked.defvjp(_forward, _backward)


class _Blocks:
    """How the batch is cut, and what one block goes through."""

    def __init__(self, spec: Spec, x: Maps, w: Weights):
        n, h, width, _ = x.shape
        self.k = k = w.taps.shape[0]
        self.spec, self.wide, self.dtype = spec, w.taps.shape[-1], x.dtype
        self.size = (h, width)
        self.height, self.width = ((s + sum(p) - k) // spec.stride + 1 for s, p in zip(self.size, spec.pads, strict=True))
        self.images = divisor(n, BLOCK_BYTES // (h * width * self.wide * x.dtype.itemsize))
        self.count = n // self.images
        self.batch = n

    def at(self, maps: Maps, i: jax.Array) -> Maps:
        return lax.dynamic_slice_in_dim(maps, i * self.images, self.images, 0)

    def put(self, maps: Maps, block: Maps, i: jax.Array) -> Maps:
        return lax.dynamic_update_slice_in_dim(maps, block, i * self.images, 0)

    def empty(self, *size: int) -> Maps:
        """A wide map of the whole batch, to be filled."""
        return lax.empty((self.batch, *(size or (self.height, self.width)), self.wide), self.dtype)

    def split(self, values: jax.Array) -> list[jax.Array]:
        """The channels of each candidate."""
        return lax.split(values, self.spec.mids, axis=values.ndim - 1)  # type: ignore[return-value]

    def expand(self, own: Maps, f: _Folded) -> Maps:
        return (_flat(own) @ f.kernel).reshape(*own.shape[:-1], -1)

    def padded(self, a: Maps) -> Maps:
        return lax.optimization_barrier(jnp.pad(a, ((0, 0), *self.spec.pads, (0, 0))))

    def add_taps(self, sums: tuple[jax.Array, ...], a: Maps, dd: Maps) -> tuple[jax.Array, ...]:
        """``sums`` plus the gradient of the depthwise kernel, tap by tap; strips of products are added up in registers.

        ``dd`` is read where ``spread`` put it: a map of its own would be computed again by every tap.
        """
        (top, _), (left, _) = self.spec.pads
        stride = self.spec.stride
        per_image = divisor(self.images, PIECES)
        per_row = divisor(self.height, PIECES // per_image)
        images, rows = self.images // per_image, self.height // per_row
        strips = [
            [m[n * images : (n + 1) * images, stride * r * rows :] for m in (a, dd)]
            for n in range(per_image)
            for r in range(per_row)
        ]

        def tap(i: int, j: int) -> jax.Array:
            size = (rows, self.width, stride)
            products = (window(x, i, j, *size) * window(dy, self.k - 1 - top, self.k - 1 - left, *size) for x, dy in strips)
            return _sums(_flat(lax.optimization_barrier(sum(products))))

        return tuple(total + tap(*divmod(t, self.k)) for t, total in enumerate(sums))


def _flat(maps: jax.Array) -> jax.Array:
    return maps.reshape(-1, maps.shape[-1])


def _sums(flat: Float[Array, "pixels c"]) -> Float[Array, " c"]:
    """Sums over pixels as a matrix product, which XLA:CPU does at full speed; its column sums are several times slower."""
    return (jnp.ones((1, flat.shape[0]), flat.dtype) @ flat)[0]
