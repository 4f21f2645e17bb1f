//! The only `unsafe` code of the workspace: copying out of a read-only mapping, and what happens when a
//! mapped page cannot be read.
//!
//! No `&[u8]` over mapped memory is ever made, because the writer changes other bytes of the same file
//! with `pwrite` while readers look: a shared slice promises that nothing in it changes. A raw pointer and
//! a copy of exactly the published bytes promise nothing about the rest.
#![allow(
    unsafe_code,
    reason = "copying from mapped memory has no safe form; everything else in the crate is safe"
)]

use std::fs::File;
use std::io;

use memmap2::{MmapOptions, MmapRaw};

use crate::fs::Map;

/// A read-only mapping of the front of a file.
#[derive(Debug)]
pub struct ReadMap {
    map: MmapRaw,
}

impl ReadMap {
    /// Maps the first `bytes` bytes of `file`.
    pub(crate) fn new(file: &File, bytes: u64) -> io::Result<ReadMap> {
        // A mapping beyond the end of the file would be a SIGBUS at the first touch instead of an error.
        if file.metadata()?.len() < bytes {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let len =
            usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let map = MmapOptions::new().len(len).map_raw_read_only(file)?;
        Ok(ReadMap { map })
    }
}

impl Map for ReadMap {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let eof = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let start = usize::try_from(offset).map_err(|_| eof())?;
        let end = start.checked_add(bytes.len()).ok_or_else(eof)?;
        if end > self.map.len() {
            return Err(eof());
        }
        // SAFETY: `start <= end <= map.len()` was checked above, so the result stays inside the mapping,
        // which lives as long as `self`.
        let source = unsafe { self.map.as_ptr().add(start) };
        // SAFETY: `source` is readable for `bytes.len()` bytes: the range was checked above, and the pages
        // exist because `ReadMap::new` refused a shorter file and a log never shortens a segment (purging
        // unlinks whole files, truncation keeps the length; the directory lock keeps other processes of
        // ours out). `bytes` is an exclusive borrow of other memory, so the two do not overlap. Nobody
        // writes these bytes meanwhile: `Reader` asks only for published bytes, which it learned under a
        // mutex, and `Wal` does not write over published bytes of a segment that a reader holds.
        unsafe { std::ptr::copy_nonoverlapping(source, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }
}

/// Exit code of a process whose mapped file can no longer be read, as in `sysexits.h`: an I/O error.
const EXIT_IO: i32 = 74;

/// Bytes of `/proc/self/maps` looked at in one piece. The longest line, a path of 4096 bytes, fits.
const MAPS_BYTES: usize = 8192;

/// From now on, a page of a mapped file that cannot be read (the medium failed, or somebody shortened the file) ends the
/// process with exit code 74 and one line on standard error that names the file, instead of a death by signal
/// without a word. For programs, at their start; the library does not call it.
///
/// # Errors
/// The system does not take the handler.
pub fn exit_on_unreadable_pages() -> io::Result<()> {
    // SAFETY: all zeros is a valid `sigaction`: no flags, an empty mask, the default handler.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
        unreadable_page;
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: `action` is initialised, and `unreadable_page` does only what a signal handler may: it reads its
    // arguments, makes system calls, uses its own stack, and never returns.
    let result = unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The handler. It must not allocate, lock or panic: the thread may have been anywhere.
extern "C" fn unreadable_page(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid `siginfo_t`.
    let info = unsafe { &*info };
    // SAFETY: for SIGBUS the kernel has set the address.
    let address = unsafe { info.si_addr() } as usize;
    say(b"exit 74: a mapped file cannot be read: file=");
    say_file_at(address);
    say(b"\n");
    // SAFETY: ends the process; no destructor runs, as none may here.
    unsafe { libc::_exit(EXIT_IO) }
}

/// Writes the path of the file that is mapped at `address`, or a question mark.
fn say_file_at(address: usize) {
    let mut bytes = [0_u8; MAPS_BYTES];
    // SAFETY: the path is a C string; the descriptor is closed by the end of the process.
    let maps = unsafe {
        libc::open(
            c"/proc/self/maps".as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        )
    };
    let mut filled = 0;
    loop {
        let room = &mut bytes[filled..];
        // SAFETY: `room` is writable for its length.
        let read = unsafe { libc::read(maps, room.as_mut_ptr().cast(), room.len()) };
        let Some(read) = usize::try_from(read).ok().filter(|read| *read > 0) else {
            return say(b"?");
        };
        filled += read;
        let mut begun = 0;
        while let Some(length) = bytes[begun..filled].iter().position(|byte| *byte == b'\n') {
            let line = &bytes[begun..begun + length];
            if let Some(path) = path_if_mapped_at(line, address) {
                return say(path);
            }
            begun += length + 1;
        }
        bytes.copy_within(begun..filled, 0);
        filled -= begun;
    }
}

/// The path in a line of `/proc/self/maps` (`start-end perms offset device inode path`) whose range holds `address`.
fn path_if_mapped_at(line: &[u8], address: usize) -> Option<&[u8]> {
    let (start, rest) = leading_hex(line)?;
    let (end, _) = leading_hex(rest.strip_prefix(b"-")?)?;
    let path = line.iter().position(|byte| *byte == b'/')?;
    (start..end).contains(&address).then(|| &line[path..])
}

fn leading_hex(text: &[u8]) -> Option<(usize, &[u8])> {
    let digits = text
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let number = std::str::from_utf8(&text[..digits]).ok()?;
    Some((usize::from_str_radix(number, 16).ok()?, &text[digits..]))
}

/// Writes to standard error; there is nobody to tell if that fails.
fn say(text: &[u8]) {
    // SAFETY: `text` is readable for its length.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_maps_names_the_file_of_its_range() {
        let line = b"7f0000001000-7f0000003000 r--s 00000000 fe:00 1234   /data/log/00000001.log";
        let inside = [0x7f00_0000_1000, 0x7f00_0000_2fff];
        for address in inside {
            assert_eq!(
                path_if_mapped_at(line, address),
                Some(&b"/data/log/00000001.log"[..])
            );
        }
        for address in [0x7f00_0000_0fff, 0x7f00_0000_3000] {
            assert_eq!(path_if_mapped_at(line, address), None);
        }
        assert_eq!(path_if_mapped_at(b"7f00-7f01 rw-p 0 00:00 0", 0x7f00), None);
        assert_eq!(path_if_mapped_at(b"garbage", 0), None);
    }
}
