//! Which files to read, and in which order: a folder's files, and all of them by the time of their first line.

use std::io::Read;
use std::path::Path;

use super::open;
use super::time::{Clock, Millis, month_day};
use crate::error::{Error, Result};

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Its path; `-` is standard input.
    pub name: String,
    /// It was found in a folder: that it is no log is no error.
    pub found: bool,
}

/// The files that `names` mean: folders stand for their files (hidden ones left out), and logs are sorted by the time
/// they begin at, so that rotated files are one log again. Files without a time come first, as they were named.
///
/// Fails when a folder cannot be read, or holds no file.
pub fn inputs(names: &[String]) -> Result<Vec<Input>> {
    let mut all = Vec::new();
    for name in names {
        if name == "-" || !Path::new(name).is_dir() {
            all.push(Input { name: name.clone(), found: false });
            continue;
        }
        let before = all.len();
        walk(Path::new(name), &mut all)?;
        if all.len() == before {
            return Err(Error::input(format!("{name} holds no file")).at(name.clone()).hint("name logs or .sql files"));
        }
    }
    if all.len() > 1 {
        all.sort_by_cached_key(|input| begins(&input.name));
    }
    Ok(all)
}

fn walk(folder: &Path, all: &mut Vec<Input>) -> Result<()> {
    let place = folder.display().to_string();
    let unreadable = |error: std::io::Error| {
        Error::input(format!("cannot read the folder {place}: {error}")).at(place.clone()).hint("check its permissions")
    };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        entries.push(entry.map_err(unreadable)?.path());
    }
    entries.sort();
    for path in entries {
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        // A link to a folder may lead around in a circle.
        if path.is_dir() && !path.is_symlink() {
            walk(&path, all)?;
        } else if path.is_file() {
            all.push(Input { name: path.display().to_string(), found: true });
        }
    }
    Ok(())
}

/// Bytes at the start of a file in which a time is looked for, and bytes of a line before one.
const HEAD: u64 = 64 << 10;
const MAX_BEFORE: usize = 80;

/// The first time in a log; `None` when there is none, or the file cannot be read, which reading it will say.
fn begins(file: &str) -> Option<Millis> {
    let name = file.to_ascii_lowercase();
    if file == "-" || name.contains(".sql") {
        return None;
    }
    let mut head = Vec::new();
    let mut input = open::open(file, &|_| {}).ok()?.take(HEAD);
    // What was read before an error is of use.
    let _ = input.read_to_end(&mut head);
    first_time(&head)
}

fn first_time(head: &[u8]) -> Option<Millis> {
    let mut clock = Clock::default();
    head.split(|byte| *byte == b'\n').find_map(|line| {
        (0..line.len().min(MAX_BEFORE)).find_map(|at| {
            let text = line.get(at..)?;
            let (time, _) = clock.read(text).or_else(|| month_day(text))?;
            Some(time)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_time_behind_a_prefix() {
        assert_eq!(first_time(b"noise\n< 1970-01-02 00:00:00 > x\n1971-01-01 00:00:00"), Some(86_400_000));
        assert_eq!(first_time(b"SELECT 1"), None);
    }

    #[test]
    fn a_folder_stands_for_its_logs_oldest_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(&path, text).expect("a file");
        };
        write("a.log", "2026-11-22 10:00:00 UTC LOG:  x\n");
        write("b/rotated.log", "2026-11-21 10:00:00 UTC LOG:  x\n");
        write("c.sql", "SELECT '2020-01-01 00:00:00'");
        write(".hidden", "2026-11-20 10:00:00 UTC LOG:  x\n");
        let root = folder.path().display().to_string();
        let names: Vec<String> = inputs(std::slice::from_ref(&root))
            .expect("files")
            .iter()
            .map(|input| input.name.replace(&root, ""))
            .collect();
        assert_eq!(names, ["/c.sql", "/b/rotated.log", "/a.log"]);
        let empty = tempfile::tempdir().expect("a folder");
        assert!(inputs(&[empty.path().display().to_string()]).is_err());
    }
}
