#!/bin/bash
# build.sh OUT : what a card for the testbed is made of: vmlinux, initramfs, and the tree of its root without the files
# of this project. Needs root.
set -euo pipefail
here=$(dirname "$0")
# shellcheck source=testbed/image/lib.sh
. "$here/../image/lib.sh"
out=$1

[ "$(id -u)" = 0 ] || die "building root file systems needs root: run as root or with sudo"
work=$(mktemp -d -p "$out" work.XXXXXX)
trap 'rm -rf "$work"' EXIT
bash "$here/../image/kernel.sh" "$work" "$out"

say "building the card's root"
found=$(sources)
mapfile -t origins <<<"$found"
# Unpacked only: nothing in it is configured or needs to be, and what the image does not have is not there.
mmdebstrap --quiet --mode=root --variant=extract \
    --include=busybox,libudev1,openssh-client,e2fsprogs,fdisk,kmod,nftables,util-linux \
    --dpkgopt='path-exclude=/usr/share/*' --aptopt='APT::Install-Recommends "false"' \
    --aptopt='Acquire::Languages "none"' "$(codename)" "$work/root.tar" "${origins[@]}"
root=$out/root
mkdir "$root"
tar -xf "$work/root.tar" -C "$root"
for name in bin sbin lib lib64; do
    [ -L "$root/$name" ] && continue
    mkdir -p "$root/usr/$name" "$root/$name"
    cp -a "$root/$name/." "$root/usr/$name/"
    rm -r "${root:?}/$name"
    ln -s "usr/$name" "$root/$name"
done
rm -rf "$root"/etc/init.d "$root"/etc/network "${root:?}"/var/* "${root:?}"/usr/share "$root"/usr/lib/systemd
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
mkdir -p "$root"/{data,boot,dev,proc,sys,run,tmp,var,root,etc/usbip}
chroot "$root" /bin/busybox --list-full | while read -r applet; do
    applet=usr/${applet#usr/}
    [ -e "$root/$applet" ] || ln -s /bin/busybox "$root/$applet"
done
ln -sf busybox "$root/usr/bin/sh"
ln -sf ../bin/busybox "$root/usr/sbin/init"
modules "$work/kernel" "$root" xhci_pci usbip_host usbhid hid_generic usb_storage sd_mod ext4 vfat nls_ascii nls_cp437 \
    nf_tables nft_ct nft_limit nf_conntrack i6300esb virtio_net virtio_console virtio_rng

tree=$work/initramfs
mkdir -p "$tree"/{bin,dev,proc,sys,modules,root}
cp /bin/busybox "$tree/bin/busybox"
install -m 755 "$here/init" "$tree/init"
version=$(basename "$work"/kernel/lib/modules/*)
needed=(virtio_pci virtio_blk squashfs)
mkdir -p "$tree/usr/lib"
ln -s usr/lib "$tree/lib"
modules "$work/kernel" "$tree" "${needed[@]}"
for name in "${needed[@]}"; do
    modprobe -d "$tree" -S "$version" --show-depends "$name"
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' | while read -r file; do
    cp "$file" "$tree/modules/"
    basename "$file"
done >"$work/order"
mv "$work/order" "$tree/modules/order"
rm -r "${tree:?}/usr" "${tree:?}/lib"
(cd "$tree" && find . | cpio -o -H newc -R 0:0 --quiet | gzip -1) >"$out/initramfs"
say "done"
