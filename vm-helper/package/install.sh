#!/bin/sh
# Install vm-helper from its unpacked tarball, on systems without dpkg. As root:
#   ./install.sh              install, or upgrade; configuration files that are there are kept
#   ./install.sh --uninstall  remove it, and leave the configuration
set -eu

say() { echo "vm-helper: $*"; }

fail() {
    echo "vm-helper: $*" >&2
    exit 1
}

main() {
    here=$(cd "$(dirname "$0")" && pwd)
    [ "$(id -u)" = 0 ] || fail "run this as root: sudo $0 $*"
    case ${1:-} in
    '') install_all ;;
    --uninstall) uninstall ;;
    *) fail "unknown word $1: nothing installs or upgrades, --uninstall removes" ;;
    esac
}

# Everything but what /etc has, which people may have changed.
program_files() {
    (cd "$here" && find usr ! -type d ! -path 'usr/share/doc/*' | sort)
}

# A configuration file, unless there is one.
keep() {
    [ ! -e "/$2" ] || return 0
    mkdir -p "/$(dirname "$2")"
    install -o 0 -g 0 -m "$3" "$here/$1" "/$2"
}

has_systemd() { [ -d /run/systemd/system ]; }

# Sessions of the program that was replaced or removed end. The Pi opens one with a new program at once,
# and what is attached stays.
end_old_sessions() {
    # The kernel keeps 15 characters of a name.
    # shellcheck disable=SC2013 # these paths have no blanks
    for comm in $(grep -lsxE 'vm-helper|usb-event-handl|usb-boot-attach' /proc/[0-9]*/comm); do
        process=${comm%/comm}
        # One that has ended by itself since then is what is wanted.
        [ "$(readlink "$process/exe")" = '/usr/bin/vm-helper (deleted)' ] || continue
        kill "${process#/proc/}" 2>/dev/null || true
    done
}

# Where systemd-resolved answers mDNS, it announces this machine; it reads what there is to announce when
# it starts.
announce() {
    if timeout 5 resolvectl mdns 2>/dev/null | grep -q '^Link.*: yes'; then
        systemctl try-restart systemd-resolved.service || true
    fi
}

install_all() {
    command -v sudo >/dev/null || fail "sudo is not installed: the Pi's user needs it; install it and try again"
    # Not tried where it lies: there may be no right to run anything.
    cp "$here/usr/bin/vm-helper" /usr/bin/vm-helper.new
    /usr/bin/vm-helper.new --version >/dev/null || {
        rm -f /usr/bin/vm-helper.new
        fail "the program does not run on this processor, $(uname -m): take the other tarball"
    }

    program_files | while read -r file; do
        mkdir -p "/$(dirname "$file")"
        # In one step, also while the old one runs.
        cp -Pp "$here/$file" "/$file.new"
        [ -L "/$file.new" ] || chown 0:0 "/$file.new"
        mv -f "/$file.new" "/$file"
    done
    keep etc/sudoers.d/usbip etc/sudoers.d/usbip 440
    keep etc/avahi/services/usbip-vm.service etc/avahi/services/usbip-vm.service 644
    keep usr/share/usbip-vm-helper/pi.conf etc/usbip/pi.conf 644

    if ! grep -q '^usbip:' /etc/group; then
        groupadd --system usbip 2>/dev/null || addgroup -S usbip ||
            fail "could not make the group usbip"
    fi
    modprobe -q vhci_hcd || true
    ! command -v udevadm >/dev/null || udevadm control --reload || true
    end_old_sessions
    if has_systemd; then
        systemctl daemon-reload
        systemctl enable --quiet usb-boot-attach.service
        systemctl restart usb-boot-attach.service
        announce
        say "installed; remove it with: $0 --uninstall"
    else
        say "installed, but systemd does not run here: have vhci_hcd loaded and usb-boot-attach started at every boot yourself"
    fi
}

# Without the udev rule they would come to lead to other devices.
remove_links() {
    [ -d /dev/usb-pi ] || return 0
    find /dev/usb-pi -type l -exec rm -f {} +
    rmdir /dev/usb-pi || true
}

uninstall() {
    if has_systemd && [ -f /usr/lib/systemd/system/usb-boot-attach.service ]; then
        systemctl disable --now --quiet usb-boot-attach.service || true
    fi
    program_files | while read -r file; do
        rm -f "/$file"
    done
    end_old_sessions
    remove_links
    rm -f /etc/sudoers.d/usbip /etc/avahi/services/usbip-vm.service
    rm -rf /run/usbip-vm /var/lib/usbip-vm
    if has_systemd; then
        systemctl daemon-reload
        announce
    fi
    say "removed; /etc/usbip and the group usbip are still there"
}

main "$@"
