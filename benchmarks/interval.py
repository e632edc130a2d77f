"""A mean over seeds as the benchmarks print it."""

from statistics import fmean

from hybrid_sweep.analysis.intervals import half_width


def interval(values):
    """Return the mean with its 95 % interval, Student's t; of one value, just that."""
    mean, half = fmean(values), half_width(values)
    return f"{mean:.3f}" if len(values) < 2 else f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"
