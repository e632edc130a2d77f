#!/bin/sh
# Start the head of a Ray cluster and stay in the foreground. Settings, all of them environment variables:
#   RAY_AUTH_MODE    token      or disabled, the same on every machine; a token is RAY_AUTH_TOKEN or its file
#   HEAD_PORT        6379       where workers and drivers connect
#   DASHBOARD_HOST   127.0.0.1  where the dashboard and the Jobs server listen; 0.0.0.0 for other machines
#   DASHBOARD_PORT   8265
#   CLIENT_PORT      10001      of ray:// addresses
#   and those of start-worker.sh from AGENT_PORT on
set -eu
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
export RAY_USAGE_STATS_ENABLED=0
ulimit -n 65536 2>/dev/null || true

exec ray start --head --block --disable-usage-stats \
    --port="${HEAD_PORT:-6379}" \
    --dashboard-host="${DASHBOARD_HOST:-127.0.0.1}" \
    --dashboard-port="${DASHBOARD_PORT:-8265}" \
    --ray-client-server-port="${CLIENT_PORT:-10001}" \
    --dashboard-agent-listen-port="${AGENT_PORT:-52365}" \
    --min-worker-port="${MIN_WORKER_PORT:-10002}" \
    --max-worker-port="${MAX_WORKER_PORT:-19999}" \
    --temp-dir="${TEMP_DIR:-/tmp/ray}" \
    ${METRICS_PORT:+--metrics-export-port="$METRICS_PORT"} \
    ${NODE_ADDRESS:+--node-ip-address="$NODE_ADDRESS"} \
    ${NUM_CPUS:+--num-cpus="$NUM_CPUS"} \
    ${NUM_GPUS:+--num-gpus="$NUM_GPUS"} \
    ${OBJECT_STORE_BYTES:+--object-store-memory="$OBJECT_STORE_BYTES"}
