#!/bin/bash
# build.sh OUT : everything the two guests start from: vmlinux, initramfs, pi.ext4, vm.ext4. Needs root.
set -euo pipefail
here=$(dirname "$0")
# shellcheck source=testbed/image/lib.sh
. "$here/lib.sh"
out=$1

[ "$(id -u)" = 0 ] || die "building root file systems needs root: run as root or with sudo"
work=$(mktemp -d -p "$out" work.XXXXXX)
trap 'rm -rf "$work"' EXIT
bash "$here/kernel.sh" "$work" "$out"
bash "$here/initramfs.sh" "$work" "$out"
bash "$here/pi.sh" "$work" "$out"
bash "$here/vm.sh" "$work" "$out"
say "done"
