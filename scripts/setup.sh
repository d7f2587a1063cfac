#!/bin/bash
# Install what this machine lacks: setup.sh run|test|image|bench|kernels. Quick and silent when nothing is missing.
# Debian and Ubuntu; elsewhere it says what is needed. The virtual environment is the Makefile's.
set -euo pipefail
missing=()

needs() { # PACKAGE TEST...: the package, unless the test succeeds
  local package=$1; shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}

PATH=$PATH:/usr/sbin:/sbin
has() { command -v "$1"; }
has_library() { ldconfig -p | grep -q "$1"; }
has_python() { "$(dirname "$0")/python.sh"; }

needs clang has clang
needs lld has ld.lld
needs llvm has llvm-strip
needs libbpf1 has_library libbpf.so.1
needs libbpf-dev test -e /usr/include/bpf/bpf_helpers.h
needs linux-libc-dev test -e /usr/include/linux/bpf.h
[ "$(uname -m)" = x86_64 ] || needs libatomic1 has_library libatomic.so.1
has_python >/dev/null 2>&1 || missing+=(python3 python3-venv)
if [ "${1:-run}" != run ]; then
  needs bind9-dnsutils has dig
  needs bpftool has bpftool
  needs clang-format has clang-format
  needs dnsmasq-base has dnsmasq
  needs iproute2 has ip
  needs nftables has nft
  needs openssl has openssl
fi
if [ "${1:-run}" = image ]; then
  needs debootstrap has debootstrap
fi
if [ "${1:-run}" = kernels ]; then
  needs e2fsprogs has mke2fs
  needs fdisk has sfdisk
  needs qemu-system-x86 has qemu-system-x86_64
fi
if [ "${1:-run}" = bench ]; then
  needs libbpf-tools has tcplife
fi

if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "setup: missing here: ${missing[*]} (Debian's names); install them, or run this as root on Debian" >&2
    exit 1
  fi
  echo "setup: installing Debian packages: ${missing[*]}; this takes a minute or two"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
fi

# A container or a minimal system may lack them; where mounting is not allowed the agent says what it then cannot see.
mounted() { grep -q " $1 " /proc/self/mounts; }
mount_at() { # TYPE DIRECTORY
  mkdir -p "$2" 2>/dev/null && mount -t "$1" "$1" "$2" 2>/dev/null || echo "setup: cannot mount $1 at $2" >&2
}
if [ "$(id -u)" = 0 ]; then
  mounted '[^ ]* tracefs' || mount_at tracefs /sys/kernel/tracing
  mounted '[^ ]* cgroup2' || mount_at cgroup2 /run/otelbpf/cgroup2
fi
