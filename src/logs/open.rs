//! Opens files and standard input, and decompresses by what the first bytes say, never by the name.

use std::fs::File;
use std::io::{Cursor, Read};

use super::feed::unreadable;
use crate::error::{Error, Result};

/// What decompression by xz may take, in KiB: `xz -9` needs 65 MiB.
const XZ_MEMORY: u32 = 100 << 10;

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

/// Opens `file` (`-` is standard input), decompressing gzip, zstd, bzip2 and xz.
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
    let mut magic = [0; 6];
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
    if head.starts_with(b"PK\x03\x04") {
        let error = Error::input(format!("{file} is compressed with zip, which may hold many files"));
        return Err(error.at(file).hint(format!("unzip -p {file} | pgweir lint -")));
    }
    let (is_gzip, is_bzip2) = (head.starts_with(&[0x1f, 0x8b]), head.starts_with(b"BZh"));
    let (is_zstd, is_xz) = (head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]), head == b"\xfd7zXZ\0");
    let whole = Cursor::new(head).chain(input);
    Ok(if is_gzip {
        Box::new(flate2::read::MultiGzDecoder::new(whole))
    } else if is_zstd {
        Box::new(zstd::stream::read::Decoder::new(whole).map_err(|error| unreadable(file, &error))?)
    } else if is_bzip2 {
        Box::new(bzip2::read::MultiBzDecoder::new(whole))
    } else if is_xz {
        Box::new(lzma_rust2::XzReader::new_mem_limit(whole, true, XZ_MEMORY))
    } else {
        Box::new(whole)
    })
}
