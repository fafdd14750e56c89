//! A log that is still being written: read to its end again and again, also when it is rotated.
//!
//! Both ways of rotating are followed: the file is renamed and another takes its name (what was still written to the old
//! one is read first), or it is copied and cut to nothing. Whoever calls [`Follower::poll`] decides how often.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;

use super::feed::{Context, End, MAX_MESSAGE, Reader, unreadable};
use super::{Options, Report, detect, nothing_understood};
use crate::error::Result;
use crate::workload::Sink;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;
/// What cannot be told from so many bytes is no log.
const MAX_SAMPLE: usize = 64 << 10;
/// Polls without news after which a message is taken to be complete.
const PATIENCE: u32 = 4;

/// Reads a growing log.
pub struct Follower {
    path: String,
    options: Options,
    file: Option<File>,
    /// Bytes of the file that were read.
    position: u64,
    buffer: Vec<u8>,
    reader: Option<Reader>,
    report: Report,
    line: u64,
    quiet: u32,
    /// Device, inode and length of files that were rotated away.
    past: Vec<(u64, u64, u64)>,
}

/// Files rotated away that are remembered.
const MAX_PAST: usize = 64;

impl Follower {
    /// A follower of the file, which need not exist yet.
    pub fn new(path: &str, options: &Options) -> Self {
        Self {
            path: path.to_owned(),
            options: options.clone(),
            file: None,
            position: 0,
            buffer: Vec::new(),
            reader: None,
            report: Report { file: path.to_owned(), ..Report::default() },
            line: 1,
            quiet: 0,
            past: Vec::new(),
        }
    }

    /// True when the file at `path` is the one that is read, or was before it got another name.
    pub fn has_read(&self, path: &str) -> bool {
        let Ok(other) = std::fs::metadata(path) else { return false };
        let same = |dev: u64, ino: u64| (dev, ino) == (other.dev(), other.ino());
        let own = self.file.as_ref().and_then(|file| file.metadata().ok());
        // A file that is shorter than what was read is a new one with an old inode.
        own.is_some_and(|own| same(own.dev(), own.ino()))
            || self.past.iter().any(|(dev, ino, length)| same(*dev, *ino) && other.len() >= *length)
    }

    /// The file's path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What was read so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Reads all there is now; true when there was something new.
    ///
    /// Fails when the file cannot be read, or what stands in it is no log.
    pub fn poll(&mut self, sink: &mut dyn Sink) -> Result<bool> {
        let mut news = false;
        loop {
            let Some(file) = &mut self.file else {
                match File::open(&self.path) {
                    Ok(file) => self.file = Some(file),
                    // Between the rename and the first line there may be no file.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(news),
                    Err(error) => return Err(unreadable(&self.path, &error)),
                }
                continue;
            };
            let before = self.buffer.len();
            let count = file.take(CHUNK as u64).read_to_end(&mut self.buffer);
            let count = count.map_err(|error| unreadable(&self.path, &error))?;
            debug_assert_eq!(self.buffer.len(), before + count);
            self.position += count as u64;
            if count > 0 {
                news = true;
                self.quiet = 0;
                let end = if self.buffer.len() >= MAX_MESSAGE { End::Overflow } else { End::More };
                self.feed(end, sink)?;
                continue;
            }
            if self.rotated()? {
                self.feed(End::Eof, sink)?;
                self.position = 0;
                self.line = 1;
                continue;
            }
            self.quiet = self.quiet.saturating_add(1);
            let whole = self.buffer.is_empty() || self.buffer.ends_with(b"\n");
            if self.quiet == PATIENCE && whole && self.reader.is_some() {
                self.feed(End::Eof, sink)?;
                return Ok(true);
            }
            return Ok(news);
        }
    }

