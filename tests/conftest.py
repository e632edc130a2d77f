"""For every test: no property test fails because the machine was slow, and none sees the user's cache."""

import os
import tempfile

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

_cache = tempfile.TemporaryDirectory(prefix="hybrid-sweep-cache-")
os.environ["HYBRID_SWEEP_CACHE"] = _cache.name  # before any process is started that inherits it
