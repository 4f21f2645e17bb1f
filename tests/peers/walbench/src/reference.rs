//! A minimal log: what the disk and a checksum cost when nothing else is done.
//!
//! Records of length, checksum, index and payload in prezeroed segments, `pwrite` and `fdatasync`; writers
//! that come while another one syncs wait and are written together by one of them. It tells nothing torn
//! from corrupt, keeps no term or vote and survives no full disk: a floor for the cost, not a log to use.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, RwLock};

use memmap2::{Advice, Mmap};

use crate::engine::{Log, SEGMENT_BYTES, Setup};

const HEADER_BYTES: usize = 16;
const ZERO_BYTES: usize = 1 << 20;

/// Segment and offset of a record.
type Place = (u32, u32);

pub struct RefPwrite {
    queue: Mutex<Queue>,
    written: Condvar,
    writer: Mutex<Writer>,
    places: RwLock<Vec<Place>>,
    /// Of the segments that were there at the start.
    maps: Vec<Mmap>,
}

/// Payloads that wait for the next group.
#[derive(Default)]
struct Queue {
    payloads: Vec<Vec<u8>>,
    /// Number of the group that forms, and of those that are durable.
    forming: u64,
    durable: u64,
    is_led: bool,
}

struct Writer {
    dir: PathBuf,
    pool: Vec<PathBuf>,
    tail: Option<File>,
    /// Number of the tail.
    segment: u32,
    end: u64,
    last_index: u64,
    buffer: Vec<u8>,
}

impl RefPwrite {
    pub fn open(dir: &Path, setup: Setup) -> RefPwrite {
        std::fs::create_dir_all(dir).expect("the directory");
        let (mut places, mut maps) = (Vec::new(), Vec::new());
        while let Ok(file) = File::open(segment_path(dir, maps.len() as u32)) {
            maps.push(scan(&file, maps.len() as u32, &mut places));
        }
        let mut writer = Writer {
            dir: dir.to_path_buf(),
            pool: Vec::new(),
            tail: None,
            segment: maps.len() as u32,
            end: 0,
            last_index: places.len() as u64,
            buffer: Vec::new(),
        };
        for number in 0..setup.pool_segments {
            let path = dir.join(format!("pool-{number}"));
            zero(&path);
            writer.pool.push(path);
        }
        RefPwrite {
            queue: Mutex::new(Queue {
                forming: 1,
                ..Queue::default()
            }),
            written: Condvar::new(),
            writer: Mutex::new(writer),
            places: RwLock::new(places),
            maps,
        }
    }

    fn write(&self, payloads: &[Vec<u8>], sync: bool) {
        let mut writer = lock(&self.writer);
        let places = writer.append(payloads, sync);
        self.places
            .write()
            .expect("no thread panicked")
            .extend(places);
    }
}

impl Log for RefPwrite {
    fn append(&self, _: usize, payloads: &[Vec<u8>]) {
        let mut queue = lock(&self.queue);
        queue.payloads.extend_from_slice(payloads);
        let group = queue.forming;
        while queue.durable < group {
            if queue.is_led {
                queue = self.written.wait(queue).expect("no thread panicked");
                continue;
            }
            queue.is_led = true;
            let together = std::mem::take(&mut queue.payloads);
            let written = queue.forming;
            queue.forming += 1;
            drop(queue);
            self.write(&together, true);
            queue = lock(&self.queue);
            queue.durable = written;
            queue.is_led = false;
            self.written.notify_all();
        }
    }

    fn append_lazily(&self, payloads: &[Vec<u8>]) {
        self.write(payloads, false);
    }

    fn read(&self, index: u64) -> usize {
        let places = self.places.read().expect("no thread panicked");
        let (segment, offset) = places[index as usize - 1];
        let record = &self.maps[segment as usize][offset as usize..];
        let (found, payload) = decode(record).expect("the record is intact");
        assert_eq!(found, index);
        payload.to_vec().len()
    }

