#!/bin/sh
# Pairs this machine with the Raspberry Pi that serves this script: installs vm-helper, and has it do
# the rest. Nothing happens before the last line, so that half a script does nothing.
set -eu

pi='@PI@'
token='@TOKEN@'
version='@VERSION@'

stop() {
    echo "Not paired: $1" >&2
    exit 1
}

main() {
    [ "$(id -u)" = 0 ] || stop 'this needs root; run the line as a user who may use sudo.'
    [ -d /run/systemd/system ] ||
        stop 'systemd does not run here. In a container, run the line on the machine that hosts it.'
    command -v sudo >/dev/null ||
        stop 'sudo is not installed. Install it, for example with: apt-get install sudo'
    ls /etc/ssh/ssh_host_*_key.pub >/dev/null 2>&1 ||
        stop 'no SSH server is installed. Install one, for example with: apt-get install openssh-server'
    case $(uname -m) in
    x86_64) arch=amd64 deb='@AMD64_DEB@' tarball='@AMD64_TARBALL@' ;;
    aarch64) arch=arm64 deb='@ARM64_DEB@' tarball='@ARM64_TARBALL@' ;;
    *) stop "there is no vm-helper for this processor, $(uname -m)." ;;
    esac

    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    if command -v apt-get >/dev/null && command -v dpkg >/dev/null; then
        # One that was removed and not purged has a version as well.
        installed=$(dpkg-query -W -f '${db:Status-Status} ${Version}' usbip-vm-helper 2>/dev/null |
            sed -n 's/^installed //p')
        if [ -n "$installed" ] && dpkg --compare-versions "$installed" gt "$version"; then
            echo "vm-helper $installed is newer than the Pi's and stays."
        else
            fetch "usbip-vm-helper_${version}_$arch.deb" "$deb"
            # apt reads it as a user of its own.
            chmod 755 "$work"
            quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
                -o DPkg::Lock::Timeout=120 -o Dpkg::Options::=--force-confold "$file"
        fi
    else
        fetch "usbip-vm-helper-$version-$arch.tar.gz" "$tarball"
        quietly tar -xzf "$file" -C "$work"
        # Whether or not this folder may have programs.
        quietly sh "${file%.tar.gz}/install.sh"
    fi
    /usr/bin/vm-helper join "http://$pi/join/$token" </dev/null
}

# Fetch a package of this SHA-256 into $file.
fetch() {
    file=$work/$1
    [ -n "$2" ] || stop "the Pi does not have $1."
    echo "Fetching $1"
    curl -fsS --max-time 300 -o "$file" "http://$pi/packages/$1" </dev/null ||
        stop "the Pi did not give out $1. Try again."
    echo "$2  $file" | sha256sum -c - >/dev/null 2>&1 ||
        stop "$1 was changed on its way, or replaced meanwhile. Make a new line in the portal."
}

# Run a command whose output is of interest only when it fails.
quietly() {
    "$@" >"$work/log" 2>&1 </dev/null || {
        cat "$work/log" >&2
        stop "vm-helper was not installed; what went wrong is above."
    }
}

main
