#!/bin/bash
# Compile each *.bpf.c for each architecture: compile_bpf.sh [--all]. An object that is newer than its sources is kept.
#
# BTF and CO-RE make an object fit any kernel; the architecture shows in the registers of a function's arguments only,
# so one clang serves both. llvm-strip takes the DWARF away, not the BTF.
set -euo pipefail
cd "$(dirname "$0")/.."
declare -A target=([x86_64]=x86 [aarch64]=arm64) # machine (uname -m) → the kernel's name for it
objects=otelbpf/probes/objects
asm=$(dirname "$(find /usr/include/*-linux-gnu/asm/types.h -maxdepth 0 2>/dev/null | head -1)")
headers=(otelbpf/probes/include/*.bpf.h)

newer_than() { # OBJECT SOURCE...: nothing is newer than the object
  local object=$1 source; shift
  [ -e "$object" ] || return 1
  for source; do [ ! "$source" -nt "$object" ] || return 1; done
}

compile() { # MACHINE SOURCE
  local object; object=$objects/$1/$(basename "$2" .c).o
  [ "${all:-}" ] || ! newer_than "$object" "$2" "${headers[@]}" "$0" || return 0
  mkdir -p "$objects/$1"
  clang -g -O2 -Wall -Werror -target bpf -D__TARGET_ARCH_"${target[$1]}" \
    -I otelbpf/probes/include -I "${asm%/asm}" -c "$2" -o "$object.$$"
  llvm-strip -g "$object.$$"
  mv "$object.$$" "$object" # at once: an agent may be starting
  echo "compiled $object"
}

[ "${1:-}" != --all ] || all=yes
compile_all() { # MACHINE
  for source in otelbpf/*/*.bpf.c; do compile "$1" "$source"; done
}
compile_all x86_64 &
compile_all aarch64
wait $!
