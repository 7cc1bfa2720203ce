#!/bin/bash
# pi.sh WORK OUT : the Pi's root. busybox as init and shell and the few programs of the real image, plus udev, usbip
# and ser2net, which nothing starts: the benchmark's comparisons need them.
set -euo pipefail
here=$(dirname "$0")
# shellcheck source=testbed/image/lib.sh
. "$here/lib.sh"
work=$1 out=$2

say "building the Pi's root (about a minute)"
bootstrap "$work/pi.tar" busybox,libudev1,openssh-client,e2fsprogs,kmod,udev,usbip,ser2net
root=$work/pi
mkdir "$root"
tar -xf "$work/pi.tar" -C "$root"

# busybox is init and sh, and every command that Debian has not installed.
chroot "$root" /bin/busybox --list-full | while read -r applet; do
    [ -e "$root/usr/${applet#usr/}" ] || [ -e "$root/$applet" ] || ln -s /bin/busybox "$root/$applet"
done
ln -sf busybox "$root/bin/sh"
ln -sf ../bin/busybox "$root/sbin/init"
rm -rf "$root"/etc/init.d "$root"/etc/rc?.d "$root"/etc/network "$root"/var/cache/apt "$root"/var/lib/apt/lists
mkdir -p "$root/data"
modules "$work/kernel" "$root" xhci_pci usbip_host usbhid hid_generic usb_storage sd_mod cdc_ether rndis_host asix \
    tls gcm chacha20poly1305 aesni_intel sch_netem usbmon
filesystem "$root" "$out/pi.ext4" 700M root
