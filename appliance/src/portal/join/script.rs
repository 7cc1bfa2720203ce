//! The script, and the line that fetches, checks and runs it.

use sha2::{Digest, Sha256};

use super::super::packages::{Format, Package, hex};

const SCRIPT: &str = include_str!("join.sh");
/// For whoever has no token.
pub(super) const REFUSAL: &str = include_str!("refuse.sh");

/// The script for this token. Everything that is put in consists of characters that mean nothing to a
/// shell: host and port passed the portal's check, tokens are base64url, names and digests were
/// checked when the packages were listed.
pub(super) fn script(pi: &str, token: &str, packages: &[Package]) -> String {
    let sum = |arch: &str, format: Format| {
        let found = packages
            .iter()
            .find(|package| package.arch == arch && package.format == format);
        found.map_or("", |package| package.sha256.as_str())
    };
    let version = packages.first().map_or("", |package| &package.version);
    [
        ("@PI@", pi),
        ("@TOKEN@", token),
        ("@VERSION@", version),
        ("@AMD64_DEB@", sum("amd64", Format::Deb)),
        ("@AMD64_TARBALL@", sum("amd64", Format::Tarball)),
        ("@ARM64_DEB@", sum("arm64", Format::Deb)),
        ("@ARM64_TARBALL@", sum("arm64", Format::Tarball)),
    ]
    .iter()
    .fold(SCRIPT.to_owned(), |text, (name, value)| {
        text.replace(name, value)
    })
}

/// The line for the VM. It runs the script only if that is the one that was made here, whole.
pub(super) fn line(pi: &str, token: &str, script: &str) -> String {
    let sum = hex(&Sha256::digest(script));
    // $(...) takes the last line break off, and printf puts it back.
    format!(
        "s=$(curl -fsSL 'http://{pi}/join/{token}'); \
         if printf '%s\\n' \"$s\" | sha256sum | grep -q '^{sum}'; \
         then printf '%s\\n' \"$s\" | sudo sh; \
         else echo 'Nothing was run: make a new line in the portal' >&2; false; fi"
    )
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn package(arch: &str, format: Format, sha256: &str) -> Package {
        Package {
            name: "x".into(),
            format,
            version: "0.2.0".into(),
            arch: arch.into(),
            size: 1,
            sha256: sha256.into(),
        }
    }

    #[test]
    fn everything_is_filled_in() {
        let packages = [
            package("amd64", Format::Deb, "11"),
            package("amd64", Format::Tarball, "22"),
            package("arm64", Format::Deb, "33"),
        ];
        let text = script("192.168.1.7:8080", "to-ken_", &packages);
        for part in [
            "pi='192.168.1.7:8080'\n",
            "token='to-ken_'\n",
            "version='0.2.0'\n",
            "deb='11' tarball='22'",
            "deb='33' tarball=''",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("@PI@") && !text.contains("_DEB@"));
        assert!(text.ends_with("\nmain\n"));
    }

    /// Runs the line with a curl that gives this out, and a sudo that says so.
    fn run(line: &str, given: &str) -> (bool, String) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("given"), given).unwrap();
        let text = format!(
            "curl() {{ cat '{0}/given'; }}; sudo() {{ echo as root; \"$@\"; }}; {line}",
            dir.path().display()
        );
        let output = Command::new("sh").arg("-c").arg(text).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    #[test]
    fn the_line_runs_that_script_and_no_other() {
        let good = "printf '%s\\n' 'a\\tb'; echo done\n";
        let line = line("192.168.1.7:8080", "token", good);
        assert_eq!(run(&line, good), (true, "as root\na\\tb\ndone\n".into()));
        for bad in ["", "echo done\n", &good[..10], REFUSAL] {
            let (ran, said) = run(&line, bad);
            assert!(!ran && !said.contains("as root"), "{said}");
            assert!(said.contains("Nothing was run"), "{said}");
        }
    }

    #[test]
    fn what_a_machine_lacks_stops_the_script_with_a_sentence() {
        // What is asked, and what answers it on a machine that has all of it.
        let good = [
            ("$(id -u)", "0"),
            ("[ -d /run/systemd/system ]", "true"),
            ("command -v sudo", "true"),
            ("ls /etc/ssh/ssh_host_*_key.pub", "true"),
            ("$(uname -m)", "x86_64"),
        ];
        for (lacking, bad, told) in [
            (0, "1000", "this needs root; run the line as"),
            (1, "false", "systemd does not run here"),
            (2, "false", "sudo is not installed. Install it"),
            (3, "false", "no SSH server is installed. Install one"),
            (4, "riscv64", "no vm-helper for this processor, riscv64"),
        ] {
            let mut text = script("127.0.0.1:9", "token", &[]);
            for (n, (asked, answer)) in good.iter().enumerate() {
                assert!(text.contains(asked), "{asked}");
                text = text.replace(asked, if n == lacking { bad } else { answer });
            }
            let output = Command::new("sh").arg("-c").arg(text).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{told}: {said}");
            assert!(
                said.starts_with("Not paired: ") && said.contains(told),
                "{said}"
            );
        }
    }

    #[test]
    fn a_refusal_says_so_and_fails() {
        let output = Command::new("sh").arg("-c").arg(REFUSAL).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("older than 15 minutes"), "{said}");
        assert!(said.contains("make a new one"), "{said}");
    }
}
