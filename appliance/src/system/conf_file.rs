//! The KEY=VALUE files a person may write: `vm.conf` and `appliance.conf`.
//!
//! The grammar is what a shell would read as assignments of plain words: `KEY=VALUE`, optional
//! single or double quotes, optional `export`, comments after `#`. Nothing is expanded. A byte order
//! mark and CRLF line ends, as left by other systems' editors, are ignored.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Notify, watch};

/// The largest file that is read, in bytes; real ones have about a hundred.
const MAX_SIZE: u64 = 64 * 1024;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    /// The file is there and cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written or removed.
    #[error("failed to write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line cannot be used.
    #[error("{}, line {line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what would be right.
        problem: Problem,
    },
    /// A value that was to be written cannot be used.
    #[error("{0}")]
    Value(Problem),
    /// A key that must be there is not.
    #[error("{} does not set {key}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
    },
    /// The file is no configuration.
    #[error("{} is larger than {MAX_SIZE} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

impl ConfError {
    /// What mends it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Read { path, source } | Self::Write { path, source } => {
                format!(
                    "see that {} can be read and written: {source}",
                    path.display()
                )
            }
            Self::Line {
                path,
                line,
                problem,
            } => {
                format!(
                    "change line {line} of {} to {}",
                    path.display(),
                    problem.expected
                )
            }
            Self::Value(problem) => format!("give {}", problem.expected),
            Self::Missing { path, key } => {
                format!("add a line {key}=... to {}", path.display())
            }
            Self::TooLarge { path } => format!("replace {} by a text file", path.display()),
        }
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What was found.
    pub found: String,
    /// What would be right.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; expected {}", self.found, self.expected)
    }
}

impl Problem {
    /// A problem, from what was found and what would be right.
    pub fn new(found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            found: found.into(),
            expected: expected.into(),
        }
    }

    /// The error that this is in a line of a file.
    #[must_use]
    pub fn at(self, path: &Path, line: usize) -> ConfError {
        ConfError::Line {
            path: path.to_owned(),
            line,
            problem: self,
        }
    }
}

/// One assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Line number, from 1.
    pub line: usize,
    /// What stands before the equals sign.
    pub key: String,
    /// What stands after it, without quotes.
    pub value: String,
}

/// Reads a file; none when there is no such file. Bytes that are not UTF-8 are replaced, so that
/// they are reported by the line that they are in, or ignored in a comment.
pub fn read(path: &Path) -> Result<Option<String>, ConfError> {
    let failed = |source| ConfError::Read {
        path: path.to_owned(),
        source,
    };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(meta) if meta.len() > MAX_SIZE => {
            return Err(ConfError::TooLarge {
                path: path.to_owned(),
            });
        }
        Ok(meta) if !meta.is_file() => {
            return Err(failed(io::Error::other("it is not a regular file")));
        }
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(failed)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The assignments of a file, in its order. The path only names the file in errors.
pub fn parse(path: &Path, text: &str) -> Result<Vec<Assignment>, ConfError> {
    let mut assignments = Vec::new();
    for (index, line) in lines(text).enumerate() {
        match parse_line(line) {
            Ok(None) => {}
            Ok(Some((key, value))) => assignments.push(Assignment {
                line: index + 1,
                key: key.to_owned(),
                value: value.to_owned(),
            }),
            Err(problem) => return Err(problem.at(path, index + 1)),
        }
    }
    Ok(assignments)
}

/// The text with these keys set to these values, which must need no quotes. Other lines stay, those
/// that cannot be read as comments; later assignments of the same keys go.
#[must_use]
pub fn with(text: &str, values: &[(&str, &str)]) -> String {
    let mut left = values.to_vec();
    let mut result = String::with_capacity(text.len() + 64);
    for line in lines(text) {
        match parse_line(line) {
            // Kept, but where it no longer makes the file unusable.
            Err(_) => result.extend(["# ", line, "\n"]),
            Ok(Some((key, _))) if values.iter().any(|(name, _)| *name == key) => {
                if let Some(at) = left.iter().position(|(name, _)| *name == key) {
                    let (key, value) = left.remove(at);
                    result.extend([key, "=", value, "\n"]);
                }
            }
            Ok(_) => result.extend([line, "\n"]),
        }
    }
    for (key, value) in left {
        result.extend([key, "=", value, "\n"]);
    }
    result
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    // `lines` drops the carriage return before a newline; one at the end of the file stays.
    text.trim_start_matches('\u{feff}')
        .lines()
        .map(|line| line.trim_end_matches('\r'))
}

fn parse_line(line: &str) -> Result<Option<(&str, &str)>, Problem> {
    const EXPECTED: &str = "KEY=VALUE, without spaces around the equals sign";
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let (key, rest) = line
        .split_once('=')
        .ok_or_else(|| Problem::new(format!("{:?} is no assignment", shorten(line)), EXPECTED))?;
    let is_name = |name: &str| {
        !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    if !is_name(key) {
        let found = format!("{:?} is no name of a setting", shorten(key));
        return Err(Problem::new(found, EXPECTED));
    }
    let (value, after) = match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => rest[1..].split_once(quote).ok_or_else(|| {
            Problem::new(
                format!("the quote {quote} is not closed"),
                format!("{key}={quote}VALUE{quote}"),
            )
        })?,
        _ => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
    };
    let comment = after.trim_start();
    // As in a shell, a # starts a comment only after a space.
    if !(comment.is_empty() || comment.starts_with('#') && comment.len() < after.len()) {
        let found = format!("{:?} follows the value of {key}", shorten(comment));
        return Err(Problem::new(found, EXPECTED));
    }
    Ok(Some((key, value)))
}

/// Enough of a text to recognise it by.
#[must_use]
pub fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

/// How often a file is looked at. Looking beats inotify here: the file may be a link, its directory
/// may be mounted later, and one stat each five seconds costs nothing.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Follows a file: the channel holds what `read` makes of it now. `look` makes it look at once. Ends
/// when the receiver is gone.
pub fn follow<T: PartialEq + Send + Sync + 'static>(
    path: PathBuf,
    read: fn(&Path) -> Result<T, ConfError>,
    look: Arc<Notify>,
) -> watch::Receiver<Result<T, Arc<ConfError>>> {
    let (seen, receiver) = watch::channel(read(&path).map_err(Arc::new));
    let mut stamp = stamp_of(&path);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = seen.closed() => return,
                () = look.notified() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            let now = stamp_of(&path);
            if now == stamp {
                continue;
            }
            let place = path.clone();
            let found = tokio::task::spawn_blocking(move || read(&place)).await;
            let Ok(found) = found else { continue };
            // Only now: what changes during the read is read again.
            stamp = now;
            seen.send_if_modified(|held| {
                let same = matches!((&*held, &found), (Ok(a), Ok(b)) if a == b);
                *held = found.map_err(Arc::new);
                !same
            });
        }
    });
    receiver
}

