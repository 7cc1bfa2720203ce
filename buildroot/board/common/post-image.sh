#!/bin/sh
# Called by Buildroot when root and kernel are there: lays the card out and makes its image. $2 is the board.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
board=$here/../$2

content=$BUILD_DIR/card
rm -rf "$content"
mkdir -p "$content/start" "$content/boot-a" "$content/boot-b"
cp "$BINARIES_DIR/rootfs.squashfs" "$content/root.squashfs"
cp "$board/cmdline.txt" "$content"

case $2 in
raspberrypi)
    # The firmware of the Pi 3 and the Zero 2 W starts from the first partition and wants its config.txt there.
    cp "$BINARIES_DIR/rpi-firmware/bootcode.bin" "$board/autoboot.txt" "$content/start"
    echo "# The settings are in the partition that autoboot.txt names." >"$content/start/config.txt"
    cp "$BINARIES_DIR"/rpi-firmware/*.elf "$BINARIES_DIR"/rpi-firmware/*.dat "$BINARIES_DIR/rpi-firmware/config.txt" \
        "$BINARIES_DIR"/*.dtb "$content/boot-a"
    cp "$BINARIES_DIR/Image.gz" "$content/boot-a/kernel8.img"
    mkdir "$content/boot-a/overlays"
    cp "$BINARIES_DIR"/rpi-firmware/overlays/dwc2.dtbo "$BINARIES_DIR"/rpi-firmware/overlays/overlay_map.dtb \
        "$content/boot-a/overlays"
    ;;
*) cp "$BINARIES_DIR/Image" "$content/boot-a" ;;
esac
"$here/card.sh" "$content" "$BINARIES_DIR"
