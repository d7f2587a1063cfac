#!/bin/bash
# Build the peers that the tests talk to: build.sh OUT NAME... Needs Go >= 1.26.5.
# Every version is pinned here, or by the go.mod and go.sum beside this file. Each has a module of its own: one for all
# would force common versions of gRPC and of Kubernetes' client on them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd); shift
export GOFLAGS="-buildvcs=false -modcacherw" CGO_ENABLED=0 GOTOOLCHAIN=local
k8s=k8s.io/component-base/version
k8s_version="-X $k8s.gitVersion=v1.36.3 -X $k8s.gitMajor=1 -X $k8s.gitMinor=36"
h=helm.sh/helm/v3
helm_version="-X $h/internal/version.version=v3.22.0" # and the version of Kubernetes for which it renders without a server:
for package in chartutil lint/rules; do
  helm_version+=" -X $h/pkg/$package.k8sVersionMajor=1 -X $h/pkg/$package.k8sVersionMinor=36"
done
collector() {
  local work; work=$(mktemp -d); cp "$here/otelcol/builder.yaml" "$work/"
  (cd "$work" && go run go.opentelemetry.io/collector/cmd/builder@v0.158.0 --config builder.yaml && mv dist/otelcol "$out/")
  rm -r "$work"
}
module() { # DIRECTORY NAME PACKAGE [LDFLAGS [TAGS]]
  (cd "$here/$1" && go build -trimpath -tags "${5:-}" -ldflags "-s -w ${4:-}" -o "$out/$2" "$3")
}
build() {
  case $1 in
    otelcol) collector ;;
    etcd) module k8s etcd go.etcd.io/etcd/server/v3 ;;
    kube-apiserver | kubectl) module k8s "$1" "k8s.io/kubernetes/cmd/$1" "$k8s_version" ;;
    helm) module helm helm helm.sh/helm/v3/cmd/helm "$helm_version" ;;
    loki) module loki loki github.com/grafana/loki/v3/cmd/loki ;;
    prometheus) module prometheus prometheus github.com/prometheus/prometheus/cmd/prometheus "" remove_all_sd ;;
    *) echo "unknown peer $1" >&2; return 2 ;;
  esac
}
for name; do
  SECONDS=0; build "$name"; echo "$name: $SECONDS s"
done
