"""ResourceRequest: the share of a node that a run takes, and how many fit on a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hybrid_sweep.cluster.connection import nodes
from hybrid_sweep.cluster.resume_hint import resume_command
from hybrid_sweep.errors import SweepBroken, UserError
from hybrid_sweep.measure.workload_builder import Device, WorkloadOrder
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.workload import travelling


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRequest:
    """Where the trials of a sweep run: what a worker builds, and the share of a node that it takes."""

    order: WorkloadOrder
    share: dict[str, float]
    own_ray: bool = True

    @classmethod
    def from_spec(cls, spec: SweepSpec, address: str | None) -> ResourceRequest:
        """Choose the device and the share.

        Raises:
            UserError: no node of the cluster has that share.
        """
        gpus = max((node.get("GPU", 0.0) for node in nodes()), default=0.0)
        device: Device = "cuda" if gpus and spec.device != "cpu" else "cpu"
        share = {"cpu": 1.0, "gpu": spec.gpus_per_trial if device == "cuda" else 0.0}
        travel = travelling(spec.workload.name) if address else None
        name = travel[1] if travel else None
        order = WorkloadOrder.from_spec(spec, device, name)
        place = cls(order=order, share=share, own_ray=address is None)
        if spec.device == "cuda" and not gpus:
            raise UserError("device=cuda is not available: Ray sees no GPU; use --device cpu")
        if not place.slots(spec):
            have = ", ".join(f"{n.get('CPU', 0):g} CPU and {n.get('GPU', 0):g} GPU" for n in nodes())
            raise UserError(
                f"a trial takes {share['cpu']:g} CPU and {share['gpu']:g} GPU, and no node has that "
                f"(nodes: {have or 'none'}): lower gpus_per_trial, or add a node"
            )
        return place

    def slots(self, spec: SweepSpec, pack: int = 1) -> int:
        """Count the trials, `pack` of them a worker, that fit on the nodes that are alive.

        They are at most `spec.concurrency`.
        """
        fit = sum(
            min(_shares(node.get(kind.upper(), 0.0), need) for kind, need in self.share.items() if need)
            for node in nodes()
        )
        return min(fit * pack, spec.concurrency or fit * pack)

    def slots_now(self, spec: SweepSpec, pack: int, folder: Path) -> int:
        """Count as `slots` does, while the sweep in `folder` runs.

        Raises:
            SweepBroken: the one node of a Ray that this process has started is gone; no other will come.
        """
        found = self.slots(spec, pack)
        if not found and self.own_ray:
            raise SweepBroken(
                "Ray on this machine has died (its raylet was killed, or memory ran out); what was written "
                f"is kept: go on with `{resume_command(folder)}`"
            )
        return found


def _shares(have: float, need: float) -> int:
    """Return how many shares of at most one device `have` devices hold: none lies across two of them."""
    whole, rest = divmod(have, 1)
    return int(whole) * int(1 / need + 1e-9) + int(rest / need + 1e-9)
