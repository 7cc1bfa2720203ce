//! The VM's packages: the page about them, and the files.

use appliance::manager::view::SessionView;

use super::{
    rig::{PACKAGES, Rig},
    sample,
};

const HOST: &str = "host: usbip-pi.local:8080";

#[tokio::test]
async fn the_page_offers_each_package_with_version_size_and_digest() {
    let rig = Rig::new(sample::every_state()).await;
    let page = rig.request("GET /downloads", &[HOST], "").await;
    assert_eq!(page.status, 200);
    for text in [
        "href=\"/packages/usbip-vm-helper_0.1.0_amd64.deb\"",
        "href=\"/packages/usbip-vm-helper-0.1.0-amd64.tar.gz\"",
        "Version 0.1.0",
        "1 KiB",
        // `printf 0123456789 | sha256sum`
        "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882",
        "curl -fsSLO http://usbip-pi.local:8080/packages/usbip-vm-helper_0.1.0_amd64.deb",
        "sudo apt-get install ./usbip-vm-helper_0.1.0_amd64.deb",
        "sudo ./usbip-vm-helper-0.1.0-amd64/install.sh",
        "DEFAULT_PI_HOST=usbip-pi.local/",
        "--device-cgroup-rule 'c 166:* rwm'",
        "lxc.cgroup2.devices.allow = c 188:* rwm",
        "lxc.mount.entry = /dev host-dev none bind,rslave,create=dir 0 0",
        "lxc.mount.entry = /dev host-dev none rbind,rslave,create=dir 0 0",
        "MODE=&quot;0666&quot;",
        "/dev:/dev:rslave",
        "--upload-port /dev/serial/by-id/usb-Arduino__www.arduino.cc__0043_85531303-if00",
    ] {
        assert!(page.body.contains(text), "{text}: {}", page.body);
    }
}

#[tokio::test]
async fn without_packages_and_devices_the_page_says_so() {
    let rig = Rig::new(sample::empty()).await;
    for (name, _) in PACKAGES {
        std::fs::remove_file(rig.packages.path().join(name)).unwrap();
    }
    let page = rig.get("/downloads").await.body;
    assert!(page.contains("carries no packages"), "{page}");
    assert!(page.contains("No device is attached now"), "{page}");
    assert!(page.contains("/dev/serial/by-id/NAME"), "{page}");
}

#[tokio::test]
async fn names_from_the_vm_do_not_become_commands() {
    let tty = ("/dev/ttyUSB0", "x; reboot #<script>");
    let mut view = sample::connected();
    view.devices = vec![sample::attached("1-1", "Evil", &[tty], "cp210x")];
    let rig = Rig::new(view).await;
    let page = rig.get("/downloads").await.body;
    assert!(!page.contains("reboot"), "{page}");
}

#[tokio::test]
async fn a_package_comes_whole_in_parts_or_not_at_all() {
    let rig = Rig::new(sample::empty()).await;
    let path = format!("/packages/{}", PACKAGES[0].0);
    let whole = rig.get(&path).await;
    assert_eq!((whole.status, whole.body.as_str()), (200, "0123456789"));
    assert_eq!(
        whole.header("content-type"),
        Some("application/vnd.debian.binary-package")
    );
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    let etag = whole.header("etag").unwrap();

    let part = rig
        .request(&format!("GET {path}"), &[HOST, "range: bytes=3-5"], "")
        .await;
    assert_eq!((part.status, part.body.as_str()), (206, "345"));
    assert_eq!(part.header("content-range"), Some("bytes 3-5/10"));
    let beyond = rig
        .request(&format!("GET {path}"), &[HOST, "range: bytes=10-"], "")
        .await;
    assert_eq!(beyond.status, 416);
    let known = format!("if-none-match: {etag}");
    let unchanged = rig
        .request(&format!("GET {path}"), &[HOST, &known], "")
        .await;
    assert_eq!((unchanged.status, unchanged.body.as_str()), (304, ""));

    let head = rig.request(&format!("HEAD {path}"), &[HOST], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), Some("10"));

    let tarball = rig.get(&format!("/packages/{}", PACKAGES[1].0)).await;
    assert_eq!(tarball.header("content-type"), Some("application/gzip"));
    assert_eq!(tarball.header("content-encoding"), None);
}

#[tokio::test]
async fn nothing_but_packages_is_given_out() {
    let rig = Rig::new(sample::empty()).await;
    let beside = rig.packages.path().join("secret.deb");
    std::fs::write(beside, "secret").unwrap();
    for name in [
        "secret.deb",
        "",
        ".",
        "..",
        "../secret.deb",
        "..%2fsecret.deb",
        "%2e%2e/%2e%2e/etc/passwd",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "usbip-vm-helper_0.1.0_amd64.deb%00",
        "usbip-vm-helper_9.9.9_amd64.deb",
    ] {
        let answer = rig.get(&format!("/packages/{name}")).await;
        assert_eq!(answer.status, 404, "{name}");
    }
    let answer = rig.post(&format!("/packages/{}", PACKAGES[0].0)).await;
    assert_eq!(answer.status, 405);
}

#[tokio::test]
async fn an_older_helper_is_offered_an_upgrade() {
    let rig = Rig::new(sample::connected()).await;
    assert!(!rig.get("/").await.body.contains("upgrade the VM"));
    let mut view = sample::connected();
    if let SessionView::Up { hello } = &mut view.session {
        hello.version = "0.0.9".into();
    }
    rig.view.send_replace(view.into());
    let page = rig.get("/").await.body;
    assert!(
        page.contains("is version 0.0.9, this Pi has 0.1.0"),
        "{page}"
    );
    assert!(page.contains("upgrade the VM"), "{page}");
}
