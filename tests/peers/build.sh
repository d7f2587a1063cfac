#!/bin/bash
# Build the peers that the tests talk to: build.sh OUT NAME... Needs Go >= 1.25. Every version is pinned here.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd); shift
export GOFLAGS="-buildvcs=false -modcacherw" CGO_ENABLED=0 GOTOOLCHAIN=local
collector() {
  local work; work=$(mktemp -d); cp "$here/otelcol/builder.yaml" "$work/"
  (cd "$work" && go run go.opentelemetry.io/collector/cmd/builder@v0.158.0 --config builder.yaml && mv dist/otelcol "$out/")
  rm -r "$work"
}
build() {
  case $1 in
    otelcol) collector ;;
    *) echo "unknown peer $1" >&2; return 2 ;;
  esac
}
for name; do
  SECONDS=0; build "$name"; echo "$name: $SECONDS s"
done
