//! The simulated disk behind the traits.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{inode_lock, split};
use super::{
    Dir, Disk, EIO, Handle, Inode, NameChange, Refused, SimFile, SimFs, SimLock, SimMap,
    UNIT_BYTES, stopped,
};
use crate::fs::{File, Fs, Map};

impl Fs for SimFs {
    type File = SimFile;
    type Lock = SimLock;

    fn create_new(&self, path: &Path) -> io::Result<SimFile> {
        let mut disk = self.entered()?;
        let (dir, name) = disk.dir_of(path)?;
        if dir.cached.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = Arc::new(Mutex::new(Inode {
            mode: 0o600,
            ..Inode::default()
        }));
        dir.link(name, Arc::clone(&inode));
        Ok(self.handle(&disk, inode))
    }

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        let disk = self.entered()?;
        let inode = disk.find(path)?;
        Ok(self.handle(&disk, inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.entered()?;
        let (to_dir, to_name) = split(to)?;
        let to_name = to_name.to_owned();
        if from.parent() != Some(to_dir) {
            // Nothing here needs it, and its crash states would be another model.
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (dir, name) = disk.dir_of(from)?;
        let inode = dir.cached.remove(&name).ok_or(io::ErrorKind::NotFound)?;
        dir.cached.insert(to_name.clone(), inode);
        dir.pending.push(NameChange::Rename(name, to_name));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.entered()?;
        let (dir, name) = disk.dir_of(path)?;
        dir.cached.remove(&name).ok_or(io::ErrorKind::NotFound)?;
        dir.pending.push(NameChange::Unlink(name));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let disk = self.entered()?;
        let dir = disk.dirs.get(path).ok_or(io::ErrorKind::NotFound)?;
        let mut names: Vec<String> = dir.cached.keys().cloned().collect();
        let children = disk
            .dirs
            .keys()
            .filter(|child| child.parent() == Some(path));
        names.extend(children.filter_map(|child| Some(child.file_name()?.to_str()?.to_owned())));
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.entered()?;
        for ancestor in dir
            .ancestors()
            .filter(|ancestor| !ancestor.as_os_str().is_empty())
        {
            let entry = disk.dirs.entry(ancestor.to_path_buf());
            entry.or_insert_with(|| Dir {
                mode: 0o700,
                ..Dir::default()
            });
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let planned = disk.enter_sync()?;
        let dir = disk.dirs.get_mut(dir).ok_or(io::ErrorKind::NotFound)?;
        dir.pending.clear();
        if let Some(error) = planned {
            return Err(error);
        }
        dir.durable = dir.cached.clone();
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let disk = self.entered()?;
        Ok(disk.dirs.contains_key(path) || disk.find(path).is_ok())
    }

    fn lock(&self, path: &Path) -> io::Result<SimLock> {
        let mut disk = self.entered()?;
        let (dir, name) = disk.dir_of(path)?;
        if !dir.cached.contains_key(&name) {
            dir.link(
                name,
                Arc::new(Mutex::new(Inode {
                    mode: 0o600,
                    ..Inode::default()
                })),
            );
        }
        if !disk.locks.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(SimLock {
            disk: Arc::clone(&self.disk),
            path: path.to_path_buf(),
            epoch: disk.epoch,
        })
    }

    fn permissions(&self, path: &Path) -> io::Result<u32> {
        let disk = self.entered()?;
        if let Some(dir) = disk.dirs.get(path) {
            return Ok(dir.mode);
        }
        let inode = disk.find(path)?;
        let mode = inode_lock(&inode).mode;
        Ok(mode)
    }

    fn set_permissions(&self, path: &Path, mode: u32) -> io::Result<()> {
        let mut disk = self.entered()?;
        if let Some(dir) = disk.dirs.get_mut(path) {
            dir.mode = mode;
            return Ok(());
        }
        let inode = disk.find(path)?;
        inode_lock(&inode).mode = mode;
        Ok(())
    }

    fn available_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let disk = self.entered()?;
        let used = disk.used_bytes();
        Ok(disk
            .capacity
            .map_or(u64::MAX / 2, |capacity| capacity.saturating_sub(used)))
    }

    fn random_u64(&self) -> u64 {
        self.disk().bits.next()
    }
}

impl Handle {
    fn disk(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if disk.epoch == self.epoch {
            Ok(disk)
        } else {
            Err(stopped())
        }
    }

    fn entered(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = self.disk()?;
        disk.enter().map_err(Refused::into_error)?;
        Ok(disk)
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk()?;
        let planned = disk.enter_sync()?;
        let mut inode = inode_lock(&self.inode);
        match planned {
            Some(error) => {
                inode.lose();
                Err(error)
            }
            None => {
                inode.sync();
                Ok(())
            }
        }
    }

    fn set_len(&self, disk: &Disk, bytes: u64) -> io::Result<()> {
        let mut inode = inode_lock(&self.inode);
        let length = inode.cached.len() as u64;
        drop(inode);
        disk.check_room(bytes.saturating_sub(length))?;
        inode = inode_lock(&self.inode);
        if length != bytes {
            inode.cached.resize(bytes as usize, 0);
            inode.length_dirty = true;
            let units = bytes.div_ceil(UNIT_BYTES as u64);
            inode.dirty.retain(|unit| *unit < units);
            inode.written.retain(|unit| *unit < units);
            inode.held.retain(|unit| *unit < units);
        }
        Ok(())
    }
}

impl File for SimFile {
    type Map = SimMap;

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let _disk = self.handle.entered()?;
        let inode = inode_lock(&self.handle.inode);
        if inode.is_unreadable(offset, bytes.len()) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let start = (offset as usize).min(inode.cached.len());
        let end = start.saturating_add(bytes.len()).min(inode.cached.len());
        bytes[..end - start].copy_from_slice(&inode.cached[start..end]);
        Ok(end - start)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.handle.disk()?;
        match disk.enter() {
            Ok(()) => {}
            Err(Refused::StopsHere) => {
                // The process dies in the middle of the write.
                let part = disk.bits.below(bytes.len() as u64 + 1) as usize;
                inode_lock(&self.handle.inode).write(&bytes[..part], offset);
                return Err(stopped());
            }
            Err(Refused::Error(error)) => return Err(error),
        }
        let length = inode_lock(&self.handle.inode).cached.len() as u64;
        disk.check_room((offset + bytes.len() as u64).saturating_sub(length))?;
        inode_lock(&self.handle.inode).write(bytes, offset);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.handle.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.handle.sync()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let disk = self.handle.entered()?;
        let length = inode_lock(&self.handle.inode).cached.len() as u64;
        self.handle.set_len(&disk, bytes.max(length))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let disk = self.handle.entered()?;
        self.handle.set_len(&disk, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        let _disk = self.handle.entered()?;
        Ok(inode_lock(&self.handle.inode).cached.len() as u64)
    }

    fn map(&self, bytes: u64) -> io::Result<SimMap> {
        let disk = self.handle.entered()?;
        if (inode_lock(&self.handle.inode).cached.len() as u64) < bytes {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let inode = Arc::clone(&self.handle.inode);
        let handle = Handle {
            disk: Arc::clone(&self.handle.disk),
            inode,
            epoch: disk.epoch,
        };
        Ok(SimMap { handle, bytes })
    }
}

impl Map for SimMap {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let _disk = self.handle.disk()?;
        let end = offset
            .checked_add(bytes.len() as u64)
            .filter(|end| *end <= self.bytes);
        let Some(end) = end else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let inode = inode_lock(&self.handle.inode);
        let source = inode
            .cached
            .get(offset as usize..end as usize)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(source);
        Ok(())
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if disk.epoch == self.epoch {
            disk.locks.remove(&self.path);
        }
    }
}
