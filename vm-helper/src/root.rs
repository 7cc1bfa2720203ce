//! The root of the file system: `/`, or a temporary tree in tests.

use std::{
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::failure::Error;

/// Where `/sys`, `/run`, `/dev` and `/etc` are found.
///
/// There is no option for it on the command line on purpose: the sudo rule lets a user run the
/// handler as root, who must not be made to write in a tree of that user's making.
#[derive(Debug, Clone)]
pub struct Root {
    dir: PathBuf,
    kernel: Option<Kernel>,
}

/// What plays the kernel in tests: it sees each write to an attribute, as path and text.
#[derive(Clone)]
struct Kernel(Arc<Act>);

type Act = dyn Fn(&Path, &str) -> io::Result<()> + Send + Sync;

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kernel")
    }
}

impl Root {
    /// The machine's own file system.
    #[must_use]
    pub fn system() -> Self {
        Self::at("/")
    }

    /// A tree that plays the machine's file system.
    #[must_use]
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            kernel: None,
        }
    }

    /// A tree with something that acts on writes to attributes, as the kernel does.
    #[must_use]
    pub fn played(
        dir: impl Into<PathBuf>,
        kernel: impl Fn(&Path, &str) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            dir: dir.into(),
            kernel: Some(Kernel(Arc::new(kernel))),
        }
    }

    /// Write an attribute of sysfs. The kernel parses each write by itself: all of it in one.
    pub(crate) fn write_attribute(&self, path: &Path, words: &str) -> io::Result<()> {
        match &self.kernel {
            Some(Kernel(act)) => act(path, words),
            None => fs::OpenOptions::new()
                .write(true)
                .open(path)?
                .write_all(words.as_bytes()),
        }
    }

    /// An absolute path of the machine, below this root.
    #[must_use]
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.dir.join(absolute.trim_start_matches('/'))
    }

    /// A file's text without white space around it.
    pub fn read(&self, absolute: &str) -> Result<String, Error> {
        let path = self.path(absolute);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// The kernel's boot id, which is another after every boot.
    pub fn boot_id(&self) -> Result<String, Error> {
        self.read("/proc/sys/kernel/random/boot_id")
    }
}

/// Write a whole file so that a reader sees the old content or the new one.
pub(crate) fn replace_file(path: &Path, content: &str) -> Result<(), Error> {
    let failed = |source| Error::Write {
        path: path.to_owned(),
        source,
    };
    // One name per process and file: two threads never write the same record, see the locks.
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    with_dir(path, || fs::write(&temporary, content)).map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)
}

/// Make a file, and where that fails its directory first: it is there but for the first time.
pub(crate) fn with_dir<T>(path: &Path, make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match (make(), path.parent()) {
        (Err(error), Some(dir)) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(dir)?;
            make()
        }
        (result, _) => result,
    }
}

/// The names in a directory, sorted; none when it cannot be read.
pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}
