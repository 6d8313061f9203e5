"""Directions: the von Mises-Fisher distribution and the uniform one on a sphere.

The density is with respect to the area of the unit sphere in d dimensions,

  p(z) = C_d(kappa) exp(kappa <z, mu>),
  log C_d(kappa) = log C_d(0) - log F(d/2, kappa^2/4),  C_d(0) = 1 / area,

with F(b, x) = sum_k x^k / (k! (b)_k), the hypergeometric 0F1: the Bessel function of
the usual form, I_v(kappa) = (kappa/2)^v / Gamma(v + 1) F(v + 1, kappa^2/4), without the
factors that cancel, so nothing is lost as kappa goes to 0. The concentration is a
number, not an array: its constants are float64, by NumPy, when a program is traced.

Fisher, 1953; Mardia & Jupp, Directional Statistics, 2000, section 9.3; as latents:
Davidson et al., 2018, https://arxiv.org/abs/1804.00891; Xu & Durrett, 2018,
https://arxiv.org/abs/1808.10805; Su, 2021, https://kexue.fm/archives/8404.
"""

from __future__ import annotations

import functools
import math

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jvae.distributions.events import Distribution, draw
from jvae.errors import require
from jvae.types import Array, Key, at_least_float32, float_dtype

NUM_ANGLES = 8192
"""Nodes of the table of angles. The distribution function is exact at each of them and
within 1e-6 of it between them, some 16 steps of a float32 uniform draw."""
MAX_CONCENTRATION = 1e5
"""Above it a distribution is narrower than float32 coordinates can show."""


def check_dim(dim: int) -> None:
    """Raises ConfigError unless dim >= 2."""
    require(dim >= 2, "dim of a sphere", "be at least 2", dim)


@functools.lru_cache(maxsize=64)
def _log_normalizer_ratio(dim: int, kappa: float) -> float:
    """Returns log C_d(0) - log C_d(kappa), which is 0 at kappa = 0 and grows.

    It is log sum_k (kappa^2/4)^k / (k! (b)_k), b = d/2; every term is positive.
    """
    b = 0.5 * dim
    # Terms relative to the largest, outwards from it: summed from k = 0, the rounding
    # of logarithms as large as kappa would add up.
    peak = round(0.5 * (math.hypot(b - 1.0, kappa) - b + 1.0))
    log_peak = (
        2.0 * peak * math.log(0.5 * kappa)
        - math.lgamma(peak + 1.0)
        - (math.lgamma(b + peak) - math.lgamma(b))
    )
    # 20 standard deviations (and 60 more for small kappa) on, terms are below 1e-40.
    width = int(20.0 * math.sqrt(kappa)) + 60
    k = np.arange(max(peak - width, 0) + 1.0, peak + width)
    steps = 2.0 * math.log(0.5 * kappa) - np.log(k) - np.log(b + k - 1.0)
    above = np.cumsum(steps[k > peak])
    below = np.cumsum(-steps[k <= peak][::-1])
    return log_peak + math.log1p(np.exp(above).sum() + np.exp(below).sum())


def log_area(dim: int) -> float:
    """Returns the log of the area of the unit sphere in `dim` dimensions, in nats."""
    return math.log(2.0) + 0.5 * dim * math.log(math.pi) - math.lgamma(0.5 * dim)


@functools.lru_cache(maxsize=64)
def mean_length(dim: int, kappa: float) -> float:
    """Returns A = |E z| = I_{d/2}(kappa) / I_{d/2-1}(kappa), within (0, 1).

    Args:
      dim: d, of the space around the sphere.
      kappa: the concentration.
    """
    # The recurrence of the ratios r_v = I_{v+1} / I_v, downwards, where it is stable.
    ratio = 0.0
    for j in range(int(kappa) + 100, 0, -1):
        ratio = 1.0 / (2.0 * (0.5 * dim - 1.0 + j) / kappa + ratio)
    return ratio


