#!/bin/bash
# Compile otelbpf/native/*.c for each architecture: compile_native.sh [--all]. A library that is newer than its sources is kept.
#
# It uses no C library, so that clang and lld need nothing of the other machine; what clang takes from one (memcpy) is
# found in the process.
set -euo pipefail
cd "$(dirname "$0")/.."
sources=(otelbpf/native/*.c)
objects=otelbpf/native/objects

is_newest() { # LIBRARY
  [ -e "$1" ] || return 1
  for source in "${sources[@]}" otelbpf/native/*.h "$0"; do [ ! "$source" -nt "$1" ] || return 1; done
}

compile() { # MACHINE
  local library=$objects/$1.so
  [ "${all:-}" ] || ! is_newest "$library" || return 0
  mkdir -p "$objects"
  clang --target="$1-linux-gnu" -O2 -Wall -Wextra -Werror -ffreestanding -fPIC -fvisibility=hidden \
    -nostdlib -shared -fuse-ld=lld -Wl,-z,relro,-z,now,-z,noexecstack -o "$library.$$" "${sources[@]}"
  llvm-strip "$library.$$"
  chmod 644 "$library.$$"
  mv "$library.$$" "$library" # at once: an agent may be starting
  echo "compiled $library"
}

[ "${1:-}" != --all ] || all=yes
compile x86_64
compile aarch64