/// What changes when the file does. A stat of a file in memory; it does not block for long.
fn stamp_of(path: &Path) -> Option<(u64, u64, i64, i64, u64)> {
    let meta = fs::metadata(path).ok()?;
    Some((
        meta.dev(),
        meta.ino(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.len(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Vec<(usize, String, String)> {
        parse(Path::new("/f"), text)
            .unwrap()
            .into_iter()
            .map(|a| (a.line, a.key, a.value))
            .collect()
    }

    fn error(text: &str) -> String {
        parse(Path::new("/f"), text).unwrap_err().to_string()
    }

    #[test]
    fn reads_what_a_shell_would_read() {
        let text = "\u{feff}# the VM\r\n\r\nVM_HOST=10.0.0.2 # desk\r\nexport VM_USER='dev'\r\nA=\"b c\"\nE=\nH=a#b\n";
        let expected = [
            (3, "VM_HOST", "10.0.0.2"),
            (4, "VM_USER", "dev"),
            (5, "A", "b c"),
            (6, "E", ""),
            (7, "H", "a#b"),
        ];
        let expected = expected.map(|(line, k, v)| (line, k.to_owned(), v.to_owned()));
        assert_eq!(parsed(text), expected);
    }

    #[test]
    fn errors_name_file_line_and_remedy() {
        assert_eq!(
            error("A=1\nVM_HOST 10.0.0.2\n"),
            "/f, line 2: \"VM_HOST 10.0.0.2\" is no assignment; expected KEY=VALUE, without spaces around the equals sign"
        );
        assert!(error("VM_HOST = x").contains("\"VM_HOST \" is no name of a setting"));
        assert!(error("A='x").contains("line 1: the quote ' is not closed; expected A='VALUE'"));
        assert!(error("A=x y").contains("\"y\" follows the value of A"));
        assert!(error("A='x'#y").contains("follows the value of A"));
    }

    #[test]
    fn setting_keeps_other_lines() {
        let text = "# mine\r\nVM_HOST='old' # desk\r\nCOLOUR=blue\nVM_HOST=older\nnonsense";
        assert_eq!(
            with(text, &[("VM_HOST", "new"), ("VM_USER", "dev")]),
            "# mine\nVM_HOST=new\nCOLOUR=blue\n# nonsense\nVM_USER=dev\n"
        );
    }

    #[test]
    fn a_missing_file_is_none_and_a_directory_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&dir.path().join("x")).unwrap().is_none());
        assert!(matches!(read(dir.path()), Err(ConfError::Read { .. })));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\PC|[=#'\"\n\r ]){0,80}") {
            let _ = parse(Path::new("/f"), &text);
            let _ = with(&text, &[("A", "b")]);
        }

        #[test]
        fn what_was_set_is_read_back(text in "([A-C]=[a-z]{0,3}\n|#x\n|B=a b\n){0,6}", value in "[a-z]{1,8}") {
            let after = parsed(&with(&text, &[("B", &value)]));
            let values: Vec<_> = after.iter().filter(|(_, key, _)| key == "B").collect();
            prop_assert_eq!(values.len(), 1);
            prop_assert_eq!(&values[0].2, &value);
        }
    }
}
