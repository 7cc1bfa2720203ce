//! Links under the names that people gave devices: `/dev/usb-pi/ALIAS`.
//!
//! The Pi tells which device has which name; the links follow from that and from what is attached.
//! Both change at any time, so the folder is always made to fit as a whole: after the Pi's word, after
//! each attach and detach, with each status, and when udev sees a tty go. A device's first tty has the
//! name itself, its second `ALIAS-1`, and so on.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, symlink},
    path::{Path, PathBuf},
};

use protocol::line::{ALIAS_DIR, Attachment, Named};
use serde::{Deserialize, Serialize};

use crate::{
    attach::Vm,
    failure::Error,
    lock::{Lock, RUN_DIR},
    root::{Root, names_in, replace_file},
};

/// The Pi's word, until the next boot of either side.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Told {
    /// Of which boot of the Pi its generations are.
    pi_boot_id: Option<String>,
    names: Vec<Named>,
}

impl Told {
    /// What was told last; nothing when the file is missing or damaged.
    fn load(root: &Root) -> Self {
        let text = root.read(&path()).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }
}

fn path() -> String {
    format!("{RUN_DIR}/aliases")
}

/// Take the Pi's word, and make the links fit.
pub fn told(vm: &Vm, names: &[Named]) -> Result<(), Error> {
    let _lock = Lock::links(&vm.root)?;
    let told = Told {
        pi_boot_id: vm.pi_boot_id.clone(),
        names: names.to_vec(),
    };
    // Plain data that always has a JSON form.
    let text = serde_json::to_string(&told).unwrap_or_default();
    replace_file(&vm.root.path(&path()), &text)?;
    fit(vm, &told)
}

/// Make the links fit what is attached now. What an earlier boot of the Pi said is forgotten.
pub fn refresh(vm: &Vm) -> Result<(), Error> {
    let file = vm.root.path(&path());
    if !file.exists() && !vm.root.path(ALIAS_DIR).exists() {
        return Ok(());
    }
    let _lock = match Lock::links(&vm.root) {
        // An ordinary user only looks.
        Err(Error::Write { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
            return Ok(());
        }
        lock => lock?,
    };
    let mut told = Told::load(&vm.root);
    if matches!((&told.pi_boot_id, &vm.pi_boot_id), (Some(a), Some(b)) if a != b) {
        told = Told::default();
        // One that stays is as wrong at the next look, and is overwritten by the Pi's next word.
        let _ = fs::remove_file(file);
    }
    fit(vm, &told)
}

/// As [`refresh`], where a failure must not spoil what it is a part of.
pub(crate) fn refresh_or_say(vm: &Vm) {
    if let Err(error) = refresh(vm) {
        eprintln!("{}", error.sentence());
    }
}

fn fit(vm: &Vm, told: &Told) -> Result<(), Error> {
    let wanted = wanted(&vm.attachments()?, &told.names);
    let dir = vm.root.path(ALIAS_DIR);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    if !wanted.is_empty() {
        match fs::DirBuilder::new().mode(0o755).create(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(&dir)(error));
            }
            _ => {}
        }
    }
    // Nothing is made or removed behind a link that leads elsewhere.
    match fs::symlink_metadata(&dir) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(failed(&dir)(io::ErrorKind::NotADirectory.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(&dir)(error)),
    }
    for name in names_in(&dir) {
        if !wanted.contains_key(&name) {
            let stale = dir.join(name);
            fs::remove_file(&stale).map_err(failed(&stale))?;
        }
    }
    for (name, target) in &wanted {
        let link = dir.join(name);
        if fs::read_link(&link).is_ok_and(|now| now == *target) {
            continue;
        }
        // No alias begins with a dot. In one step, so that nobody finds the name missing.
        let temporary = dir.join(".new");
        let _ = fs::remove_file(&temporary);
        symlink(target, &temporary).map_err(failed(&temporary))?;
        fs::rename(&temporary, &link).map_err(failed(&link))?;
    }
    if wanted.is_empty() {
        // Something of somebody else in it keeps it.
        let _ = fs::remove_dir(&dir);
    }
    Ok(())
}

/// Links and where they lead, relative so that a container may have `/dev` anywhere. A name that
/// was given counts before one that would be the second tty of another device.
fn wanted(attachments: &[Attachment], names: &[Named]) -> BTreeMap<String, PathBuf> {
    let ttys = |named: &Named| {
        let found = attachments
            .iter()
            .find(|a| a.busid == named.busid && a.devid == named.devid);
        found.map_or(&[][..], |attachment| &attachment.ttys)
    };
    let most = names.iter().map(|named| ttys(named).len()).max();
    let mut links = BTreeMap::new();
    for number in 0..most.unwrap_or(0) {
        for named in names {
            if let Some(tty) = ttys(named).get(number) {
                let node = tty.node.trim_start_matches("/dev/");
                links
                    .entry(named.alias.link(number))
                    .or_insert_with(|| Path::new("..").join(node));
            }
        }
    }
    links
}
