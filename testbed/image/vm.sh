#!/bin/bash
# vm.sh WORK OUT : the VM's root, an ordinary Debian with systemd and an SSH server.
set -euo pipefail
here=$(dirname "$0")
# shellcheck source=testbed/image/lib.sh
. "$here/lib.sh"
work=$1 out=$2

say "building the VM's root (about a minute)"
packages=(
    systemd systemd-sysv systemd-container dbus udev kmod openssh-server openssh-client sudo
    usbip usbutils avrdude iproute2 iputils-ping procps netcat-openbsd curl ca-certificates
)
bootstrap "$work/vm.tar" "$(IFS=, && echo "${packages[*]}")"
root=$work/vm
mkdir "$root"
tar -xf "$work/vm.tar" -C "$root"

chroot "$root" useradd --create-home --uid 1000 --groups dialout --shell /bin/bash dev
install -d -m 700 -o 1000 -g 1000 "$root/home/dev/.ssh"
cp -r "$here"/../guest/vm/. "$root"/

# What a developer's VM has and this one need not wait for at each start.
chroot "$root" systemctl enable --quiet systemd-networkd.service testbed-agent.service
chroot "$root" systemctl mask --quiet \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    getty@tty1.service serial-getty@ttyS0.service systemd-timesyncd.service systemd-pstore.service systemd-firstboot.service \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-random-seed.service \
    systemd-journal-flush.service systemd-journal-catalog-update.service systemd-hwdb-update.service \
    systemd-machine-id-commit.service systemd-logind.service modprobe@loop.service modprobe@dm_mod.service modprobe@configfs.service \
    modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service \
    dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount
modules "$work/kernel" "$root" vhci_hcd xhci_pci usbserial ftdi_sio cp210x ch341 pl2303 cdc_acm usbhid hid_generic usb_storage \
    sd_mod cdc_ether virtio_net virtio_console tls gcm chacha20poly1305 aesni_intel sch_netem usbmon configfs fuse autofs4 \
    nf_tables veth bridge loop
filesystem "$root" "$out/vm.ext4" 2G root
