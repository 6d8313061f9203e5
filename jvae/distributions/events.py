"""What all distributions share: their interface, sums over events, draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from jvae import keys
from jvae.errors import DataError
from jvae.types import Array, Key, at_least_float32


class Distribution:
    """The base of q(z|x), p(z) and p(x|z): what they may have, with defaults.

    One of another class, with `sample`, `mean` and `log_prob` or `sample_and_log_prob`,
    will do as well: `as_distribution` fills in what it lacks.
    """

    support: ClassVar[str] = ""
    """Of data: 'binary', 'signed', 'levels', 'tokens' or 'real'; '' for any."""
    data_dtypes: ClassVar[tuple[Any, ...]] = ()
    """Kinds of dtypes that data may have, such as `jnp.integer`; () for any."""
    is_discrete: ClassVar[bool] = False
    """Whether `log_prob` is of a probability and not of a density."""
    has_density: ClassVar[bool] = True
    """Whether `log_prob` takes any point, not only `sample_and_log_prob` its draws."""
    is_factorized: ClassVar[bool] = False
    """Whether dimensions are independent, and so have a `log_prob_per_dim`."""
    has_kl_per_dim: ClassVar[bool] = False
    """Whether there is a `kl_per_dim`."""

    num_levels: Any = None
    """Levels of a pixel, an integer, of a distribution over levels."""

    if TYPE_CHECKING:  # fields of some distributions, whose defaults these would be

        @property
        def mean(self) -> Array:
            """The mean, shaped as one draw."""

    @property
    def mode(self) -> Array:
        """The point that stands for it; the mean, unless that is none of its points."""
        return self.mean

    @property
    def is_normalized(self) -> bool:
        """Whether probabilities of data add up to 1."""
        return True

    def log_prob(self, x: Array) -> Array:
        """Returns [B], log p(x) in nats; of independent dimensions the sum."""
        return sum_events(self.log_prob_per_dim(x))

    def log_prob_per_dim(self, x: Array) -> Array:
        """Returns log p(x_d) of every dimension, shaped as x."""
        raise NotImplementedError

    def sample(self, key: Key, n: int | None = None) -> Array:
        """Returns one draw per example, or `n` draws with a leading axis."""
        raise NotImplementedError

    def sample_and_log_prob(self, key: Key) -> tuple[Array, Array]:
        """Returns one draw per example and its log density, [B]."""
        z = self.sample(key)
        return z, self.log_prob(z)

    def sample_and_log_ratio(self, key: Key, other: Any) -> tuple[Array, Array]:
        """Returns one draw z per example and log q(z) - log p(z), [B], p the other."""
        z, log_q = self.sample_and_log_prob(key)
        return z, log_q - other.log_prob(z)

    def kl_per_dim(self, other: Any) -> Array:
        """Returns KL(q || p) of every dimension, [B, ...], p another of its class."""
        raise NotImplementedError

    def kl_to(self, other: Any) -> Array | None:
        """Returns KL(q || p) [B] in closed form, in nats; None where there is none."""
        return sum_events(self.kl_per_dim(other)) if self.has_kl_per_dim else None


def as_distribution(distribution: Any) -> Distribution:
    """Returns a distribution with all that `Distribution` declares."""
    is_one = isinstance(distribution, Distribution)
    return distribution if is_one else _Foreign(distribution)


@flax.struct.dataclass
class _Foreign(Distribution):
    """A distribution of a class that does not derive from `Distribution`."""

    inner: Any

    def __getattribute__(self, name: str) -> Any:
        """Returns what the distribution has itself, else the default."""
        is_asked = name in _MEMBERS and _Foreign._has(self, name)
        return object.__getattribute__(self.inner if is_asked else self, name)

    def _has(self, name: str) -> bool:
        return hasattr(self.inner, name)

    has_density = property(lambda self: self._has("log_prob") and self._has("sample"))
    has_kl_per_dim = property(lambda self: self._has("kl_per_dim"))
    is_factorized = property(lambda self: self._has("log_prob_per_dim"))


_MEMBERS = {"mean", *(n for n in vars(Distribution) if n[0] != "_")}


def data_log_prob(likelihood: Any, x: Array) -> Array:
    """Returns [B], log p(x|z) of data x [B, ...], in nats.

    Raises:
      DataError: data of a dtype that the likelihood is not defined on, such as pixels
        0..255 for one of intensities, of which it would make some number.
    """
    kinds, dtype = as_distribution(likelihood).data_dtypes, jnp.result_type(x)
    if kinds and not any(jnp.issubdtype(dtype, kind) for kind in kinds):
        names = " or ".join(kind.__name__.rstrip("_") for kind in kinds)
        fix = "Give levels, classes or tokens as integers 0, 1, ..."
        if jnp.floating in kinds:
            fix = "Scale pixels, such as by 1/255, or use one of jvae.data.transforms."
        name = type(likelihood).__name__
        raise DataError(f"data must be {names} for {name}, got {dtype}", fix=fix)
    return likelihood.log_prob(x)


def sum_events(terms: Array) -> Array:
    """Returns [B], the sum over all axes but the first, in float32 at least.

    As a product with ones: XLA:CPU fuses a sum with what it sums and then vectorises
    neither (the log density of 2,560 images of 28x28: 50 ms summed, 1.1 ms this way).
    """
    flat = at_least_float32(terms.reshape(terms.shape[0], -1))
    return jnp.dot(flat, jnp.ones(flat.shape[1], flat.dtype), precision="highest")


def flat_noise(sample: Callable[[Key, tuple[int]], Array], key: Key, like: Array):
    """Returns sample(key, shape of `like`) in the dtype of `like`, drawn as a vector.

    `sample` draws in float32 whatever that dtype, so that it gives the same numbers.

    XLA:CPU compiles and runs draws of several dimensions slower: normals for 128
    examples of 32x32x3 take 0.56 s to compile and 3.2 ms, as vectors 0.15 s and 2.1 ms.
    """
    return sample(key, (like.size,)).reshape(like.shape).astype(like.dtype)


def draw(sample: Callable[..., Array], key: Key, n: int | None, *arrays: Any) -> Array:
    """Returns draws of `sample(key_i, *example i of arrays)` for each example i.

    Args:
      sample: draws for one example.
      key: one key, or [B] keys.
      n: None for one draw [B, ...], else [n, B, ...].
      *arrays: pytrees of [B, ...] arrays.
    """
    rows, one_draw = jax.tree.leaves(arrays)[0].shape[0], jax.vmap(sample)
    return draws(lambda each: one_draw(each, *arrays), key, n, rows)


def draws(sample: Callable[[Key], Array], key: Key, n: int | None, rows: int) -> Array:
    """Returns sample(keys [B]), [B, ...], or n such draws, [n, B, ...]."""
    each = keys.per_example(key, rows)
    return sample(each) if n is None else jax.vmap(sample)(keys.split_each(each, n))
