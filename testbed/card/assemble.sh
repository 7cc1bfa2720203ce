#!/bin/bash
# assemble.sh PARTS PAYLOAD OUT : a card, OUT/card.img of 512 MiB, as a person would have it after flashing: the root of
# PARTS with the files of PAYLOAD (a cpio archive), laid out by the files that lay out the real one.
set -euo pipefail
parts=$1 payload=$2 out=$3
common=$(dirname "$0")/../../buildroot/board/common

content=$(mktemp -d -p "$out" content.XXXXXX)
trap 'rm -rf "$content"' EXIT
mkdir "$content/start" "$content/boot-a"
cp -a "$parts/root" "$content/root"
(cd "$content/root" && cpio -idmu --quiet) <"$payload"
# What the image says of its own time.
touch -d @1750000000 "$content/root/etc/build-time"
mksquashfs "$content/root" "$content/root.squashfs" -comp zstd -Xcompression-level 1 -no-progress -quiet
echo 'root=PARTUUID=@ROOT@' >"$content/cmdline.txt"
cp "$parts/vmlinux" "$content/boot-a"
"$common/card.sh" "$content" "$out"
truncate -s 512M "$out/card.img"
