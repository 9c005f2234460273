"""What a recursion may ask of the scores."""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, Int

from jax_ctc._lattice.log_emissions import LogEmissions


@runtime_checkable
class Emissions(Protocol):
    """What a recursion may ask of the scores; vocabulary and layout stay behind it."""

    @property
    def num_frames(self) -> int:
        """T."""
        ...

    @property
    def bytes_per_frame(self) -> int:
        """Memory of one frame's scores, in the precision they are computed in."""
        ...

    @property
    def scores(self) -> Float[Array, "B T V"]:
        """The array that derivatives are taken with respect to."""
        ...

    @property
    def logit_lengths(self) -> Int[Array, " B"]:
        """Frames that are no padding, within 0..T."""
        ...

    @property
    def time_axes(self) -> tuple[str, ...]:
        """Mesh axes whose devices have a stretch of T frames each; usually none."""
        ...

    def with_scores(self, scores: Float[Array, "B T V"]) -> "Emissions":
        """Return the same emissions, read from other scores."""
        ...

    def unnormalised(self) -> "Emissions":
        """Return the same emissions, whose gradient has no softmax in it."""
        ...

    def read(self, start: Int[Array, ""] | int, size: int) -> LogEmissions:
        """Read frames start .. start + size - 1; those at or past T are padding."""
        ...

    def read_all(self) -> LogEmissions:
        """Read every frame, in a way that JAX differentiates to any order."""
        ...

    def write_gradient(
        self,
        gradient: Float[Array, "B T V"],
        start: Int[Array, ""] | int,
        blank: Float[Array, "K B"],
        label: Float[Array, "K B U"],
        is_alive: Bool[Array, " B"],
    ) -> Float[Array, "B T V"]:
        """Write d loss / d scores of K frames, given their posteriors."""
        ...
