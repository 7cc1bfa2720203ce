//! The Pi's key is brought to a real sshd with a real user's password.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
};

use appliance::vm::{
    FailureKind, Pairer, Pairing, askpass::Password, bring::BringError, conf, pairing::PairError,
};

use super::bed::Bed;

const PASSWORD: &str = "correct 'horse' \"$(battery)\" stäple";

/// A user of this machine for as long as the test lasts.
struct User {
    name: String,
    home: PathBuf,
}

impl User {
    fn new(bed: &Bed) -> Self {
        let user = Self {
            name: format!("usbip-test-{}", std::process::id()),
            home: bed.path("home"),
        };
        // sshd and the user have to get there.
        let dir = user.home.parent().unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        let made = Command::new("useradd")
            .args(["--create-home", "--shell", "/bin/sh", "--home-dir"])
            .arg(&user.home)
            .arg(&user.name)
            .status();
        assert!(made.unwrap().success(), "useradd needs root");
        let mut chpasswd = Command::new("chpasswd")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let line = format!("{}:{PASSWORD}\n", user.name);
        let mut stdin = chpasswd.stdin.take().unwrap();
        stdin.write_all(line.as_bytes()).unwrap();
        drop(stdin);
        assert!(chpasswd.wait().unwrap().success());
        user
    }

    fn keys(&self) -> PathBuf {
        self.home.join(".ssh/authorized_keys")
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // The bed removes its home; a user that stays is told by the next run's name.
        let _ = Command::new("userdel")
            .args(["--force", &self.name])
            .status();
    }
}

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_password_brings_the_key_once_and_is_kept_nowhere() {
    let mut bed = Bed::new().await;
    conf::remove(&bed.path("vm.conf")).unwrap();
    bed.pins.forget().unwrap();
    bed.kill_server();
    bed.passwords = true;
    bed.start_server().await;
    let user = User::new(&bed);
    let mut config = bed.config();
    config.askpass = env!("CARGO_BIN_EXE_appliance").into();
    let pairer = Pairer::new(config, Arc::new(|| {}));
    let target = Pairing {
        host: "127.0.0.1".into(),
        user: user.name.clone(),
    };
    let confirmed = vec![bed.host_key("host_key").fingerprint()];
    let bring = |confirmed: &[String], password: &str| {
        let password = Password::new(password.to_owned()).unwrap();
        pairer.bring_key(target.clone(), confirmed.to_vec(), password)
    };

    // Nobody has looked at the host key: the password stays here.
    let unseen = bring(&[], PASSWORD).await;
    assert!(
        matches!(unseen, Err(BringError::Pair(PairError::Unconfirmed { .. }))),
        "{unseen:?}"
    );
    let other = bring(&["SHA256:other".to_owned()], PASSWORD).await;
    assert!(
        matches!(other, Err(BringError::Pair(PairError::Changed { .. }))),
        "{other:?}"
    );

    let wrong = bring(&confirmed, "wrong").await;
    let Err(BringError::Login(failure)) = wrong else {
        panic!("{wrong:?}");
    };
    assert_eq!(failure.kind, FailureKind::Login);
    assert!(
        failure.message.contains("with this password"),
        "{}",
        failure.message
    );
    assert!(!user.keys().exists());

    // An older, unlimited line of the same key goes; others stay, also one without a line end.
    fs::create_dir(user.home.join(".ssh")).unwrap();
    fs::write(
        user.keys(),
        format!("{}\nssh-ed25519 AAAA other", bed.key.public_key()),
    )
    .unwrap();
    let own = Command::new("chown")
        .args(["-R", &user.name])
        .arg(user.home.join(".ssh"))
        .status();
    assert!(own.unwrap().success());
    assert!(bring(&confirmed, PASSWORD).await.unwrap());
    let line = bed.key.authorized_keys_line();
    let expected = format!("ssh-ed25519 AAAA other\n{line}\n");
    assert_eq!(fs::read_to_string(user.keys()).unwrap(), expected);
    assert_eq!(mode(&user.keys()), 0o600);
    assert_eq!(mode(&user.home.join(".ssh")), 0o700);

    assert!(!bring(&confirmed, PASSWORD).await.unwrap(), "it is there");
    assert_eq!(fs::read_to_string(user.keys()).unwrap(), expected);

    // Nothing is left here.
    assert_eq!(fs::read_dir(bed.path("c")).unwrap().count(), 0);
    let log = fs::read_to_string(bed.path("sshd.log")).unwrap();
    assert!(!log.contains("battery"), "{log}");

    bed.kill_server();
    bed.passwords = false;
    bed.start_server().await;
    let disabled = bring(&confirmed, PASSWORD).await;
    let Err(BringError::Login(failure)) = disabled else {
        panic!("{disabled:?}");
    };
    assert!(
        failure.message.contains("lets nobody in with a password"),
        "{}",
        failure.message
    );
}

#[test]
fn a_password_is_one_line_and_shows_itself_to_nobody() {
    for bad in ["", "a\nb", "a\0b", &"x".repeat(1001)] {
        assert!(Password::new(bad.to_owned()).is_none());
    }
    let password = Password::new("secret".to_owned()).unwrap();
    assert_eq!(format!("{password:?}"), "Password");
}
