#!/bin/bash
# kernel.sh WORK OUT : fetch the newest Debian kernel of the series the image uses, unpack it to WORK/kernel,
# and write its uncompressed ELF to OUT/vmlinux (QEMU starts that at once; a bzImage unpacks itself first,
# which takes seconds under TCG).
set -euo pipefail
# shellcheck source=testbed/image/lib.sh
. "$(dirname "$0")/lib.sh"
work=$1 out=$2

newest() {
    apt-cache pkgnames "linux-image-$1" |
        grep -E "^linux-image-$1[.0-9+~a-z-]*-amd64\$" |
        grep -vE -- '-(cloud|rt|dbg|unsigned)(-|$)|^linux-image-[0-9]+\.[0-9]+-amd64$' |
        sort -V | tail -n 1
}

package=$(newest 6.12)
[ -n "$package" ] || package=$(newest 6.1.)
[ -n "$package" ] || die "no linux-image-6.12*-amd64 nor linux-image-6.1.*-amd64 package: run 'apt-get update'"

say "fetching $package"
mkdir -p "$work/kernel"
# apt drops its rights to download, so the folder it writes to must be open to it.
fetch=$(mktemp -d)
chmod 755 "$fetch"
(cd "$fetch" && apt-get download -qq -o APT::Sandbox::User=root "$package")
dpkg-deb -x "$fetch"/*.deb "$work/kernel"
rm -r "$fetch"
[ -d "$work/kernel/lib/modules" ] || ln -s usr/lib "$work/kernel/lib"
depmod -b "$work/kernel" "$(basename "$work"/kernel/lib/modules/*)"

# The setup header (Documentation/arch/x86/boot.rst): setup_sects at 0x1f1, payload_offset at 0x248, payload_length at 0x24c.
image=$(echo "$work"/kernel/boot/vmlinuz-*)
field() { od -An -v "-tu$2" -j "$1" -N "$2" "$image" | tr -d ' '; }
start=$((($(field 497 1) + 1) * 512 + $(field 584 4)))
length=$(field 588 4)
payload() { dd if="$image" iflag=skip_bytes,count_bytes skip="$start" count="$1" bs=1M status=none; }
case $(payload 4 | od -An -tx1 | tr -d ' ') in
fd377a58) payload $((length - 4)) | xz -dc --single-stream >"$out/vmlinux" ;; # the last 4 bytes are the size
28b52ffd) payload $((length - 4)) | zstd -qdc >"$out/vmlinux" ;;
1f8b*) payload "$length" | gzip -dc >"$out/vmlinux" ;;
*) die "$image is compressed in a way this script does not know" ;;
esac
[ "$(od -An -tx1 -N 4 "$out/vmlinux" | tr -d ' ')" = 7f454c46 ] || die "$image holds no ELF kernel"
say "kernel $(basename "$work"/kernel/lib/modules/*)"
