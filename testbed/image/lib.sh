# shellcheck shell=bash
# Shared by the scripts that build the images. Sourced, never run.

say() {
    printf 'image: %s\n' "$*" >&2
}

die() {
    printf 'image: %s\n' "$*" >&2
    exit 1
}

# The release this host runs, which the guests run as well: the agent is built here and runs there.
codename() {
    # shellcheck source=/dev/null
    . /etc/os-release
    printf '%s\n' "${VERSION_CODENAME:?this host names no release in \/etc\/os-release}"
}

# The host's own package sources for that release, and no third party's.
sources() {
    local name found
    name=$(codename)
    # grep also fails when one of the places does not exist, which is normal.
    found=$(grep -lsE "(^|[[:space:]])$name([[:space:]/-]|\$)" \
        /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources) || true
    [ -n "$found" ] || die "no package source for $name in /etc/apt"
    printf '%s\n' "$found"
}

# bootstrap OUT.tar PACKAGE,PACKAGE... : a small root with these packages.
bootstrap() {
    local out=$1 packages=$2 list
    list=$(sources)
    mapfile -t list <<<"$list"
    mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --aptopt='Acquire::Languages "none"' \
        --aptopt='APT::Install-Recommends "false"' \
        "$(codename)" "$out" "${list[@]}"
}

# modules KERNEL ROOT NAME... : these modules and what they need, decompressed, with their index.
modules() {
    local kernel=$1 root=$2 version out file inner
    shift 2
    version=$(basename "$kernel"/lib/modules/*)
    out=$root/usr/lib/modules/$version
    mkdir -p "$out"
    cp "$kernel/lib/modules/$version"/modules.{builtin,order,builtin.modinfo} "$out"
    for name in "$@"; do
        modprobe -d "$kernel" -S "$version" --show-depends "$name"
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u | while read -r file; do
        inner=${file#*/lib/modules/"$version"/}
        mkdir -p "$out/$(dirname "$inner")"
        case $file in
        *.xz) xz -dc "$file" >"$out/${inner%.xz}" ;;
        *.zst) zstd -qdc "$file" >"$out/${inner%.zst}" ;;
        *) cp "$file" "$out/$inner" ;;
        esac
    done
    depmod -b "$root" "$version"
}

# filesystem ROOT OUT SIZE LABEL : an ext4 image of a tree.
filesystem() {
    rm -f "$2"
    truncate -s "$3" "$2"
    mkfs.ext4 -q -d "$1" -m 0 -L "$4" "$2"
}
