//! A disk that is full, read-only or damaged: history is lost at worst, and people are told.
//!
//! Small file systems are mounted for this; where that is not allowed (not root, or a container), what needs
//! them is left out and said so.

use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::Command,
};

use appliance::{
    history::{Cursor, Event, Filter, Kind},
    manager::{Identity, Remembered},
};

use crate::rig::{Hands, all, plug, until};

/// A small file system in memory, as long as this lives.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Self { dir };
        if disk.mount(&["-t", "tmpfs", "-o", "size=4m", "tmpfs"]) {
            Some(disk)
        } else {
            eprintln!("left out: mounting needs root");
            None
        }
    }

    fn mount(&self, arguments: &[&str]) -> bool {
        let mount = Command::new("mount")
            .args(arguments)
            .arg(self.path())
            .output();
        mount.is_ok_and(|output| output.status.success())
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn file(&self) -> PathBuf {
        self.path().join("history.db")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

#[tokio::test]
async fn a_full_disk_costs_nothing_but_time() {
    let Some(disk) = Disk::new() else { return };
    let hands = Hands::set();
    let store = hands.open(&disk.file()).await;
    store.append(plug(1));
    store.flush().await;
    let ballast = disk.path().join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let mut appended = 1;
    // Until it is noticed: the log has some room of its own.
    until("nothing is stored", async || {
        for _ in 0..200 {
            hands.pass(70_000);
            store.append(Event::new(Kind::Update).saying("x".repeat(300)));
            appended += 1;
        }
        store.flush().await;
        !store.notices().is_empty()
    })
    .await;
    let [notice] = store.notices().try_into().unwrap();
    assert!(
        notice.contains("Nothing is stored") && notice.contains("full"),
        "{notice}"
    );
    // Shown meanwhile, and written once there is room.
    hands.pass(70_000);
    store.append(plug(2));
    let reading = store.events(&Filter::default(), Cursor::Newest, 1).await;
    assert_eq!(reading.records[0].event, plug(2));
    fs::remove_file(&ballast).unwrap();
    drop(file);
    until("storing works again", async || store.notices().is_empty()).await;
    store.close().await;
    let store = hands.open(&disk.file()).await;
    assert_eq!(all(&store).await.len(), appended + 1);
    store.close().await;
}

#[tokio::test]
async fn a_disk_that_is_full_for_long_costs_the_oldest_events() {
    let Some(disk) = Disk::new() else { return };
    let hands = Hands::set();
    // No room from the start.
    let mut file = fs::File::create(disk.path().join("ballast")).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let store = hands.open(&disk.file()).await;
    for n in 0..1200u16 {
        hands.pass(70_000);
        store.append(plug(u8::try_from(n % 9).unwrap() + 1));
    }
    store.flush().await;
    let reading = store.events(&Filter::default(), Cursor::Newest, 1000).await;
    assert!(!reading.complete);
    assert_eq!(
        (reading.records.len(), reading.records[0].sequence),
        (1000, 1200)
    );
    let notice = store.notices().remove(0);
    assert!(notice.ends_with("200 older ones are lost."), "{notice}");
    store.close().await;
}

#[tokio::test]
async fn a_read_only_disk_is_read_and_written_once_it_can_be() {
    let Some(disk) = Disk::new() else { return };
    let hands = Hands::set();
    let board = Remembered {
        identity: Identity::from("a".to_owned()),
        tty: None,
    };
    let store = hands.open(&disk.file()).await;
    store.append(plug(1));
    store.remember(board.clone());
    store.close().await;
    assert!(disk.mount(&["-o", "remount,ro"]));

    let store = hands.open(&disk.file()).await;
    assert_eq!(store.recall(), [board]);
    store.append(plug(2));
    let [first, second] = all(&store).await.try_into().unwrap();
    assert_eq!((first.event, second.event), (plug(1), plug(2)));
    assert_eq!((first.sequence, second.sequence), (1, 2));
    assert_eq!(store.notices().len(), 1);
    assert!(disk.mount(&["-o", "remount,rw"]));
    until("storing works", async || {
        store.flush().await;
        store.notices().is_empty()
    })
    .await;
    store.close().await;
    let store = hands.open(&disk.file()).await;
    assert_eq!(all(&store).await.len(), 2);
    store.close().await;
}

#[tokio::test]
async fn a_file_that_is_damaged_while_it_is_used_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    let hands = Hands::set();
    let store = hands.open(&path).await;
    let board = Remembered {
        identity: Identity::from("a".to_owned()),
        tty: Some("/dev/ttyUSB0".into()),
    };
    store.remember(board.clone());
    // More than is kept in memory, so that it has to be read again.
    for n in 1..=20_000 {
        hands.pass(70_000);
        store.append(Event::new(Kind::Update).saying(format!("{n:0300}")));
        if n % 500 == 0 {
            store.flush().await;
        }
    }
    for name in ["history.db", "history.db-wal"] {
        let mut file = fs::File::options()
            .read(true)
            .write(true)
            .open(dir.path().join(name))
            .unwrap();
        let length = file.metadata().unwrap().len();
        // The header stays.
        file.seek(SeekFrom::Start(8192)).unwrap();
        let ruin = vec![0xa5; usize::try_from(length).unwrap() - 8192];
        file.write_all(&ruin).unwrap();
    }
    until("it is set aside", async || {
        hands.pass(70_000);
        store.append(plug(1));
        let cursor = Cursor::After(3000);
        store.events(&Filter::default(), cursor, 1000).await;
        store.flush().await;
        store
            .notices()
            .iter()
            .any(|notice| notice.contains("was damaged"))
    })
    .await;
    let mut kept = Vec::new();
    let aside = dir.path().join("history.db.corrupt-1");
    fs::File::open(aside)
        .unwrap()
        .read_to_end(&mut kept)
        .unwrap();
    assert!(kept.len() > 1_000_000);
    // The new file has what is known and goes on.
    hands.pass(70_000);
    store.append(plug(2));
    store.flush().await;
    let newest = store.newest();
    assert!(newest > 20_000);
    store.close().await;
    let store = hands.open(&path).await;
    assert_eq!(store.recall(), [board]);
    let records = all(&store).await;
    assert_eq!(records.last().unwrap().sequence, newest);
    assert_eq!(records.last().unwrap().event, plug(2));
    store.close().await;
}

#[tokio::test]
async fn a_damaged_file_that_cannot_be_set_aside_is_said_and_left() {
    let Some(disk) = Disk::new() else { return };
    fs::write(disk.file(), "no database at all".repeat(1000)).unwrap();
    assert!(disk.mount(&["-o", "remount,ro"]));
    let hands = Hands::set();
    let store = hands.open(&disk.file()).await;
    store.append(plug(1));
    store.flush().await;
    let reading = store.events(&Filter::default(), Cursor::Newest, 10).await;
    assert_eq!((reading.records.len(), reading.complete), (1, false));
    let notice = store.notices().remove(0);
    assert!(notice.contains("Nothing is stored"), "{notice}");
    assert!(disk.mount(&["-o", "remount,rw"]));
    until("it is replaced", async || {
        store.flush().await;
        !store
            .notices()
            .iter()
            .any(|notice| notice.contains("Nothing is stored"))
    })
    .await;
    store.close().await;
    let store = hands.open(&disk.file()).await;
    assert_eq!(all(&store).await.len(), 1);
    store.close().await;
}
