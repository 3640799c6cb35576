"""Inverted residuals a few images at a time, so that their wide maps live in the processor's caches.

expand 1x1, BN, activation, depthwise, BN, activation, project 1x1 as one function with its own derivative. Only the output
of the depthwise convolution is kept for the backward pass. Three identities save whole passes over wide maps:

* the expansion e = x W is linear, so the mean and variance of its BN follow from those of x: mean(e) = mean(x) W and
  var(e_j) = W_j' cov(x) W_j; the BN then folds into W and a bias;
* P = x' dz (dz: the gradient at the first activation's input) gives both the gradient of W and the sums that BN's gradient
  needs: sum dz e_j = W_j' P_j;
* hence dx = dz (g W)' - (x - mean(x)) M - v, with a matrix M [c, c] and a vector v that are known after the last block.

For CPUs; the batch's statistics are always used (training). Maps are NHWC. Several devices work through their own images and
add up their sums.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from dnas.layers.blocks import Blocks, Maps
from dnas.layers.conv import Pads, add_taps, flat, per_channel, shift_add, spread, sums
from dnas.layers.norm import activate
from dnas.layers.shares import ALL, OWN, devices, on_each, summed


class Spec(NamedTuple):
    """What is known before the numbers. ``mids``: widths of the candidates that lie side by side."""

    mids: tuple[int, ...]
    act: str
    stride: int
    pads: Pads
    eps: float


class Weights(NamedTuple):
    """Candidates of one kernel size side by side: m = sum of their middle widths; tuples have an entry for each."""

    expand: Float[Array, "c m"]
    expand_scale: Float[Array, " m"]
    expand_bias: Float[Array, " m"]
    taps: Float[Array, "k k m"]
    depthwise_scale: Float[Array, " m"]
    depthwise_bias: Float[Array, " m"]
    project: tuple[Float[Array, "_ o"], ...]
    project_scale: tuple[Float[Array, " o"], ...]
    project_bias: tuple[Float[Array, " o"], ...]
    gates: tuple[Float[Array, ""], ...]


class Moments(NamedTuple):
    """Batch means and biased variances before the three BNs; they carry no gradient."""

    expand_mean: Float[Array, " m"]
    expand_var: Float[Array, " m"]
    depthwise_mean: Float[Array, " m"]
    depthwise_var: Float[Array, " m"]
    project_mean: tuple[Float[Array, " o"], ...]
    project_var: tuple[Float[Array, " o"], ...]


class Kept(NamedTuple):
    """What a forward pass leaves to the backward one: every candidate's projection before its last BN, and the moments."""

    projections: tuple[Float[Array, "pixels o"], ...]
    moments: Moments


KEPT: Any = Kept(OWN, ALL)  # type: ignore[arg-type]


def input_moments(x: Maps) -> tuple[Float[Array, " c"], Float[Array, "c c"]]:
    """Mean and (biased) covariance of the channels of ``x``, without a gradient: ``blocked`` accounts for them."""
    pixels = flat(lax.stop_gradient(x))
    mean = sums(pixels) / pixels.shape[0]
    centred = pixels - per_channel(mean, pixels)
    return mean, centred.T @ centred / pixels.shape[0]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def blocked(
    spec: Spec, x: Maps, mean: Float[Array, " c"], cov: Float[Array, "c c"], w: Weights, kept: Kept | None = None
) -> tuple[Float[Array, "n p q o"], Kept]:
    """sum_i gates[i] * candidate_i(x), and what was kept, which carries no gradient.

    ``mean``, ``cov``: ``input_moments(x)``. ``kept``: of an earlier call on the same ``x`` and ``w``, of which only the
    depthwise convolution is then done again, in the backward pass.
    """
    return _forward(spec, x, mean, cov, w, kept)[0]


class _Folded(NamedTuple):
    """The first two BNs as factors: first activation's input = x kernel + bias; second one's = gain * d + offset."""

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


