//! Rows: kept until they are replaced, whatever happens to the file.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use appliance::{
    history::Store,
    manager::{Identity, Keep, Remembered, Ruling, Scope},
};

use crate::rig::until;

fn device(identity: &str, tty: Option<&str>) -> Remembered {
    Remembered {
        identity: Identity::from(identity.to_owned()),
        tty: tty.map(ToOwned::to_owned),
    }
}

async fn stored(path: &Path) -> Vec<Remembered> {
    let store = Store::open(path).await;
    let mut recalled = store.recall();
    recalled.sort_by(|a, b| a.identity.cmp(&b.identity));
    store.close().await;
    recalled
}

#[tokio::test]
async fn what_is_remembered_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    let store = Store::open(&path).await;
    assert_eq!((store.recall(), store.notices()), (vec![], vec![]));
    store.remember(device("a", None));
    store.remember(device("b", Some("/dev/ttyUSB0")));
    store.remember(device("b", Some("/dev/ttyUSB1")));
    store.close().await;

    let store = Store::open(&path).await;
    assert_eq!(store.recall().len(), 2);
    store.remember(device("a", Some("/dev/ttyACM0")));
    store.close().await;
    assert_eq!(
        stored(&path).await,
        [
            device("a", Some("/dev/ttyACM0")),
            device("b", Some("/dev/ttyUSB1"))
        ]
    );
}

#[tokio::test]
async fn what_was_flushed_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    let store = Store::open(&path).await;
    for n in 0..50 {
        store.remember(device(&format!("device {n:02}"), None));
        store.flush().await;
        // What a killed process leaves behind: the files as they are now, the log not yet merged.
        if n % 10 == 9 {
            let left = dir.path().join(format!("left-{n}"));
            fs::create_dir(&left).unwrap();
            for name in ["history.db", "history.db-wal"] {
                fs::copy(dir.path().join(name), left.join(name)).unwrap();
            }
            assert_eq!(stored(&left.join("history.db")).await.len(), n + 1);
        }
    }
}

#[tokio::test]
async fn a_half_written_log_costs_only_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    let store = Store::open(&path).await;
    store.remember(device("first", None));
    store.flush().await;
    let first = fs::metadata(dir.path().join("history.db-wal"))
        .unwrap()
        .len();
    store.remember(device("second", None));
    store.flush().await;
    let left = dir.path().join("left.db");
    fs::copy(&path, &left).unwrap();
    let log = fs::read(dir.path().join("history.db-wal")).unwrap();
    assert!(u64::try_from(log.len()).unwrap() > first);
    let half = usize::try_from(first).unwrap() + 100;
    fs::write(dir.path().join("left.db-wal"), &log[..half]).unwrap();
    assert_eq!(stored(&left).await, [device("first", None)]);
}

fn aside(path: &Path, n: u32) -> PathBuf {
    PathBuf::from(format!("{}.corrupt-{n}", path.display()))
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    for n in 1..=2 {
        fs::write(&path, format!("no database at all, number {n}").repeat(200)).unwrap();
        let store = Store::open(&path).await;
        assert_eq!(store.recall(), []);
        let [notice] = store.notices().try_into().unwrap();
        assert!(notice.contains("was damaged"), "{notice}");
        assert!(
            notice.contains(&format!("history.db.corrupt-{n}")),
            "{notice}"
        );
        store.remember(device("a", None));
        store.close().await;
        assert_eq!(stored(&path).await, [device("a", None)]);
        let kept = fs::read_to_string(aside(&path, n)).unwrap();
        assert!(kept.starts_with(&format!("no database at all, number {n}")));
    }
}

#[tokio::test]
async fn a_file_with_damaged_pages_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    let store = Store::open(&path).await;
    for n in 0..200 {
        store.remember(device(&format!("device {n}"), Some("/dev/ttyUSB0")));
    }
    store.close().await;
    let mut bytes = fs::read(&path).unwrap();
    let length = bytes.len();
    bytes[4096..length].fill(0xa5);
    fs::write(&path, &bytes).unwrap();
    let store = Store::open(&path).await;
    assert!(store.notices()[0].contains("was damaged"));
    store.remember(device("a", None));
    store.close().await;
    assert_eq!(stored(&path).await, [device("a", None)]);
    assert_eq!(fs::read(aside(&path, 1)).unwrap().len(), length);
}

