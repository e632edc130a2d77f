#!/bin/sh
# Wait for the head of a Ray cluster, join it and stay in the foreground. Settings, all environment variables:
#   RAY_AUTH_MODE       token       or disabled, as the head has it
#   HEAD_ADDRESS                    host:port of the head; else RAY_ADDRESS (KubeRay sets it), 127.0.0.1:6379
#   RETRY_SECONDS       2           pause between two tries
#   AGENT_PORT          52365       of this node's agent; one of its own for each node of a machine
#   MIN_WORKER_PORT     10002       first and last port of Ray's worker processes; 0 and 0 take any
#   MAX_WORKER_PORT     19999
#   TEMP_DIR            /tmp/ray    short, local, and one of its own for each node of a machine
#   METRICS_PORT                    fixed port of the Prometheus metrics
#   NODE_ADDRESS                    IP address of this node, where Ray finds the wrong one
#   NUM_CPUS, NUM_GPUS              what this node offers, where Ray counts wrong
#   OBJECT_STORE_BYTES              memory of the object store
set -eu
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
export RAY_USAGE_STATS_ENABLED=0
ulimit -n 65536 2>/dev/null || true

command -v ray >/dev/null || { echo "no ray on the PATH: activate its environment" >&2; exit 127; }
head="${HEAD_ADDRESS:-${RAY_ADDRESS:-127.0.0.1:6379}}"
until answer=$(ray health-check --address "$head" 2>&1); do
    echo "waiting for a head at $head: $(echo "$answer" | tail -n 1)"
    sleep "${RETRY_SECONDS:-2}"
done

exec ray start --address="$head" --block --disable-usage-stats \
    --dashboard-agent-listen-port="${AGENT_PORT:-52365}" \
    --min-worker-port="${MIN_WORKER_PORT:-10002}" \
    --max-worker-port="${MAX_WORKER_PORT:-19999}" \
    --temp-dir="${TEMP_DIR:-/tmp/ray}" \
    ${METRICS_PORT:+--metrics-export-port="$METRICS_PORT"} \
    ${NODE_ADDRESS:+--node-ip-address="$NODE_ADDRESS"} \
    ${NUM_CPUS:+--num-cpus="$NUM_CPUS"} \
    ${NUM_GPUS:+--num-gpus="$NUM_GPUS"} \
    ${OBJECT_STORE_BYTES:+--object-store-memory="$OBJECT_STORE_BYTES"}
