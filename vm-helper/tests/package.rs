//! What the package says of itself agrees with the program.

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[test]
fn every_file_names_the_same_version() {
    let changelog = include_str!("../package/changelog");
    assert!(changelog.starts_with(&format!("usbip-vm-helper ({VERSION}) ")));
    for advertisement in [
        include_str!("../package/avahi.service"),
        include_str!("../package/usbip-vm.dnssd"),
    ] {
        assert!(advertisement.contains(&format!("version={VERSION}")));
        assert!(advertisement.contains("_usbip-vm._tcp"));
    }
}