class _Running(NamedTuple):
    """Mean and centred second moment of the blocks so far, by Chan et al.'s update (1983)."""

    centre: jax.Array
    spread: jax.Array

    @classmethod
    def zero(cls, like: jax.Array) -> _Running:
        return cls(jnp.zeros_like(like), jnp.zeros_like(like))

    def add(self, i: jax.Array, block: jax.Array) -> _Running:
        """Block number ``i`` more, of as many pixels as every other."""
        pixels = block.size // block.shape[-1]
        own = sums(flat(block)) / pixels
        centred = lax.optimization_barrier(jnp.square(block - per_channel(own, block)))
        step, share = own - self.centre, 1 / (i + 1).astype(own.dtype)
        spread = self.spread + sums(flat(centred)) + step * step * pixels * (1 - share)
        return _Running(self.centre + step * share, spread)

    def of_all(self, pixels: int) -> _Running:
        """That of all devices, ``pixels`` on each."""
        if devices() == 1:
            return self
        centre = summed(self.centre) / devices()
        return _Running(centre, summed(self.spread + jnp.square(self.centre - centre) * pixels))


def _forward(spec: Spec, x: Maps, mean: jax.Array, cov: jax.Array, w: Weights, given: Kept | None) -> Any:
    run = on_each(partial(_forward_here, spec), (OWN, ALL, ALL, ALL, KEPT if given else ALL), (OWN, KEPT, OWN, OWN))
    y, kept, e, d = run(x, mean, cov, w, given)
    return (y, kept), (x, mean, cov, w, kept, given, e, d)


@partial(jax.jit, static_argnums=0)  # traced once: by itself, and again for derivatives
def _forward_here(spec: Spec, x: Maps, mean: jax.Array, cov: jax.Array, w: Weights, given: Kept | None) -> Any:
    """(y, kept, expansions and depthwise outputs for the backward pass, None where they are not kept)"""
    blocks = Blocks(x, w.taps, spec.mids, spec.stride, spec.pads)
    e = d = None
    kept = given
    if kept is None:
        zero = jnp.zeros_like(w.expand_scale)
        first = Moments(
            mean @ w.expand, jnp.maximum((w.expand * (cov @ w.expand)).sum(0), 0), zero, jnp.ones_like(zero),
            w.project_bias, w.project_scale,  # not yet known
        )  # fmt: skip
        e, d, found = _convolve(blocks, x, w, _fold(spec, w, first), spec.act, True)
        pixels = d.size // d.shape[-1]
        found = found.of_all(pixels)
        moments = first._replace(depthwise_mean=found.centre, depthwise_var=found.spread / (pixels * devices()))
        f = _fold(spec, w, moments)

        def project(i: jax.Array, out: Any) -> Any:
            block = flat(blocks.at(d, i))
            parts = zip(blocks.split(block), blocks.split(f.gain), blocks.split(f.offset), w.project, out, strict=True)
            return tuple(
                blocks.put(all_, activate(own * per_channel(g, own) + per_channel(o, own), spec.act) @ kernel, i)
                for own, g, o, kernel, all_ in parts
            )

        start = tuple(lax.empty((pixels, k.shape[-1]), x.dtype) for k in w.project)
        projections = lax.fori_loop(0, blocks.count, project, start)
        last = [_moments(p) for p in projections]  # narrow maps: one pass over all of them is as fast as blocks
        moments = moments._replace(project_mean=tuple(m for m, _ in last), project_var=tuple(v for _, v in last))
        kept = Kept(projections, moments)
    gains = [_outer(spec, w, kept.moments, i)[0] * w.gates[i] for i in range(len(spec.mids))]
    means = kept.moments.project_mean
    constants = (b * gate - m * gain for b, gate, m, gain in zip(w.project_bias, w.gates, means, gains, strict=True))
    y: Any = sum(p * per_channel(gain, p) for p, gain in zip(kept.projections, gains, strict=True))
    y = y + per_channel(sum(constants, jnp.zeros_like(means[0])), y)
    return y.reshape(blocks.batch, blocks.height, blocks.width, -1), kept, e, d


