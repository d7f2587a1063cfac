#!/bin/bash
# Install otelbpf into a directory that can be copied to another machine at the same path: install.sh DIRECTORY
# Needs what builds it (clang, lld, llvm, libbpf-dev, Python with venv); the result needs Python and libbpf1.
set -euo pipefail
to=$1
cd "$(dirname "$0")/.."
wheels=$(mktemp -d)
trap 'rm -r "$wheels"' EXIT
export PIP_QUIET=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
pip() { "$to/bin/python" -m pip "$@"; }

"$(scripts/python.sh)" -m venv "$to"
pip wheel --no-deps --wheel-dir "$wheels" .
pip install --constraint requirements.lock "$wheels"/*.whl # compiles to bytecode: the root file system will be read-only

# What only installs, tests or describes to a compiler, and Kubernetes' client once more for asyncio: a third of it.
pip uninstall --yes pip setuptools
packages=("$to"/lib/python3.*/site-packages)
find "${packages[@]}" -depth -type d \( -name tests -o -name test -o -name include \) -exec rm -r {} +
find "${packages[@]}" \( -name '*.pyi' -o -name '*.c' -o -name '*.h' -o -name '*.pxd' -o -name '*.a' \) -delete
rm -r "${packages[@]/%//kubernetes/aio}"
