"""For every test: none fails because the machine is slow or a background job, or sees the user's cache."""

import os
import signal
import tempfile

from hypothesis import settings
from support.synthetic_sweep import controlled, empty, grid60, journal, sweep  # noqa: F401, RUF100

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored

_cache = tempfile.TemporaryDirectory(prefix="hybrid-sweep-cache-")
os.environ["HYBRID_SWEEP_CACHE"] = _cache.name  # before any process is started that inherits it
_state = tempfile.TemporaryDirectory(prefix="hybrid-sweep-state-")
os.environ["XDG_STATE_HOME"] = _state.name  # where the key lies that marks folders as this user's
