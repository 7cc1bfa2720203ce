#!/bin/bash
# initramfs.sh WORK OUT : busybox, our init and the modules needed to reach the root, for both guests.
set -euo pipefail
here=$(dirname "$0")
# shellcheck source=testbed/image/lib.sh
. "$here/lib.sh"
work=$1 out=$2

tree=$work/initramfs
mkdir -p "$tree"/{bin,dev,proc,sys,modules,lower,upper,root}
cp /bin/busybox "$tree/bin/busybox"
install -m 755 "$here/init" "$tree/init"

version=$(basename "$work"/kernel/lib/modules/*)
needed=(virtio_pci virtio_blk virtio_net virtio_console virtio_rng ext4 overlay)
for name in "${needed[@]}"; do
    modprobe -d "$work/kernel" -S "$version" --show-depends "$name"
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' | while read -r file; do
    name=$(basename "$file")
    case $name in
    *.xz) name=${name%.xz} && xz -dc "$file" >"$tree/modules/$name" ;;
    *.zst) name=${name%.zst} && zstd -qdc "$file" >"$tree/modules/$name" ;;
    *) cp "$file" "$tree/modules/$name" ;;
    esac
    echo "$name"
done >"$work/order"
mv "$work/order" "$tree/modules/order"
(cd "$tree" && find . | cpio -o -H newc -R 0:0 --quiet | gzip -1) >"$out/initramfs"
