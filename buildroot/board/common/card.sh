#!/bin/sh
# card.sh CONTENT OUT : the card's image, OUT/card.img, from CONTENT/start, boot-a, boot-b and root.squashfs.
# CONTENT/cmdline.txt becomes one per slot, each with its own root. Used by the real build and by the testbed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
content=$1 out=$2

# The disk's signature in genimage.cfg, and the number of the slot's root partition.
for slot in a:05 b:06; do
    mkdir -p "$content/boot-${slot%:*}"
    sed "s/@ROOT@/75736270-${slot#*:}/" "$content/cmdline.txt" >"$content/boot-${slot%:*}/cmdline.txt"
done
cp "$here/usbip-pi.toml.example" "$content/start"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/root" "$work/input"
cp -r "$content/start" "$content/boot-a" "$content/boot-b" "$work/root"
cp "$content/root.squashfs" "$work/input"
genimage --loglevel 0 --config "$here/genimage.cfg" --rootpath "$work/root" --tmppath "$work/tmp" \
    --inputpath "$work/input" --outputpath "$work/output"
mv "$work/output/card.img" "$out/card.img"
