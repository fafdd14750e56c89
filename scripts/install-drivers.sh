#!/usr/bin/env bash
# Installs the Python drivers that tests/it/drivers.rs runs, into target/drivers. Does nothing where they are there.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=tests/drivers/requirements.txt
home=target/drivers
if [ -x $home/bin/python ] && cmp -s $wanted $home/installed.txt; then
    exit 0
fi

# Debian's python3 comes without venv; other interpreters may bring it.
if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    install() {
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install python3 python3-venv </dev/null >/dev/null
    }
    install || { "${as_root[@]}" apt-get -qq update && install; } || {
        echo "error: python3 with venv is missing, and apt-get could not install it" >&2
        exit 3
    }
fi

rm -rf $home
python3 -m venv $home
if ! $home/bin/pip install --quiet --disable-pip-version-check --requirement $wanted; then
    echo "error: the drivers in $wanted could not be installed from PyPI" >&2
    echo "  hint: set PIP_INDEX_URL to a mirror; all other tests run with: cargo test -- --skip drivers" >&2
    exit 3
fi
cp $wanted $home/installed.txt
