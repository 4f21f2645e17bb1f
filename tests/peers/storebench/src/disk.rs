//! Peers on disk: redb and fjall. A batch is a transaction that is not synced, because the log of the cluster is; they are synced
//! when they are closed.

use std::path::Path;

use fjall::{KeyspaceCreateOptions, PersistMode, Readable as _};
use redb::{Durability, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _};

use crate::engine::{Batch, Engine, Key, number};

/// As much as the data takes and more: what is measured is not the disk.
const CACHE_BYTES: usize = 1 << 30;

const TABLE: redb::TableDefinition<'static, &[u8], &[u8]> = redb::TableDefinition::new("data");

pub struct Redb(redb::Database);

impl Redb {
    fn write(&self, batch: Batch, durability: Durability) {
        let mut transaction = self.0.begin_write().expect("redb");
        transaction.set_durability(durability).expect("redb");
        {
            let mut table = transaction.open_table(TABLE).expect("redb");
            for (key, value) in batch {
                table.insert(&key[..], &value[..]).expect("redb");
            }
        }
        transaction.commit().expect("redb");
    }

    fn table(&self) -> redb::ReadOnlyTable<&'static [u8], &'static [u8]> {
        let transaction = self.0.begin_read().expect("redb");
        transaction.open_table(TABLE).expect("redb")
    }
}

impl Engine for Redb {
    const NAME: &'static str = "redb";
    type Prepared = Batch;

    fn open(dir: &Path) -> Redb {
        let mut builder = redb::Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let opened = Redb(builder.create(dir.join("redb")).expect("redb"));
        opened.write(Vec::new(), Durability::None);
        opened
    }

    fn prepare(batch: Batch) -> Batch {
        batch
    }

    fn apply(&self, batch: Batch) {
        self.write(batch, Durability::None);
    }

    fn get(&self, key: &Key) -> Option<u64> {
        let found = self.table().get(&key[..]).expect("redb");
        found.map(|value| number(value.value()))
    }

    fn scan(&self) -> (usize, u64) {
        let table = self.table();
        let mut sum = 0_u64;
        for entry in table.iter().expect("redb") {
            let (_, value) = entry.expect("redb");
            sum = sum.wrapping_add(number(value.value()));
        }
        (table.len().expect("redb") as usize, sum)
    }

    fn hold_view(&self, during: impl FnOnce()) {
        let view = self.table();
        during();
        drop(view);
    }

    fn close(self) {
        self.write(Vec::new(), Durability::Immediate);
    }
}

pub struct Fjall {
    database: fjall::Database,
    data: fjall::Keyspace,
}

impl Engine for Fjall {
    const NAME: &'static str = "fjall";
    type Prepared = Batch;

    fn open(dir: &Path) -> Fjall {
        let database = fjall::Database::builder(dir.join("fjall"))
            .cache_size(CACHE_BYTES as u64)
            .open()
            .expect("fjall");
        let data = database
            .keyspace("data", KeyspaceCreateOptions::default)
            .expect("fjall");
        Fjall { database, data }
    }

    fn prepare(batch: Batch) -> Batch {
        batch
    }

    fn apply(&self, batch: Batch) {
        let mut transaction = self.database.batch();
        for (key, value) in batch {
            transaction.insert(&self.data, key, &value[..]);
        }
        transaction.commit().expect("fjall");
    }

    fn get(&self, key: &Key) -> Option<u64> {
        let found = self.data.get(key).expect("fjall");
        found.map(|value| number(&value))
    }

    fn scan(&self) -> (usize, u64) {
        let view = self.database.snapshot();
        let (mut count, mut sum) = (0, 0_u64);
        for entry in view.iter(&self.data) {
            let (_, value) = entry.into_inner().expect("fjall");
            sum = sum.wrapping_add(number(&value));
            count += 1;
        }
        (count, sum)
    }

    fn hold_view(&self, during: impl FnOnce()) {
        let view = self.database.snapshot();
        during();
        drop(view);
    }

    fn close(self) {
        self.database.persist(PersistMode::SyncAll).expect("fjall");
    }
}
