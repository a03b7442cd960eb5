"""What becomes of samples that can't be made: the user's choice, and what is recorded of each.

A sample is bad when a stage fails on it, when it takes longer than the deadline, or when it ends the worker process
that makes it. `"raise"` ends the epoch with its error. `"skip"` shortens its batch and moves no other. `"replace"` puts
another sample of the same pass in its row, drawn by its place in the pass, so that it is the same one each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias, final

from fitstream.errors import PlanError, SampleError

__all__ = ["DEFAULT", "BadSample", "OnBadSample", "Policy"]

OnBadSample: TypeAlias = Literal["raise", "skip", "replace"]

#: Fewer bad samples than this never end an epoch that skips or replaces them.
_FEW = 10


@final
@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of bad samples.

    Args:
        on_bad_sample: "raise", "skip" or "replace".
        max_bad_fraction: Share of a pass's samples above which the epoch fails all the same.
        sample_timeout_s: Seconds that one sample may take, or None for no deadline.
    Raises:
        PlanError: If a value is impossible.
    """

    on_bad_sample: OnBadSample = "raise"
    max_bad_fraction: float = 0.01
    sample_timeout_s: float | None = 300.0

    def __post_init__(self) -> None:
        if self.on_bad_sample not in ("raise", "skip", "replace"):
            raise PlanError(f'on_bad_sample={self.on_bad_sample!r} must be "raise", "skip" or "replace".')
        fraction, timeout_s = self.max_bad_fraction, self.sample_timeout_s
        if not _is_number(fraction) or not 0 <= fraction <= 1:
            raise PlanError(f"max_bad_fraction={fraction!r} must be a share from 0 to 1, such as 0.01.")
        if timeout_s is not None and (not _is_number(timeout_s) or not 0 < timeout_s < float("inf")):
            raise PlanError(f"sample_timeout_s={timeout_s!r} must be seconds above 0, or None for no deadline.")

    def allows(self, bad_count: int, sample_count: int) -> bool:
        """Whether so many bad samples of a pass may be skipped or replaced."""
        return bad_count < _FEW or bad_count <= self.max_bad_fraction * sample_count


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


@final
@dataclass(frozen=True, slots=True)
class BadSample:
    """One sample that was skipped or replaced.

    Attributes:
        index: Its index in the source, or None where a source has none.
        path: The file that holds it, or None.
        reason: Why it is bad.
        stage: What was being done: "read", "decode", "map(<function>)", "batch".
        pass_index: The pass that it was met in.
        step: Its batch in the pass.
        row: Its row in that batch, before any was left out.
        donor_index: Index of the sample in its row instead, or None where it was skipped.
    """

    index: int | None
    path: str | None
    reason: str
    stage: str | None
    pass_index: int
    step: int
    row: int
    donor_index: int | None = None

    @staticmethod
    def of(error: SampleError, pass_index: int, step: int, row: int, donor_index: int | None = None) -> BadSample:
        """Record an error, without its frames, which hold memory."""
        return BadSample(error.index, error.path, error.reason, error.stage, pass_index, step, row, donor_index)

    def __str__(self) -> str:
        what = "A sample" if self.index is None else f"Sample {self.index}"
        where = "" if self.path is None else f" ({self.path})"
        stage = "" if self.stage is None else f" failed in {self.stage}"
        return f"{what}{where}{stage}: {self.reason}"


#: What is done where nothing is said.
DEFAULT = Policy()