    fn last_index(&self) -> u64 {
        lock(&self.writer).last_index
    }

    fn close(self: Box<Self>) {
        if let Some(tail) = &lock(&self.writer).tail {
            tail.sync_data().expect("the disk syncs");
        }
    }
}

impl Writer {
    fn append(&mut self, payloads: &[Vec<u8>], sync: bool) -> Vec<Place> {
        let bytes: u64 = payloads.iter().map(|it| stored_bytes(it.len())).sum();
        if self.tail.is_none() || self.end + bytes > SEGMENT_BYTES {
            self.begin_segment();
        }
        self.buffer.clear();
        let mut places = Vec::with_capacity(payloads.len());
        for payload in payloads {
            places.push((self.segment, self.end as u32 + self.buffer.len() as u32));
            self.last_index += 1;
            encode(self.last_index, payload, &mut self.buffer);
        }
        let tail = self.tail.as_ref().expect("a segment was begun");
        tail.write_all_at(&self.buffer, self.end)
            .expect("the disk writes");
        if sync {
            tail.sync_data().expect("the disk syncs");
        }
        self.end += bytes;
        places
    }

    fn begin_segment(&mut self) {
        if let Some(full) = self.tail.take() {
            full.sync_data().expect("the disk syncs");
            self.segment += 1;
        }
        let path = segment_path(&self.dir, self.segment);
        let spare = self.pool.pop().unwrap_or_else(|| {
            let spare = self.dir.join("pool-late");
            zero(&spare);
            spare
        });
        std::fs::rename(spare, &path).expect("the segment gets its name");
        sync_dir(&self.dir);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        self.tail = Some(file.expect("the segment opens"));
        self.end = 0;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panicked")
}

fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("segment-{number:08}"))
}

fn sync_dir(dir: &Path) {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .expect("the directory syncs");
}

fn zero(path: &Path) {
    let file = File::create(path).expect("a new file");
    let zeros = vec![0; ZERO_BYTES];
    for offset in (0..SEGMENT_BYTES).step_by(ZERO_BYTES) {
        file.write_all_at(&zeros, offset).expect("the disk writes");
    }
    file.sync_all().expect("the disk syncs");
    sync_dir(path.parent().expect("a file in a directory"));
}

fn stored_bytes(payload_bytes: usize) -> u64 {
    (HEADER_BYTES + payload_bytes).next_multiple_of(8) as u64
}

fn encode(index: u64, payload: &[u8], bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&index.to_le_bytes());
    bytes.extend_from_slice(payload);
    let crc = crc32fast::hash(&bytes[start + 8..]);
    bytes[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    bytes.resize(start + stored_bytes(payload.len()) as usize, 0);
}

/// Index and payload of the record at the front of `bytes`, if its checksum holds.
fn decode(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (payload_bytes, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let payload_bytes = u32::from_le_bytes(*payload_bytes) as usize;
    let checked = rest.get(..8 + payload_bytes)?;
    let (index, payload) = checked.split_first_chunk::<8>()?;
    let holds = payload_bytes > 0 && crc32fast::hash(checked) == u32::from_le_bytes(*crc);
    holds.then_some((u64::from_le_bytes(*index), payload))
}

/// Finds the records of a segment, checking each.
fn scan(file: &File, segment: u32, places: &mut Vec<Place>) -> Mmap {
    // SAFETY: nobody but this process has the file, and no part of it is written while it is mapped.
    let map = unsafe { Mmap::map(file) }.expect("the segment is mapped");
    // Advice: if the kernel declines it, the scan is slower and as right.
    let _ = map.advise(Advice::Sequential);
    let mut offset = 0;
    while let Some((index, payload)) = decode(&map[offset..]) {
        if index != places.len() as u64 + 1 {
            break;
        }
        places.push((segment, offset as u32));
        offset += stored_bytes(payload.len()) as usize;
    }
    let _ = map.advise(Advice::Random);
    map
}