def _moments(pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of every column."""
    rows = pixels.shape[0] * devices()
    mean = summed(sums(pixels)) / rows
    return mean, summed(sums(lax.optimization_barrier(jnp.square(pixels - per_channel(mean, pixels))))) / rows


def _outer(spec: Spec, w: Weights, moments: Moments, i: int) -> tuple[jax.Array, jax.Array]:
    """Factor of candidate ``i``'s last BN, and 1 / its standard deviation."""
    inverse = lax.rsqrt(moments.project_var[i] + spec.eps)
    return inverse * w.project_scale[i], inverse


def _convolve(
    blocks: Blocks, x: Maps, w: Weights, f: _Folded, act: str, measure: bool
) -> tuple[jax.Array | None, jax.Array, _Running]:
    """(expansions, None unless they are kept; depthwise outputs; and, if asked for, the moments of these)"""

    def convolve(i: jax.Array, carry: Any) -> Any:
        e_kept, d_kept, found = carry
        e = blocks.at(flat(x), i) @ f.kernel
        a = blocks.padded(activate(e + per_channel(f.bias, e), act))
        d = lax.optimization_barrier(shift_add(a, w.taps, blocks.stride))  # else, or flat, each of its readers computes it
        e_kept = blocks.put(e_kept, e, i) if blocks.keep else e_kept
        return e_kept, blocks.put(d_kept, d, i), found.add(i, d) if measure else found

    d = lax.empty((blocks.batch, blocks.height, blocks.width, blocks.wide), x.dtype)
    e = lax.empty((x.size // x.shape[-1], blocks.wide), x.dtype) if blocks.keep else jnp.zeros(())
    e, d, found = lax.fori_loop(0, blocks.count, convolve, (e, d, _Running.zero(w.expand_scale)))
    return e if blocks.keep else None, d, found


def _backward(spec: Spec, saved: Any, cotangents: Any) -> Any:
    x, mean, cov, w, kept, given, e, d = saved
    run = on_each(partial(_backward_here, spec), (OWN, ALL, ALL, ALL, KEPT, OWN, OWN, OWN), (OWN, ALL))
    dx, dw = run(x, mean, cov, w, kept, e, d, cotangents[0])
    return dx, jnp.zeros_like(mean), jnp.zeros_like(cov), dw, jax.tree.map(jnp.zeros_like, given)


def _backward_here(
    spec: Spec, x: Maps, mean: jax.Array, cov: jax.Array, w: Weights, kept: Kept, e_all: Any, d_all: Any, dy: jax.Array
) -> tuple[jax.Array, Weights]:
    """(gradient of x, gradient of the weights)"""
    dy, moments, projections = flat(dy), kept.moments, kept.projections
    blocks = Blocks(x, w.taps, spec.mids, spec.stride, spec.pads)
    f = _fold(spec, w, moments)
    if d_all is None:
        e_all, d_all, _ = _convolve(blocks, x, w, f, spec.act, False)
    pixels = flat(x)
    inner, outer = (v.shape[0] * devices() for v in (pixels, dy))
    zero, k = jnp.zeros_like(w.expand_scale), blocks.k
    gains, inverses = zip(*(_outer(spec, w, moments, i) for i in range(len(spec.mids))), strict=True)

    total_dy, raw = summed((sums(dy), [sums(lax.optimization_barrier(dy * p)) for p in projections]))
    # sums of dy times each normalised projection; the gradients of the last BNs and of the gates follow
    products = [(r - m * total_dy) * s for r, m, s in zip(raw, moments.project_mean, inverses, strict=True)]
    dgates = tuple(
        (scale * product + bias * total_dy).sum()
        for scale, bias, product in zip(w.project_scale, w.project_bias, products, strict=True)
    )
    pulls = []  # gradient of a projection = dy * gain - projection * slope - offset
    for gain, inverse, product, m, gate in zip(gains, inverses, products, moments.project_mean, w.gates, strict=True):
        slope = gate * gain * inverse * product / outer
        pulls.append((gate * gain, slope, gate * gain * total_dy / outer - m * slope))

    def of_projections(i: jax.Array) -> list[jax.Array]:
        own = blocks.at(dy, i)
        parts = [blocks.at(p, i) for p in projections]
        return [
            lax.optimization_barrier(own * per_channel(gain, own) - part * per_channel(slope, part) - per_channel(offset, part))
            for part, (gain, slope, offset) in zip(parts, pulls, strict=True)
        ]

    def second(i: jax.Array, grads: list[jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(centred depthwise output, second activation, gradient at that activation's input)"""
        block = flat(blocks.at(d_all, i))
        db = jnp.concatenate([g @ kernel.T for g, kernel in zip(grads, w.project, strict=True)], -1)
        z = block * per_channel(f.gain, block) + per_channel(f.offset, block)
        b, pull = jax.vjp(lambda z: activate(z, spec.act), z)
        return block - per_channel(moments.depthwise_mean, block), b, pull(db)[0]

    def gather(i: jax.Array, carry: Any) -> Any:
        dz_kept, total, product, dproject = carry
        grads = of_projections(i)
        centred, b, dz = second(i, grads)
        dz = lax.optimization_barrier(dz)
        dproject = tuple(p + own.T @ g for p, own, g in zip(dproject, blocks.split(b), grads, strict=True))
        dz_kept = blocks.put(dz_kept, dz, i) if blocks.keep else dz_kept
        return dz_kept, total + sums(dz), product + sums(lax.optimization_barrier(dz * centred)), dproject

    start = (
        lax.empty((dy.shape[0], blocks.wide), x.dtype) if blocks.keep else jnp.zeros(()),
        zero,
        zero,
        tuple(jnp.zeros_like(p) for p in w.project),
    )
    dz_kept, dbias, product, dproject = lax.fori_loop(0, blocks.count, gather, start)
    dbias, product, dproject = summed((dbias, product, dproject))
    dscale = product * f.depthwise_inverse
    slope = f.depthwise_inverse * dscale / outer

    def scatter(i: jax.Array, carry: Any) -> Any:
        dx, cross, total, taps = carry
        if blocks.keep:
            block, dz = flat(blocks.at(d_all, i)), blocks.at(dz_kept, i)
            centred = block - per_channel(moments.depthwise_mean, block)
        else:
            centred, _, dz = second(i, of_projections(i))
        dd = per_channel(f.gain, dz) * (dz - per_channel(dbias / outer, dz) - centred * per_channel(slope, dz))
        dd = lax.optimization_barrier(spread(blocks.maps(dd), k, spec.stride, spec.pads, blocks.size))
        own = blocks.at(pixels, i)
        e = blocks.at(e_all, i) if blocks.keep else own @ f.kernel
        a, pull = jax.vjp(lambda z: activate(z, spec.act), e + per_channel(f.bias, e))
        taps = add_taps(taps, blocks.padded(a), lambda: blocks.seen(dd), spec.stride)
        da = flat(shift_add(dd, w.taps[::-1, ::-1], 1))
        dz = lax.optimization_barrier(pull(da)[0])
        return blocks.put(dx, dz @ f.kernel.T, i), cross + own.T @ dz, total + sums(dz), taps

    begin: Any = (lax.empty(pixels.shape, x.dtype), jnp.zeros_like(w.expand), zero, jnp.zeros((k * k, blocks.wide), x.dtype))
    dx, cross, total, taps = lax.fori_loop(0, blocks.count, scatter, begin)
    cross, total, taps = summed((cross, total, taps))
    # from here on the matrices are [c, m] or smaller
    scale = f.inverse * ((w.expand * cross).sum(0) - moments.expand_mean * total)
    gain = f.inverse * w.expand_scale
    slope = f.inverse * scale
    dexpand = per_channel(gain, cross) * (cross - mean[:, None] * total[None] - (cov @ w.expand) * per_channel(slope, cross))
    inward = (w.expand * per_channel(gain * slope / inner, w.expand)) @ w.expand.T
    offset = w.expand @ (gain * total / inner) - mean @ inward
    dx = (dx - pixels @ inward - per_channel(offset, pixels)).reshape(x.shape)
    dw = Weights(
        dexpand, scale, total, taps.reshape(w.taps.shape), dscale, dbias, dproject,
        tuple(gate * p for gate, p in zip(w.gates, products, strict=True)), tuple(gate * total_dy for gate in w.gates), dgates,
    )  # fmt: skip
    return dx, dw


blocked.defvjp(_forward, _backward)