    /// True when the path now means another file, or this one was cut; reading goes on at the beginning then.
    fn rotated(&mut self) -> Result<bool> {
        let failure = |error: std::io::Error| unreadable(&self.path, &error);
        let Some(file) = &mut self.file else { return Ok(false) };
        let own = file.metadata().map_err(failure)?;
        let named = match std::fs::metadata(&self.path) {
            Ok(named) => named,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failure(error)),
        };
        if (own.dev(), own.ino()) != (named.dev(), named.ino()) {
            // Something may have been written to it since it was read to its end.
            if own.len() > self.position {
                return Ok(false);
            }
            self.file = None;
            if self.past.len() >= MAX_PAST {
                self.past.remove(0);
            }
            self.past.push((own.dev(), own.ino(), self.position));
            return Ok(true);
        }
        if own.len() < self.position {
            file.seek(SeekFrom::Start(0)).map_err(failure)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Hands what was read to the reader, which is chosen by the first lines.
    fn feed(&mut self, end: End, sink: &mut dyn Sink) -> Result<()> {
        if self.reader.is_none() {
            if self.buffer.starts_with(b"\xef\xbb\xbf") {
                self.buffer.drain(..3);
            }
            let whole = memchr::memrchr(b'\n', &self.buffer).map_or(0, |at| at + 1);
            let sample = self.buffer.get(..whole).unwrap_or_default();
            match detect::reader(sample, &self.path, &self.options)? {
                Some((reader, words)) if !sample.trim_ascii().is_empty() => {
                    self.report.foreign = matches!(reader, Reader::Bouncer);
                    self.report.format = words;
                    self.reader = Some(reader);
                }
                _ if self.buffer.len() < MAX_SAMPLE => return Ok(()),
                _ => {
                    sample
                        .split(|byte| *byte == b'\n')
                        .zip(1..)
                        .for_each(|(line, number)| self.report.not_understood(number, line));
                    return Err(nothing_understood(&self.report, "every format of logs"));
                }
            }
        }
        let Some(reader) = &mut self.reader else { return Ok(()) };
        let mut context = Context { file: &self.path, line: self.line, report: &mut self.report, sink };
        let done = reader.feed(&self.buffer, end, &mut context).min(self.buffer.len());
        self.line = context.line;
        self.report.bytes += done as u64;
        self.buffer.drain(..done);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::workload::Workload;

    fn line(number: u32) -> String {
        format!(
            "2026-11-22 22:41:36.123 UTC [42] LOG:  duration: 1 ms  statement: SELECT {}\n",
            "a, ".repeat(number as usize) + "b"
        )
    }

    fn append(path: &std::path::Path, text: &str) {
        let mut file = File::options().create(true).append(true).open(path).expect("a file");
        file.write_all(text.as_bytes()).expect("written");
    }

    #[test]
    fn a_rotated_log_loses_nothing_and_tells_nothing_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("postgresql.log");
        let mut follower = Follower::new(path.to_str().expect("UTF-8"), &Options::default());
        let mut workload = Workload::new();
        let mut settle = |follower: &mut Follower| {
            for _ in 0..=PATIENCE {
                follower.poll(&mut workload).expect("a log");
            }
            (workload.statements, workload.templates().len())
        };
        assert_eq!(settle(&mut follower), (0, 0), "there is no file yet");
        append(&path, &line(0));
        let (first, second) = { (line(1)[..50].to_owned(), line(1)[50..].to_owned()) };
        append(&path, &first);
        assert_eq!(settle(&mut follower), (0, 0), "half a line waits for its end, and so does what it might belong to");
        append(&path, &second);
        assert_eq!(settle(&mut follower), (2, 2));
        // Renamed; the server goes on with the old file for a while.
        let old = folder.path().join("postgresql.log.1");
        std::fs::rename(&path, &old).expect("renamed");
        append(&old, &line(2));
        assert_eq!(settle(&mut follower), (3, 3));
        append(&old, &line(3));
        append(&path, &line(4));
        assert_eq!(settle(&mut follower), (5, 5));
        assert!(follower.has_read(old.to_str().expect("UTF-8")) && follower.has_read(path.to_str().expect("UTF-8")));
        // Copied and cut.
        File::options().write(true).open(&path).expect("a file").set_len(0).expect("cut");
        assert_eq!(settle(&mut follower), (5, 5));
        append(&path, &line(5));
        assert_eq!(settle(&mut follower), (6, 6));
        assert_eq!((follower.report().lines, follower.report().understood), (6, 6));
    }

    #[test]
    fn what_is_no_log_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("postgresql.log");
        append(&path, &"hello\n".repeat(MAX_SAMPLE / 5));
        let mut follower = Follower::new(path.to_str().expect("UTF-8"), &Options::default());
        assert!(follower.poll(&mut Workload::new()).is_err());
    }
}
