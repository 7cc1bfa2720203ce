################################################################################
#
# appliance
#
################################################################################

APPLIANCE_VERSION = local
APPLIANCE_SITE = $(BR2_EXTERNAL_USBIP_PI_PATH)/..
APPLIANCE_SITE_METHOD = local
APPLIANCE_SUBDIR = appliance
APPLIANCE_LICENSE = MIT or Apache-2.0
APPLIANCE_LICENSE_FILES = LICENSE-MIT LICENSE-APACHE
APPLIANCE_DEPENDENCIES = host-pkgconf udev

# The leading slash matters: a crate has a folder of that name too.
APPLIANCE_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = \
	--exclude /target \
	--exclude /dist

# Buildroot's environment would override the release profile of Cargo.toml
# (no LTO, 16 codegen units, its own optimisation level). Forgetting these
# leaves the profile as it is written there.
#
# SQLite is compiled for the target, and for the build machine too, where the
# macros that check our queries run: each with its own compiler.
APPLIANCE_CARGO_ENV = \
	PKG_CONFIG_ALLOW_CROSS=1 \
	HOST_CC="$(HOSTCC)" \
	HOST_AR="$(HOSTAR)" \
	HOST_CFLAGS="$(HOST_CFLAGS)" \
	TARGET_CC="$(TARGET_CC)" \
	TARGET_AR="$(TARGET_AR)" \
	TARGET_CFLAGS="$(TARGET_CFLAGS)" \
	env \
	-u CC \
	-u AR \
	-u CFLAGS \
	-u CARGO_PROFILE_RELEASE_CODEGEN_UNITS \
	-u CARGO_PROFILE_RELEASE_DEBUG \
	-u CARGO_PROFILE_RELEASE_LTO \
	-u CARGO_PROFILE_RELEASE_OPT_LEVEL

# A local site is not vendored by the download step, and the build step is
# offline: fetch what Cargo.lock names into the download folder, where it stays
# for later builds without a network.
define APPLIANCE_FETCH_CRATES
	cd $(@D) && $(TARGET_MAKE_ENV) $(PKG_CARGO_ENV) \
		cargo fetch --locked --target $(RUSTC_TARGET_NAME)
endef
APPLIANCE_PRE_BUILD_HOOKS += APPLIANCE_FETCH_CRATES

# `cargo install` would build once more, with the dependencies of the tests.
define APPLIANCE_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/target/$(RUSTC_TARGET_NAME)/release/appliance \
		$(TARGET_DIR)/usr/bin/appliance
endef

$(eval $(cargo-package))
