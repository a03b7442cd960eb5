"""One line that says how training goes, fitted to the width of the terminal.

Three forms of one snapshot: the live line of an epoch that runs, the record that stays when it has ended, and a plain
line for files and pipes. Fields that belong together stand one space apart, groups two. Where the line is too long,
words get shorter, then the bar goes, then the last metrics; a `+2` says how many. The line never wraps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rich.text import Text

from fitstream.spec import format_bytes

__all__ = ["Snapshot", "live_line", "plain_line", "record_line"]

# (width of the bar, long words): from the widest layout to the narrowest.
_LAYOUTS = ((20, True), (10, True), (16, False), (8, False), (0, False))
# A loader that keeps training waiting more than this is worth a look; at more than that, it is what limits training.
_WAITED_NOTABLE, _WAITED_MUCH = 0.05, 0.2


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where training stands.

    Attributes:
        epoch: Counted from 1.
        epochs: The last epoch.
        step: Steps that have ended in this epoch.
        steps: Steps of an epoch, or None where that is not known yet.
        metrics: Losses and metrics by name, as means over the epoch so far; those of validation start with `val_`.
        elapsed_s: Seconds since the epoch began.
        left_s: Seconds until this epoch's last training step, or None where that is not known yet.
        samples_per_s: Samples trained on a second, validation apart; None before the first step has ended.
        waited_share: Share of the training time spent waiting for data, 0 to 1.
        peak_bytes: Most memory that fitstream has used, measured.
        budget_bytes: What the user allows.
        validating: True while validation runs; `step` then counts its steps, and `steps` is None.
    """

    epoch: int
    epochs: int
    step: int
    steps: int | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    elapsed_s: float = 0.0
    left_s: float | None = None
    samples_per_s: float | None = None
    waited_share: float = 0.0
    peak_bytes: int = 0
    budget_bytes: int = 0
    validating: bool = False


def live_line(now: Snapshot, width: int) -> Text:
    """Draw an epoch that runs.

    Args:
        now: Where training stands.
        width: Columns of the terminal.
    Returns:
        One line of at most `width` columns.
    """
    metrics = list(_metrics(now.metrics))
    for bar, wordy in _LAYOUTS:
        line = _join(_live_head(now, bar, wordy), metrics, _feed(now, wordy))
        if line.cell_len <= width:
            return line
    return _squeeze(_live_head(now, 0, False), metrics, _feed(now, False), width)


def record_line(now: Snapshot, width: int) -> Text:
    """Draw an epoch that has ended; `width` as in `live_line`.

    A metric and its value in validation stand together: "loss 0.1234 val 0.1300".
    """
    head = [_head(now), Text(_clock(now.elapsed_s))]
    metrics = list(_paired(now.metrics))
    speed, memory, waited = _feed(now, False)
    for feed in (_feed(now, True), [speed, memory, waited], [speed, waited], [speed], []):
        line = _join(head, metrics, feed)
        if line.cell_len <= width:
            return line
    return _squeeze(head, metrics, [], width)


def plain_line(now: Snapshot) -> str:
    """Write an epoch that has ended for a log file: all metrics by their full names, no colour, however long."""
    parts = [f"Epoch {now.epoch}/{now.epochs}", f"{now.step} steps", f"{now.elapsed_s:.1f}s"]
    parts += [f"{name}: {_number(value)}" for name, value in now.metrics.items()]
    parts += [text.plain for text in _feed(now, True)]
    return " - ".join(parts)


def _head(now: Snapshot) -> Text:
    return Text(f"Epoch {now.epoch}/{now.epochs}", "bold")


def _live_head(now: Snapshot, bar: int, wordy: bool) -> list[Text]:
    if now.validating:
        return [_head(now), Text(f"validating {now.step}", "cyan")]
    if now.steps is None:
        return [_head(now), Text(f"step {now.step}")]
    parts = [_head(now)]
    if bar:
        parts.append(_bar(now.step / now.steps if now.steps else 1.0, bar))
    parts.append(Text(f"{now.step:>{len(str(now.steps))}}/{now.steps}"))
    clock = "-:--" if now.left_s is None else _clock(now.left_s)
    parts.append(Text(f"{clock} left" if wordy else clock, "cyan"))
    return parts


def _bar(share: float, width: int) -> Text:
    done = int(min(share, 1.0) * width)
    return Text.assemble(("━" * done, "green"), ("─" * (width - done), "bright_black"))


def _feed(now: Snapshot, wordy: bool) -> list[Text]:
    """Speed, memory and waiting: what fitstream answers for."""
    if now.samples_per_s is None:
        speed = "-/s"
    else:
        speed = f"{now.samples_per_s:,.0f}" if now.samples_per_s >= 9.95 else f"{now.samples_per_s:.1f}"
        speed += " samples/s" if wordy else "/s"
    waited = now.waited_share
    style = "green" if waited < _WAITED_NOTABLE else "yellow" if waited < _WAITED_MUCH else "bold red"
    return [
        Text(speed, "blue"),
        Text(_used(now.peak_bytes, now.budget_bytes), "magenta"),
        Text(f"{'waited' if wordy else 'wait'} {waited:.0%}", style),
    ]


def _used(used_bytes: int, budget_bytes: int) -> str:
    """Write "45.4/64 MB", or "145 kB/64 MB" where the units differ."""
    used, used_unit = format_bytes(used_bytes).split()
    budget, unit = format_bytes(budget_bytes).split()
    return f"{used}/{budget} {unit}" if used_unit == unit else f"{used} {used_unit}/{budget} {unit}"


def _loss_first(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    """Put the loss in front, so that it is the last to go from a narrow line."""
    return sorted(metrics.items(), key=lambda named: named[0] != "loss")


def _metrics(metrics: Mapping[str, float]) -> Iterator[Text]:
    for name, value in _loss_first(metrics):
        yield Text.assemble((name, "dim"), " ", _number(value))


def _paired(metrics: Mapping[str, float]) -> Iterator[Text]:
    for name, value in _loss_first(metrics):
        if name.startswith("val_") and name[4:] in metrics:
            continue
        text = Text.assemble((name, "dim"), " ", _number(value))
        validated = metrics.get(f"val_{name}")
        if validated is not None:
            text.append(" val ", "dim").append(_number(validated), "bold")
        yield text


def _number(value: float) -> str:
    """Write a metric in at most seven columns where that is possible: "0.1234", "12.346", "1.2e-05"."""
    size = abs(value)
    if size >= 1e5 or 0 < size < 1e-3:
        return f"{value:.1e}"
    if size < 10:
        return f"{value:.4f}"
    return f"{value:.3f}" if size < 100 else f"{value:.1f}"


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _join(*groups: list[Text]) -> Text:
    inner = [Text(" ").join(group) for group in groups if group]
    return Text("  ").join(inner)


def _squeeze(head: list[Text], metrics: list[Text], feed: list[Text], width: int) -> Text:
    for kept in range(len(metrics) - 1, -1, -1):
        line = _join(head, [*metrics[:kept], Text(f"+{len(metrics) - kept}", "dim")], feed)
        if line.cell_len <= width:
            return line
    line = _join(head, feed)
    line.truncate(width)
    return line
