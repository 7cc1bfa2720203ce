//! The file on the boot partition that removes a forgotten password.
//!
//! Whoever can put a file there holds the card in hand, and could change anything on it.

use std::{fs, io, path::Path};

use rustix::mount::{MountFlags, mount_remount};

use crate::system::durable;

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reset {
    /// There is no such file.
    NotAsked,
    /// The password is gone, and so is the file.
    Done,
    /// Nothing was reset; a sentence that says why.
    Refused(String),
}

/// Look for the file, with or without the ending `.txt` that some systems' editors add, and remove
/// the password where there is one. Blocks.
///
/// The file goes first. Where it cannot be removed nothing is reset, since otherwise every start
/// would open the portal to whoever comes first.
pub(super) fn carry_out(reset: &Path, password: &Path) -> Reset {
    let with_ending = reset.with_added_extension("txt");
    let mut found = false;
    for path in [reset, with_ending.as_path()] {
        if fs::symlink_metadata(path).is_err() {
            continue;
        }
        found = true;
        if let Err(error) = remove(path) {
            return refused(format!(
                "{} was found, but cannot be removed ({error}); so the password was not reset, since \
                 every start would reset it again. Check the SD card in a computer, or flash a new one.",
                path.display()
            ));
        }
    }
    if !found {
        return Reset::NotAsked;
    }
    match durable::remove(password) {
        Ok(()) => {
            tracing::warn!(
                "the password was removed, as asked for by {}",
                reset.display()
            );
            Reset::Done
        }
        Err(error) => refused(format!(
            "The password was not reset: {} cannot be removed ({error}).",
            password.display()
        )),
    }
}

/// Remove the file. Its partition may be mounted for reading alone, so that nothing wears it or breaks
/// it; it is made writable for that moment.
fn remove(path: &Path) -> io::Result<()> {
    match remove_entry(path) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            let partition = path.parent().unwrap_or(Path::new("/"));
            mount_remount(partition, MountFlags::empty(), c"")?;
            let removed = remove_entry(path);
            if let Err(error) = mount_remount(partition, MountFlags::RDONLY, c"") {
                tracing::warn!(partition = %partition.display(), %error, "stays writable");
            }
            removed
        }
        result => result,
    }
}

fn remove_entry(path: &Path) -> io::Result<()> {
    // A folder of that name was meant the same way.
    match durable::remove(path) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            fs::remove_dir(path)?;
            durable::sync_directory_of(path)
        }
        result => result,
    }
}

fn refused(sentence: String) -> Reset {
    tracing::error!("{sentence}");
    Reset::Refused(sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_goes_with_the_file() {
        for name in ["reset-password", "reset-password.txt"] {
            let dir = tempfile::tempdir().unwrap();
            let (reset, password) = (
                dir.path().join("reset-password"),
                dir.path().join("password"),
            );
            fs::write(&password, "x").unwrap();
            assert_eq!(carry_out(&reset, &password), Reset::NotAsked);
            assert!(password.exists());
            fs::write(dir.path().join(name), "").unwrap();
            assert_eq!(carry_out(&reset, &password), Reset::Done);
            assert!(!password.exists() && !dir.path().join(name).exists());
            assert_eq!(carry_out(&reset, &password), Reset::NotAsked);
        }
    }

    #[test]
    fn a_file_that_stays_resets_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (reset, password) = (
            dir.path().join("reset-password"),
            dir.path().join("password"),
        );
        fs::write(&password, "x").unwrap();
        // Root may remove any file, but nobody a folder that is not empty.
        fs::create_dir_all(reset.join("full")).unwrap();
        let Reset::Refused(why) = carry_out(&reset, &password) else {
            panic!("reset");
        };
        assert!(why.contains("cannot be removed"), "{why}");
        assert!(password.exists());
    }

    /// Ends a mount when a test does.
    struct Mount(std::path::PathBuf);

    impl Drop for Mount {
        fn drop(&mut self) {
            let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        }
    }

    #[test]
    fn a_partition_that_is_only_read_is_written_for_that_moment() {
        let dir = tempfile::tempdir().unwrap();
        let (boot, password) = (dir.path().join("boot"), dir.path().join("password"));
        fs::create_dir(&boot).unwrap();
        let (source, kind) = ("tmpfs", "tmpfs");
        if rustix::mount::mount(source, &boot, kind, MountFlags::empty(), None).is_err() {
            eprintln!("skipped: nothing can be mounted here");
            return;
        }
        let mount = Mount(boot.clone());
        let reset = boot.join("reset-password");
        fs::write(&reset, "").unwrap();
        fs::write(&password, "x").unwrap();
        mount_remount(&boot, MountFlags::RDONLY, c"").unwrap();
        assert_eq!(carry_out(&reset, &password), Reset::Done);
        assert!(!reset.exists() && !password.exists());
        let again = fs::write(&reset, "").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::ReadOnlyFilesystem);
        drop(mount);
    }
}
