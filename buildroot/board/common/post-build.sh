#!/bin/sh
# Called by Buildroot with the root before it is packed: what is not in overlay/ and would start or be loaded goes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
project=$here/../../..

# The scripts of overlay/ are the only ones that start anything.
for script in "$TARGET_DIR"/etc/init.d/*; do
    [ -e "$project/overlay/etc/init.d/$(basename "$script")" ] || rm -f "$script"
done
rm -rf "$TARGET_DIR/etc/network/if-"*.d "$TARGET_DIR/etc/network/interfaces" "$TARGET_DIR/usr/share/udhcpc"

# Nothing loads modules: what the box needs is built in, and the kernel's configuration is proved to say so.
rm -rf "$TARGET_DIR/lib/modules" "$TARGET_DIR/usr/lib/modules"
"$here/check-kernel-config" "$BUILD_DIR"/linux-*/.config "$here/linux.fragment" "$here/../$2/linux.fragment"

# Read-only, with /data for what lasts and memory for the rest.
mkdir -p "$TARGET_DIR/data" "$TARGET_DIR/boot" "$TARGET_DIR/etc/usbip"
rm -rf "${TARGET_DIR:?}/var"
mkdir "$TARGET_DIR/var"

# The clock of a box never starts before this.
touch -d "@${SOURCE_DATE_EPOCH:-$(date +%s)}" "$TARGET_DIR/etc/build-time"

# What VMs install, from `make packages`.
made=${PACKAGES:-$project/target/packages}
packages=$TARGET_DIR/usr/share/usbip-pi/packages
rm -rf "$packages"
mkdir -p "$packages"
for arch in amd64 arm64; do
    for package in "$made"/usbip-vm-helper[_-]*[_-]"$arch".deb "$made"/usbip-vm-helper[_-]*[_-]"$arch".tar.gz; do
        [ -e "$package" ] || {
            echo "post-build: $package is not there; run 'make packages' first" >&2
            exit 1
        }
        cp "$package" "$packages"
    done
done
