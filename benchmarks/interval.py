"""A mean over seeds as the benchmarks print it."""

from math import sqrt
from statistics import fmean, stdev

from hybrid_sweep.analysis.intervals import student_t


def interval(values):
    """Return the mean with its 95 % interval, Student's t; of one value, just that."""
    mean = fmean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    half = student_t(len(values) - 1) * stdev(values) / sqrt(len(values))
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"