#[tokio::test]
async fn where_nothing_can_be_stored_everything_else_works() {
    // Not even root can make a file here.
    let store = Store::open(Path::new("/proc/history.db")).await;
    assert_eq!(store.recall(), []);
    let [notice] = store.notices().try_into().unwrap();
    assert!(notice.starts_with("Nothing is stored at the moment (failed to open /proc/history.db"));
    let begun = Instant::now();
    for n in 0..5_000 {
        store.remember(device(&format!("device {n}"), None));
    }
    assert!(begun.elapsed() < Duration::from_secs(1));
    store.close().await;
}

#[tokio::test]
async fn storing_begins_once_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data").join("history.db");
    let store = Store::open(&path).await;
    store.remember(device("a", None));
    store.flush().await;
    assert_eq!(store.notices().len(), 1);

    fs::create_dir(dir.path().join("data")).unwrap();
    store.remember(device("b", None));
    until("the notice goes", async || store.notices().is_empty()).await;
    store.close().await;
    assert_eq!(stored(&path).await, [device("a", None), device("b", None)]);
}

#[tokio::test]
async fn a_newer_schema_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    let store = Store::open(&path).await;
    store.remember(device("a", None));
    store.close().await;
    let pool = sqlx::SqlitePool::connect(path.to_str().unwrap())
        .await
        .unwrap();
    for change in [
        "ALTER TABLE device ADD COLUMN colour TEXT",
        "INSERT INTO _sqlx_migrations VALUES (9999, 'later', datetime(), 1, x'00', 1)",
    ] {
        sqlx::query(change).execute(&pool).await.unwrap();
    }
    pool.close().await;
    let store = Store::open(&path).await;
    assert_eq!(store.notices(), Vec::<String>::new());
    store.remember(device("b", None));
    store.close().await;
    assert_eq!(stored(&path).await.len(), 2);
}

#[tokio::test]
async fn what_an_earlier_version_held_back_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    Store::open(&path).await.close().await;
    let pool = sqlx::SqlitePool::connect(path.to_str().unwrap())
        .await
        .unwrap();
    for change in [
        "DROP TABLE held",
        "DELETE FROM _sqlx_migrations WHERE version = 5",
        "INSERT INTO device (identity, tty, held) VALUES
            ('303a:1001 serial 34:85:18:ab:cd:ef', '/dev/ttyACM0', 1),
            ('303a:0002 serial 348518abcdef', NULL, 1),
            ('1a86:7523 port usb-0:1.2', NULL, 1),
            ('10c4:ea60 serial free', '/dev/ttyUSB0', 0)",
    ] {
        sqlx::query(change).execute(&pool).await.unwrap();
    }
    pool.close().await;
    let store = Store::open(&path).await;
    assert_eq!(store.notices(), Vec::<String>::new());
    assert_eq!(store.recall().len(), 4);
    let board = || Scope::Serial("348518ABCDEF".into());
    let port = Keep::Held(Scope::Port("usb-0:1.2".into()), true);
    let mut kept = store.recall_kept();
    kept.sort_by_key(|keep| format!("{keep:?}"));
    assert_eq!(kept, [port.clone(), Keep::Held(board(), true)]);
    store.keep(Keep::Held(board(), false));
    store.close().await;
    let store = Store::open(&path).await;
    assert_eq!(store.recall_kept(), [port]);
    store.close().await;
}

#[tokio::test]
async fn names_and_rules_survive_a_restart_until_they_are_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    let serial = || Scope::Serial("A1".into());
    let named = |alias: &str| Keep::Alias(serial(), Some(alias.parse().unwrap()));
    let rule = || Keep::Rule(Scope::Product(0x10c4, 0xea60), Some(Ruling::Ignore));

    let store = Store::open(&path).await;
    assert_eq!(store.recall_kept(), []);
    for keep in [named("old"), rule(), named("board")] {
        store.keep(keep);
    }
    store.close().await;

    let store = Store::open(&path).await;
    assert_eq!(store.recall_kept(), [named("board"), rule()]);
    store.keep(Keep::Alias(serial(), None));
    store.close().await;
    let store = Store::open(&path).await;
    assert_eq!(store.recall_kept(), [rule()]);
    store.close().await;
}
