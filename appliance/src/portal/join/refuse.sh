#!/bin/sh
# What a token gets that is none, not any more.
main() {
    echo 'Not paired: this line has been used, is older than 15 minutes, or was replaced by a newer one.' >&2
    echo "  remedy: make a new one in the Pi's portal, under VM" >&2
    exit 1
}

main
