//! The line from the portal, run in the shell of a VM that has nothing of ours.

use testbed::machine::Output;
use testbed::redir::Kind;
use testbed::trial::fresh_vm::{self, KEYS, administrator, run};
use testbed::trial::{Bed, Error, Outcome, Undo};

/// The Pi as the VM reaches it.
const PI: &str = "10.9.0.1:8080";

/// Has the portal make a line, and copies it from the page.
fn line(bed: &Bed) -> Result<String, Error> {
    let made = bed.submit("/vm/join", &[("pi", PI)])?;
    let (_, page) = bed.page("/vm/join")?;
    let text = page
        .split_once("<code>s=$(")
        .and_then(|(_, rest)| rest.split_once("</code>"))
        .map(|(text, _)| format!("s=$({text}"));
    let Some(text) = text.filter(|_| made.code == 303) else {
        return Err(Error::Answer {
            what: "the page with the line",
            answer: made.body + &page,
        });
    };
    Ok(text
        .replace("&quot;", "\"")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&"))
}

fn assert_paired(bed: &Bed, output: &Output) -> Outcome {
    let said = &output.stdout;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(said.contains("Paired with the Pi at 10.9.0.1"), "{said}");
    bed.session()?;
    // Both ends show the same: the key that is let in, the host keys that are pinned.
    let (_, page) = bed.page("/vm/join")?;
    let shown: Vec<&str> = said
        .split_whitespace()
        .filter(|word| word.starts_with("SHA256:"))
        .collect();
    assert!(shown.len() >= 2, "{said}");
    for fingerprint in shown {
        assert!(page.contains(fingerprint), "{fingerprint}: {page}");
    }
    assert!(page.contains("Paired with dev@10.9.0.2"), "{page}");
    assert!(page.contains("state green\">Connected"), "{page}");
    assert_eq!(
        bed.vm()
            .check("grep ^DEFAULT_PI_HOST= /etc/usbip/pi.conf")?,
        "DEFAULT_PI_HOST=10.9.0.1"
    );
    let keys = bed.vm().check(&format!("cat {KEYS}"))?;
    assert!(
        keys.starts_with("restrict,command=\"/usr/bin/usb-event-handler\" ssh-ed25519 "),
        "{keys}"
    );
    assert_eq!(keys.lines().count(), 1, "{keys}");
    assert_eq!(bed.vm().check(&format!("stat -c %a:%U {KEYS}"))?, "600:dev");
    Ok(())
}

pub fn one_line(bed: &Bed) -> Outcome {
    fresh_vm::make(bed)?;
    let plug = bed.plug(Kind::Cp2102)?;
    let _administrator = administrator(bed)?;
    let copied = line(bed)?;

    // Nothing to log in to: said, and nothing is left half done. The line is good for another try.
    bed.vm()
        .check("systemctl stop ssh.socket ssh.service || systemctl stop ssh.service")?;
    let refused = run(bed, &copied)?;
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(
        refused
            .stdout
            .contains("no SSH server answers at 10.9.0.2 port 22"),
        "{refused:?}"
    );
    assert_ne!(bed.vm().sh(&format!("[ -e {KEYS} ]"))?.code, Some(0));
    assert_ne!(
        bed.vm()
            .sh("grep -q ^DEFAULT_PI_HOST=1 /etc/usbip/pi.conf")?
            .code,
        Some(0)
    );
    bed.vm().check("systemctl start ssh.service")?;

    let output = run(bed, &copied)?;
    assert_paired(bed, &output)?;
    let attached = bed.attached(&plug)?;
    bed.pass(
        &attached.ttys[0].node,
        &bed.device(&plug)?,
        115_200,
        8 << 10,
    )?;

    // Used up: neither the line nor the bare script does anything.
    let again = run(bed, &copied)?;
    assert_ne!(again.code, Some(0));
    assert!(again.stdout.contains("Nothing was run"), "{again:?}");
    let (_, url) = copied.split_once('\'').ok_or("no address in the line")?;
    let (url, _) = url.split_once('\'').ok_or("no address in the line")?;
    let bare = run(bed, &format!("curl -fsSL {url} | sudo sh"))?;
    assert_eq!(bare.code, Some(1), "{bare:?}");
    assert!(bare.stdout.contains("this line has been used"), "{bare:?}");

    // A machine of another Pi stays that.
    bed.vm()
        .check("sed -i 's/^DEFAULT_PI_HOST=.*/DEFAULT_PI_HOST=192.0.2.7/' /etc/usbip/pi.conf")?;
    let copied = line(bed)?;
    let elsewhere = run(bed, &copied)?;
    assert_ne!(elsewhere.code, Some(0));
    assert!(
        elsewhere
            .stdout
            .contains("paired with another Pi, 192.0.2.7"),
        "{elsewhere:?}"
    );
    bed.vm()
        .check("sed -i 's/^DEFAULT_PI_HOST=.*/DEFAULT_PI_HOST=/' /etc/usbip/pi.conf")?;
    // As for an upgrade: the same VM once more keeps its device.
    let output = run(bed, &copied)?;
    assert_paired(bed, &output)?;
    assert_eq!(bed.attached(&plug)?.ttys[0].node, attached.ttys[0].node);
    Ok(())
}

pub fn without_dpkg(bed: &Bed) -> Outcome {
    fresh_vm::make(bed)?;
    let plug = bed.plug(Kind::Cp2102)?;
    let _administrator = administrator(bed)?;
    let copied = line(bed)?;
    let with = Undo {
        machine: bed.vm(),
        command: "mv /usr/bin/apt-get.off /usr/bin/apt-get".to_owned(),
    };
    bed.vm().check("mv /usr/bin/apt-get /usr/bin/apt-get.off")?;
    let output = run(bed, &copied)?;
    assert!(output.stdout.contains(".tar.gz"), "{output:?}");
    assert_paired(bed, &output)?;
    bed.attached(&plug)?;
    bed.vm()
        .check("systemctl is-enabled usb-boot-attach.service")?;
    bed.vm().check("visudo -c -q -f /etc/sudoers.d/usbip")?;
    assert_ne!(
        bed.vm().sh("dpkg -s usbip-vm-helper")?.code,
        Some(0),
        "there is no package"
    );

    // And out again, by the tarball's own script.
    bed.vm().check(
        "version=$(vm-helper --version | cut -d' ' -f2) && cd /tmp && \
         curl -fsSL http://10.9.0.1:8080/packages/usbip-vm-helper-$version-amd64.tar.gz | tar -xz",
    )?;
    bed.vm()
        .check("/tmp/usbip-vm-helper-*-amd64/install.sh --uninstall")?;
    bed.vm()
        .check("! command -v vm-helper && [ ! -e /etc/sudoers.d/usbip ]")?;

    // As it was, for whatever comes after this.
    drop(with);
    bed.pair.install_helper()?;
    bed.pair.pair()?;
    bed.session()?;
    Ok(())
}