@functools.lru_cache(maxsize=16)
def angle_table(dim: int, kappa: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns ([N] distribution function, [N] angles) of the angle of z to its mean.

    The angle has the density exp(kappa cos t) sin(t)^(d-2), smooth for every d >= 2,
    where that of cos t, exp(kappa w) (1 - w^2)^((d-3)/2), has poles at both ends for
    d = 2. Integrated in float64 by the Gauss-Legendre rule between the nodes.

    Args:
      dim: d, of the space around the sphere.
      kappa: the concentration.
    """
    m = dim - 2.0
    cosine = (math.hypot(m, 2.0 * kappa) - m) / (2.0 * kappa)  # of the mode
    if kappa < 1e-6 * m:  # where that cancels
        cosine = kappa / m
    mode = math.acos(min(cosine, 1.0))
    curvature = kappa * cosine + (m / math.sin(mode) ** 2 if m else 0.0)
    reach = 12.0 / math.sqrt(curvature)
    angles = np.linspace(max(mode - reach, 0.0), min(mode + reach, math.pi), NUM_ANGLES)
    points, weights = np.polynomial.legendre.leggauss(5)
    half = 0.5 * np.diff(angles)[:, None]
    t = angles[:-1, None] + half * (1.0 + points)
    log_density = kappa * (np.cos(t) - math.cos(mode))
    if m:
        log_density += m * np.log(np.sin(t) / math.sin(mode))
    mass = (half * weights * np.exp(log_density)).sum(1)
    cdf = np.concatenate([[0.0], np.cumsum(mass)])
    return cdf / cdf[-1], angles


def _tangent(key: Key, mean: Array) -> Array:
    """Returns a uniform unit vector orthogonal to the unit vector `mean` [d].

    In its gradient the vector is carried along as the mean moves (parallel transport, a
    rotation, so it stays uniform). The gradient of a projected and normalised Gaussian
    has the same mean, but grows as 1 / |projection|, with a variance that is infinite
    for d = 3. First derivatives only.
    """
    side = jax.random.normal(key, mean.shape, jnp.float32).astype(mean.dtype)
    for _ in range(2):  # the second round removes what the first one's rounding left
        side -= jnp.dot(side, mean, precision="highest") * mean
        side /= jnp.maximum(jnp.linalg.norm(side), 1e-30)
    side = jax.lax.stop_gradient(side)
    return side - jnp.dot(side, mean, precision="highest") * mean


@flax.struct.dataclass
class VonMisesFisher(Distribution):
    """Directions around `mean_direction`, p(z) = C exp(concentration <z, mean>).

    Attributes:
      mean_direction: [B, d] unit vectors, d >= 2.
      concentration: kappa, a positive number, the same for all examples.
    """

    mean_direction: Array
    concentration: float = flax.struct.field(pytree_node=False)

    @property
    def dim(self) -> int:
        """Coordinates of the space around the sphere, d."""
        return self.mean_direction.shape[-1]

    def _checked(self) -> tuple[int, float]:
        chex.assert_rank(self.mean_direction, 2)
        check_dim(self.dim)
        dim, kappa = self.dim, self.concentration
        rule = f"be within (0, {MAX_CONCENTRATION:.0f}]"
        require(0.0 < kappa <= MAX_CONCENTRATION, "concentration", rule, kappa)
        return dim, kappa

    @property
    def mean(self) -> Array:
        """E z, [B, d]: the mean direction, shortened; not on the sphere."""
        return mean_length(*self._checked()) * self.mean_direction

    @property
    def mode(self) -> Array:
        """The point of the highest density, [B, d]: the mean direction."""
        return self.mean_direction

    def sample(self, key: Key, n: int | None = None) -> Array:
        """Returns unit vectors, [B, d] or [n, B, d]; differentiable once.

        Exact but for the table (see `NUM_ANGLES`), for any dimension >= 2.
        """
        cdf, angles = (
            jnp.asarray(a, jnp.float32) for a in angle_table(*self._checked())
        )

        def sample(key, mean):
            angle_key, side_key = jax.random.split(key)
            uniform = jax.random.uniform(angle_key, dtype=jnp.float32)
            angle = jnp.interp(uniform, cdf, angles).astype(mean.dtype)
            return jnp.cos(angle) * mean + jnp.sin(angle) * _tangent(side_key, mean)

        return draw(sample, key, n, at_least_float32(self.mean_direction))

    def log_prob(self, z: Array) -> Array:
        """Returns [B], the log density at unit vectors z [B, d] in nats."""
        chex.assert_equal_shape([z, self.mean_direction])
        dim, kappa = self._checked()
        at_mode = kappa - _log_normalizer_ratio(dim, kappa) - log_area(dim)
        cosine = jnp.einsum("bd,bd->b", z, self.mean_direction, precision="highest")
        # Relative to the mode, as kappa and the normaliser cancel to a small number.
        return at_mode + kappa * (at_least_float32(cosine) - 1.0)

    def entropy(self) -> Array:
        """Returns [B], the differential entropy on the sphere in nats."""
        dim, kappa = self._checked()
        return _constant(log_area(dim) - _kl(dim, kappa), self.mean_direction)

    def kl_to(self, other: VonMisesFisher | UniformOnSphere) -> Array | None:
        """Returns [B], KL(self || other) in closed form; None for another kind.

        To the uniform distribution it is a constant, kappa A - log F(d/2, kappa^2/4).
        """
        dim, kappa = self._checked()
        if isinstance(other, UniformOnSphere):
            return _constant(_kl(dim, kappa), self.mean_direction)
        if not isinstance(other, VonMisesFisher):
            return None
        pair = (self.mean_direction, other.mean_direction)
        cosine = jnp.einsum("bd,bd->b", *pair, precision="highest")
        k = other.concentration
        constant = _kl(dim, kappa) + _log_normalizer_ratio(*other._checked())
        return constant - mean_length(dim, kappa) * k * cosine


def _constant(value: float, like: Array) -> Array:
    """Returns a number for each row of `like` [B, d], in its precision."""
    return jnp.full(like.shape[0], value, float_dtype(like))


def _kl(dim: int, kappa: float) -> float:
    """Returns KL(vMF || uniform) = kappa A + log C_d(kappa) - log C_d(0) in nats."""
    return kappa * mean_length(dim, kappa) - _log_normalizer_ratio(dim, kappa)


@flax.struct.dataclass
class UniformOnSphere(Distribution):
    """Uniform on the unit sphere in `dim` dimensions, for each of `num_examples`."""

    num_examples: int = flax.struct.field(pytree_node=False)
    dim: int = flax.struct.field(pytree_node=False)

    @property
    def mean(self) -> Array:
        """The centre of the sphere, [B, d]."""
        return jnp.zeros((self.num_examples, self.dim), jnp.float32)

    def sample(self, key: Key, n: int | None = None) -> Array:
        """Returns unit vectors, [B, d] or [n, B, d]."""
        check_dim(self.dim)

        def sample(key, like):
            z = jax.random.normal(key, like.shape, jnp.float32)
            return z / jnp.linalg.norm(z)

        return draw(sample, key, n, self.mean)

    def log_prob(self, z: Array) -> Array:
        """Returns [B], minus the log of the sphere's area, whatever z [B, d]."""
        check_dim(self.dim)
        chex.assert_shape(z, (None, self.dim))
        return _constant(-log_area(self.dim), z)

    def entropy(self) -> Array:
        """Returns [B], the log of the sphere's area in nats."""
        return -self.log_prob(self.mean)


def slerp(start: Array, end: Array, fraction: Array) -> Array:
    """Returns points on the shorter great circle from start to end, of equal speed.

    Shoemake, 1985. Between opposite points, where every great circle is as short, it
    goes nowhere and then jumps.

    Args:
      start: [..., d] unit vectors.
      end: unit vectors that broadcast against `start`.
      fraction: from 0 at start to 1 at end; broadcasts against [..., 1].
    """
    cosine = (start * end).sum(-1, keepdims=True)
    side = end - cosine * start
    sine = jnp.linalg.norm(side, axis=-1, keepdims=True)
    angle = jnp.arctan2(sine, cosine)
    side = side / jnp.maximum(sine, 1e-12)
    return jnp.cos(fraction * angle) * start + jnp.sin(fraction * angle) * side


def arc(start: Array, end: Array, fraction: Array) -> Array:
    """Returns points whose directions go along `slerp` and whose lengths on the line.

    Between two draws of N(0, I) in many dimensions, whose lengths are nearly the same,
    the points are as long as they; those of the straight line are shorter.

    Args:
      start: [..., d], not 0.
      end: vectors that broadcast against `start`.
      fraction: from 0 at start to 1 at end; broadcasts against [..., 1].
    """
    lengths = [jnp.linalg.norm(a, axis=-1, keepdims=True) for a in (start, end)]
    units = [
        a / jnp.maximum(n, 1e-12) for a, n in zip((start, end), lengths, strict=True)
    ]
    length = (1.0 - fraction) * lengths[0] + fraction * lengths[1]
    return length * slerp(units[0], units[1], fraction)
