#!/bin/sh
# Print the first Python that is new enough and can make virtual environments.
for name in ${PYTHON:-} python3.11 python3 python3.12 python3.13; do
  if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    exec "$name" -c 'import sys; print(sys.executable)'
  fi
done
echo "setup: no Python 3.11 or newer with venv; on Debian: apt-get install python3 python3-venv" >&2
exit 1
