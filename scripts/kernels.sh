#!/bin/bash
# Fetch Debian's kernels and make the system that the guests of tests/kernels run, into a cache outside the tree.
# A kernel is named by its meta package, for the archive drops a version within weeks; packages come from wherever this
# machine's own apt gets them. Takes a minute the first time, and again when a package or requirements.lock changes.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
cd "$(dirname "$0")/.."
cache=${OTELBPF_KERNELS:-${XDG_CACHE_HOME:-$HOME/.cache}/otelbpf-kernels}
declare -A meta=([6.1]=linux-image-cloud-amd64 [6.12]=linux-image-6.12-cloud-amd64)
python=$(.venv/bin/python -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
SYSTEM=("$python-minimal" "lib$python-stdlib" libbpf1 libstdc++6 busybox-static coreutils)
begun=
DISK_ID=07e1b9f0
trap '[ -z "$begun" ] || rm -rf "$begun"' EXIT

apt() { # COMMAND...: of a system where nothing is installed, so that all that is needed is fetched
  "$1" -o Dir::State::status=/dev/null -o Debug::NoLocking=1 -o APT::Sandbox::User=root "${@:2}"
}

image_of() { # META: the package with the kernel that it stands for now
  apt apt-cache depends "$1" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -1
}

unpack() { # PACKAGES DIRECTORY
  local package
  for package in "$1"/*.deb; do dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$2"; done
}

kernel() { # NAME: its vmlinuz and release
  local image
  image=$(image_of "${meta[$1]}")
  case $image in linux-image-"$1".*) ;; *)
    echo "kernels: apt knows no Linux $1 by the name of ${meta[$1]}; Debian 12 with its security archive does" >&2
    exit 1 ;;
  esac
  if [ "$(cat "$cache/$1/package" 2>/dev/null)" = "$image" ]; then return; fi
  echo "kernels: fetching $image"
  begun=$(mktemp -d "$cache/begun.XXXXXX")
  (cd "$begun" && apt apt-get -qq download "$image" && dpkg-deb --fsys-tarfile ./*.deb | tar -x --wildcards './boot/vmlinuz-*')
  mkdir -p "$cache/$1"
  mv "$begun"/boot/vmlinuz-* "$cache/$1/vmlinuz"
  echo "$image" > "$cache/$1/package"
  rm -r "$begun"
}

dependencies() { # as pyproject.toml has them
  .venv/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")'
}

recipe() { # what decides whether the system at hand is the one wanted
  cat scripts/kernels.sh requirements.lock
  dependencies
  apt apt-get install -s --no-install-recommends "${SYSTEM[@]}" | grep ^Inst
}

disk() { # DIRECTORY IMAGE: one partition, as a kernel finds its root by nothing else that does not change from boot to boot
  local mib=$(($(du -sm "$1" | cut -f1) * 5 / 4 + 64))
  truncate -s "$((mib + 1))M" "$2"
  printf 'label: dos\nlabel-id: 0x%s\nstart=2048, type=83\n' "$DISK_ID" | sfdisk -q "$2"
  mke2fs -q -t ext4 -O ^has_journal -m 0 -E offset=1048576 -d "$1" "$2" "${mib}M"
}

system() { # root.disk: python, libbpf, what otelbpf depends on, and a first process that hands over to the tests
  local root wanted
  wanted=$(recipe | sha256sum)
  if [ "$(cat "$cache/root.recipe" 2>/dev/null)" = "$wanted" ]; then return; fi
  echo "kernels: making the guests' system"
  begun=$(mktemp -d "$cache/begun.XXXXXX") root=$begun/root
  mkdir -p "$begun/debs/partial" "$root"/{usr/{bin,sbin,lib,lib64},proc,sys,dev,run,tmp,opt/{site,otelbpf},etc}
  for directory in bin sbin lib lib64; do ln -s "usr/$directory" "$root/$directory"; done
  apt apt-get install -qq -y --no-install-recommends --download-only -o "Dir::Cache::archives=$begun/debs" "${SYSTEM[@]}" >/dev/null
  unpack "$begun/debs" "$root"
  rm -rf "$root"/usr/share/{doc,man,locale,info}
  printf 'root:x:0:0:root:/root:/bin/sh\n' > "$root/etc/passwd"
  dependencies | .venv/bin/pip install -q --disable-pip-version-check -c requirements.lock --target "$root/opt/site" -r /dev/stdin
  cat > "$root/sbin/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
for i in $(/bin/busybox seq 100); do
  /bin/busybox mount -t ext4 -o ro LABEL=project /opt/otelbpf 2>/dev/null && break
  /bin/busybox sleep 0.1
done
exec /bin/busybox sh /opt/otelbpf/tests/kernels/guest/init
INIT
  chmod 755 "$root/sbin/init"
  disk "$root" "$begun/root.disk"
  mv "$begun/root.disk" "$cache/root.disk"
  echo "$wanted" > "$cache/root.recipe"
  rm -rf "$begun"
}

mkdir -p "$cache"
[ "$(image_of "${meta[6.1]}")" ] || apt-get update -qq
for name in "${!meta[@]}"; do kernel "$name"; done
system
