"""A confirmation says how far it is."""

import io
import re
import time

from rich.console import Console

from hybrid_sweep.cli import confirming
from hybrid_sweep.confirm.plan import Progress


def test_a_confirmation_gives_a_sign_of_life_while_a_run_lasts(monkeypatch):
    monkeypatch.setattr(confirming, "SIGN_EVERY_SECONDS", 0.01)
    file = io.StringIO()
    with confirming.ConfirmProgress(Console(file=file)) as progress:
        while not re.search(r"building the workload \(\d+ s so far\)", file.getvalue()):
            time.sleep(0.01)
        progress(Progress(done=3, total=9, next="seed 4, lr_matched"))
        while not re.search(r"3/9 \| seed 4, lr_matched \(\d+ s so far\)", file.getvalue()):
            time.sleep(0.01)
