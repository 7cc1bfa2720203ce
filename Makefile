# The front door. Each target says what it does; the work is in tools/ and the crates.
.PHONY: run test bench packages image setup clean

# Two machines in QEMU, emulated devices to plug and unplug, the portal at http://localhost:8080
run: setup
	tools/build testbed
	cargo run --quiet --release -p testbed -- run

# Everything that is checked: style, licences, unit tests, real sshd and usbip, real kernels
test:
	tools/setup test
	tools/test

# Latency, throughput and memory, side by side with the stock tools
bench:
	tools/setup test
	tools/build testbed
	cargo run --quiet --release -p testbed -- bench

# vm-helper as .deb and tarball for amd64 and arm64, with SHA256SUMS, in target/packages
packages:
	tools/setup packages
	vm-helper/package/build

# The card's image in dist/, by Buildroot; the first time takes an hour
image:
	tools/setup image
	vm-helper/package/build
	buildroot/build

setup:
	tools/setup run

clean:
	cargo clean
