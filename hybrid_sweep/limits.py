"""How much of a thing a sweep may have: more is refused in a sentence before it takes hours or the memory."""

POINTS = 100_000
"""Of a sweep, and values of a list: each is checked and hashed first, some thousands a second."""
SEEDS = 10_000
"""Of a point, for each trains a reference first."""
WORKERS = 10_000
"""Of a sweep, for each is a process; and trials of a worker."""
STEPS = 10**9
"""Of a run: eleven days, where a step takes a millisecond."""
FOLDERS = 1000
"""That a sweep learns from, and presets that it begins with."""
TRIES = 10_000
"""Tuning trials of a control and budget: eight times as many runs are listed before the first."""
CHARACTERS = 4_000_000
"""Of a YAML text: twice what the longest list needs, read within seconds."""
PARTS = 1_000_000
"""Values of a YAML text with each alias in full, as a manifest has them."""
LEVELS = 50
"""Of nesting, a quarter of what a reader of JSON takes."""
