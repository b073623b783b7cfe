#!/bin/sh
# Unpacks an archive of images into a node's containerd store, with a containerd
# that runs on this machine for that purpose only.
# usage: preload.sh FOLDER-OF-PROGRAMS STORE ARCHIVE SCRATCH
set -eu
programs=$1 store=$2 archive=$3 scratch=$4
socket=$scratch/s

mkdir -p "$scratch"
cat >"$scratch/config.toml" <<END
version = 3
root = "$store"
state = "$scratch/state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images",
]
[grpc]
  address = "$socket"
END
"$programs/containerd" -c "$scratch/config.toml" &
daemon=$!

ctr() { "$programs/ctr" -a "$socket" -n k8s.io "$@"; }
tries=0
until ctr version >/dev/null 2>&1; do
  tries=$((tries + 1))
  [ $tries -lt 100 ] || { echo "containerd does not answer on $socket" >&2; exit 1; }
  sleep 0.1
done

ctr images import --local --discard-unpacked-layers --snapshotter overlayfs \
  --label io.cri-containerd.pinned=pinned "$archive"
ctr images ls -q

# The layers' tars are of no more use; wait for the collector to drop them.
tries=0
while [ "$(find "$store/io.containerd.content.v1.content/blobs" -size +1024k | wc -l)" -gt 0 ]; do
  tries=$((tries + 1))
  [ $tries -lt 100 ] || { echo "the collector keeps the layers" >&2; exit 1; }
  sleep 0.1
done
kill $daemon
wait $daemon
