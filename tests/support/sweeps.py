"""Sweeps that train nothing: what a configuration is worth is a formula, and what goes wrong is drawn."""

import json

from hybrid_sweep.search.space import config_hash
from hybrid_sweep.search.study import Study
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.store.journal import plain

STEPS = 900
SPACE = {
    "max_predict_steps": {"low": 20, "high": 300},
    "correction_interval": [0, 5, 10, 15, 20],
    "confidence_threshold": {"low": 0.3, "high": 0.95},
    "divergence_threshold": {"low": 1.5, "high": 6.0, "log": True},
}
CONDITIONAL = {
    "gates": ["learned", "off", "original"],
    "max_predict_steps": {"low": 20, "high": 300},
    "minimum_cosine": {"low": -0.9, "high": 0.9, "step": 0.3, "when": {"gates": ["learned", "original"]}},
    "predictor_hidden_size": {"values": [8, 16, 32], "when": {"gates": ["learned"]}},
}


def sweep(**settings):
    return SweepSpec(**{"name": "x", "workload": "a.b:C", "space": SPACE, **settings})


def worth(config, seed=0):
    """Speedup and quality of a configuration; more of one is less of the other."""
    horizon, threshold = config.get("max_predict_steps", 80), config.get("confidence_threshold", 0.85)
    extra = config.get("divergence_threshold", 3.0) / 500 + config.get("minimum_cosine", 0.0) / 50
    speedup = 1 + horizon / 200 * (1.2 - threshold) + seed / 100
    return speedup, 1 - horizon / 3000 - (1 - threshold) ** 2 / 9 + extra


def result(config, seed=0, **changes):
    speedup, quality = worth(config, seed)
    columns = {"speedup_counted": speedup, "quality": quality, "warning_rate": 0.01}
    return {**columns, "behaviour": config_hash(config)[:8], **changes}


def report(config, step, seed=0, warmup=100):
    """A report that comes nearer to the worth as the run goes on."""
    speedup, quality = worth(config, seed)
    predicted = max(step - warmup, 0) // 2
    return {
        "step": step,
        "phase": "correct",
        "speedup_counted": 1 + (speedup - 1) * step / STEPS,
        "quality": 1 - (1 - quality) * step / STEPS,
        "backward_calls": step - predicted,
    }


class Session:
    """Plays a driver: several runs at once, in an order that `rng` draws; keeps the journal."""

    def __init__(self, spec, rng, slots=4, troubles=0.2, on_told=None):
        self.study = Study(spec, "id", STEPS, on_told=on_told)
        self.spec, self.rng, self.slots, self.troubles = spec, rng, slots, troubles
        self.events, self.runs, self.waiting, self.configs = [], {}, [], {}

    def write(self, kind, key, **fields):
        self.note({"event": kind, "trial_id": key[0], "seed": key[1], **fields})

    def note(self, event):
        self.events.append(json.loads(json.dumps(plain(event))))

    def run(self):
        """Run to the end of the budget; return the events."""
        while self.step():
            pass
        return self.events

    def step(self):
        if len(self.runs) < self.slots and self.rng.random() < 0.6 and self.start():
            return True
        if self.runs:
            self.advance(self.rng.choice(sorted(self.runs)))
            return True
        return self.start()

    def start(self):
        while not self.waiting:
            asked = self.study.ask()
            if asked is None:
                return False
            self.note(asked.event())
            self.configs[asked.point.trial_id] = asked.point.config
            self.waiting = [(asked.point.trial_id, seed) for seed in self.spec.seeds]
        key = self.waiting.pop(0)
        if self.study.wants(key[0]):
            self.write("started", key, config=self.configs[key[0]], attempt=1)
            self.runs[key] = 0
        return True

    def advance(self, key):
        config = self.configs[key[0]]
        if self.rng.random() < 0.1:
            self.runs[key] = max(self.runs[key] - 200, 0)  # lost, and again from a checkpoint
            return
        self.runs[key] += self.rng.randrange(80, 400)
        if self.runs[key] < STEPS:
            now = report(config, self.runs[key], key[1])
            self.write("reported", key, report=now)
            if self.study.report(key, now):
                self.end(key, "pruned", "early", result(config, key[1], steps=self.runs[key]))
            return
        if self.rng.random() > self.troubles:
            self.end(key, "done", "", result(config, key[1]))
            return
        faults = [{"quality": float("nan")}, {"speedup_counted": float("inf")}, {"warning_rate": None}]
        changes = self.rng.choice(faults)
        state = self.rng.choice(["failed", "diverged", "done"])
        self.end(key, state, "trouble", {} if state == "failed" else result(config, key[1], **changes))
        if state == "failed" and self.rng.random() < 0.5:
            self.write("retried", key)
            self.study.retry(key)
            self.runs[key] = 0

    def end(self, key, state, reason, values):
        del self.runs[key]
        self.write("finished", key, state=state, reason=reason, result=values)
        self.study.finish(key, state, reason, values)
