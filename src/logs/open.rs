//! Opens files and standard input, and decompresses by what the first bytes say, never by the name.

use std::fs::File;
use std::io::{Cursor, Read};

use super::feed::unreadable;
use crate::error::{Error, Result};

/// Counts what is read before decompression.
struct Counting<'a, R> {
    inner: R,
    progress: &'a dyn Fn(u64),
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        (self.progress)(count as u64);
        Ok(count)
    }
}

/// Opens `file` (`-` is standard input), decompressing gzip and zstd.
pub(super) fn open<'a>(file: &str, progress: &'a dyn Fn(u64)) -> Result<Box<dyn Read + 'a>> {
    if file == "-" {
        return decompress(Counting { inner: std::io::stdin().lock(), progress }, file);
    }
    let opened = File::open(file).map_err(|error| {
        Error::input(format!("cannot open {file}: {error}")).at(file).hint("check the path and its permissions")
    })?;
    if opened.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Error::input(format!("{file} is a directory")).at(file).hint(format!("name its files: {file}/*")));
    }
    decompress(Counting { inner: opened, progress }, file)
}

fn decompress<'a, R: Read + 'a>(mut input: R, file: &str) -> Result<Box<dyn Read + 'a>> {
    let mut magic = [0; 4];
    let mut length = 0;
    while length < magic.len() {
        match input.read(magic.get_mut(length..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(file, &error)),
        }
    }
    let head = magic.get(..length).unwrap_or_default().to_vec();
    let is_gzip = head.starts_with(&[0x1f, 0x8b]);
    let is_zstd = head == [0x28, 0xb5, 0x2f, 0xfd];
    let known = [(&b"BZh"[..], "bzip2", "bzcat"), (b"\xfd7zX", "xz", "xzcat"), (b"PK\x03\x04", "zip", "unzip -p")];
    if let Some((_, name, tool)) = known.iter().find(|(magic, ..)| head.starts_with(magic)) {
        let error = Error::input(format!("{file} is compressed with {name}, which is not read directly"));
        return Err(error.at(file).hint(format!("{tool} {file} | pgweir lint -")));
    }
    let whole = Cursor::new(head).chain(input);
    Ok(if is_gzip {
        Box::new(flate2::read::MultiGzDecoder::new(whole))
    } else if is_zstd {
        Box::new(zstd::stream::read::Decoder::new(whole).map_err(|error| unreadable(file, &error))?)
    } else {
        Box::new(whole)
    })
}
