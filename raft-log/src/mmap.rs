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
    use std::os::unix::fs::FileExt;

    use super::*;

    /// Not a whole number of pages.
    const BYTES: usize = 3 * 4096 + 100;

    fn content(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at % 251) as u8 + 1).collect()
    }

    fn file(bytes: usize) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&content(bytes), 0).unwrap();
        file
    }

    fn read(map: &ReadMap, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        // Behind and before what is asked for nothing may be written.
        let mut room = vec![0; bytes + 16];
        let result = map.read(offset, &mut room[8..8 + bytes]);
        assert_eq!(room[..8], [0; 8]);
        assert_eq!(room[8 + bytes..], [0; 8]);
        result.map(|()| room[8..8 + bytes].to_vec())
    }

    fn is_past_the_end(result: io::Result<Vec<u8>>) -> bool {
        result.is_err_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
    }

    #[test]
    fn mapping_gives_the_bytes_of_the_file_whole_and_at_its_edges() {
        let map = ReadMap::new(&file(BYTES), BYTES as u64).unwrap();
        let content = content(BYTES);
        assert_eq!(read(&map, 0, BYTES).unwrap(), content);
        for edge in [0, 1, 4095, 4096, 8191, 3 * 4096, BYTES - 1, BYTES] {
            for bytes in [0, 1, 2, 100, 4097] {
                let result = read(&map, edge as u64, bytes);
                match content.get(edge..edge + bytes) {
                    Some(expected) => assert_eq!(result.unwrap(), expected, "{bytes} at {edge}"),
                    None => assert!(is_past_the_end(result), "{bytes} at {edge}"),
                }
            }
        }
    }

    #[test]
    fn mapping_refuses_what_lies_past_its_end_and_touches_nothing() {
        let map = ReadMap::new(&file(BYTES), BYTES as u64).unwrap();
        let end = BYTES as u64;
        // The rest of the last page is mapped, too, and must not be given out.
        for offset in [
            end,
            end + 1,
            4 * 4096 - 1,
            4 * 4096,
            1 << 40,
            u64::MAX - 8,
            u64::MAX,
        ] {
            for bytes in [1, 9, BYTES] {
                let result = read(&map, offset, bytes);
                assert!(is_past_the_end(result), "{bytes} at {offset}");
            }
        }
        assert!(is_past_the_end(read(&map, 0, BYTES + 1)));
    }

    #[test]
    fn mapping_of_a_part_stays_that_part_while_the_file_grows_and_is_written() {
        let file = file(8192);
        let map = ReadMap::new(&file, 4096).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&[0xaa; 200], 4000).unwrap();
        let mut expected = content(4096);
        expected[4000..].fill(0xaa);
        assert_eq!(read(&map, 0, 4096).unwrap(), expected);
        assert!(is_past_the_end(read(&map, 4096, 1)));
        let grown = ReadMap::new(&file, 1 << 20).unwrap();
        assert_eq!(read(&grown, 4000, 300).unwrap()[..200], [0xaa; 200]);
        assert_eq!(read(&grown, (1 << 20) - 5, 5).unwrap(), [0; 5]);
    }

    #[test]
    fn mapping_outlives_the_open_file_and_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segment");
        std::fs::write(&path, content(BYTES)).unwrap();
        let map = ReadMap::new(&File::open(&path).unwrap(), BYTES as u64).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read(&map, 0, BYTES).unwrap(), content(BYTES));
    }

    #[test]
    fn mapping_longer_than_the_file_is_refused() {
        for bytes in [BYTES as u64 + 1, 1 << 40, u64::MAX] {
            let refused = ReadMap::new(&file(BYTES), bytes).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{bytes}");
        }
    }

    #[test]
    fn mapping_of_nothing_holds_nothing() {
        let map = ReadMap::new(&file(0), 0).unwrap();
        assert_eq!(read(&map, 0, 0).unwrap(), []);
        assert!(is_past_the_end(read(&map, 0, 1)));
    }

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
