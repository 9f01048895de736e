#!/usr/bin/env bash
# Installs the Debian packages that are missing: `setup.sh run` what building and running needs, `setup.sh test` also what the tests need.
# Does nothing when all are there. On other systems it names what to install.
set -euo pipefail

run_packages="build-essential cmake ninja-build pkg-config libjansson-dev libpcre2-dev libutf8proc-dev libsqlite3-dev libedit-dev
  libinih-dev libstemmer-dev libxxhash-dev libevent-dev libssl-dev libzstd-dev libxml2-dev libcmark-dev libcurl4-openssl-dev uthash-dev ca-certificates python3"
test_packages="libcmocka-dev python3 gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user zstd openssl"
# Tools that other repositories package under other names count when they are there.
command -v node >/dev/null && command -v npm >/dev/null || test_packages="$test_packages nodejs npm"
command -v chromium >/dev/null || test_packages="$test_packages chromium"
command -v promtool >/dev/null || test_packages="$test_packages prometheus"

packages=$run_packages
[ "${1:-run}" = test ] && packages="$run_packages $test_packages"

if ! command -v dpkg-query >/dev/null; then
  echo "setup: this is not a Debian system; please install the equivalents of:" $packages >&2
  exit 0
fi

missing=
for p in $packages; do
  dpkg-query -W -f '${Status}\n' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "setup: these packages are missing and need root to install:$missing" >&2
    exit 1
  fi
  as_root=sudo
fi
echo "setup: installing$missing"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq
$as_root apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 $missing >/dev/null
