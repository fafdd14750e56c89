#!/usr/bin/env bash
# Installs PostgreSQL 15, HypoPG and a C compiler on Debian or Ubuntu, where they are missing.
#
# Does nothing where all is there. Never leaves a server running: the package's own cluster is not created.
set -euo pipefail

version=15
bin=${PGWEIR_PG_BIN:-/usr/lib/postgresql/$version/bin}

missing=()
if [ ! -x "$bin/postgres" ] || [ ! -x "$bin/initdb" ]; then
    missing+=("postgresql-$version")
fi
if [ ! -e "/usr/share/postgresql/$version/extension/hypopg.control" ] && [ -z "${PGWEIR_PG_BIN:-}" ]; then
    missing+=("postgresql-$version-hypopg")
fi
# The build scripts of two dependencies compile C.
if ! command -v cc >/dev/null; then
    missing+=(gcc libc6-dev)
fi
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi

echo "missing: ${missing[*]}"
if ! command -v apt-get >/dev/null; then
    echo "error: these are not installed, and there is no apt-get here: ${missing[*]}" >&2
    echo "  hint: install PostgreSQL $version and HypoPG your system's way, then set PGWEIR_PG_BIN to the directory of postgres and initdb" >&2
    exit 3
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "error: these are not installed, and this needs root: ${missing[*]}" >&2
        echo "  hint: as root: apt-get install ${missing[*]}" >&2
        exit 3
    fi
    as_root=(sudo)
fi

apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends "$@" </dev/null
}

# The package lists of a fresh machine or image may be empty or old: they are fetched where they do not serve.
install() {
    if ! apt install "$@" >/dev/null 2>&1; then
        apt update
        if ! apt install "$@"; then
            echo "error: apt-get could not install: $*" >&2
            echo "  hint: PostgreSQL $version is Debian 12's; elsewhere add https://wiki.postgresql.org/wiki/Apt first" >&2
            exit 3
        fi
    fi
}

# Debian's package starts a cluster on port 5432 unless told otherwise before; the tests bring their own.
# A machine where this file exists already has its owner's choice in it.
common=/etc/postgresql-common/createcluster.conf
if [ ! -e "$common" ]; then
    install postgresql-common
    "${as_root[@]}" sed -i 's/^#\?create_main_cluster *=.*/create_main_cluster = false/' "$common"
fi

install "${missing[@]}"
