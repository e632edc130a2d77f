#!/bin/sh
# Run a sweep on the Ray cluster of this node, or go on with it where its folder is there already, so that a
# job that is started again loses nothing (in a container that is another machine: the folder is trusted):
#   run-sweep.sh FOLDER SWEEP [OPTIONS of hybrid-sweep run]
set -eu
folder=$1
shift
if [ -f "$folder/manifest.json" ]; then
    exec hybrid-sweep resume "$folder" --address auto --trust
fi
exec hybrid-sweep run "$@" --address auto --out "$folder"
