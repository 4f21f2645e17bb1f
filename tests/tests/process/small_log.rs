//! Clusters whose logs are small, and what fills them.

use bytes::Bytes;
use kvd::client::{Client, PendingWrite};
use kvd::kv::command::{Command, Op};
use kvd_sim::process::{Cluster, ClusterBuilder, PATIENCE, client_options, open_runtime};

/// Writes that are unanswered at a time.
const IN_FLIGHT: usize = 64;

/// Segments of 256 KiB, and requests that fit into them.
pub(crate) fn small_segments() -> ClusterBuilder {
    Cluster::builder()
        .set("log", "segment_bytes", "256KiB")
        .set("log", "reserve_bytes", "1MiB")
        .set("limits", "key_bytes", "1KiB")
        .set("limits", "value_bytes", "16KiB")
        .set("limits", "request_bytes", "32KiB")
}

/// Writes these values to so many keys, round and round, many writes in flight, so that the log grows and the data does not.
pub(crate) fn overwrite(cluster: &Cluster, keys: u64, values: impl Iterator<Item = String>) {
    open_runtime().block_on(async {
        let client = Client::new(client_options(cluster, PATIENCE));
        let mut pending = Vec::new();
        for (number, value) in (0_u64..).zip(values) {
            let op = Op::Put {
                key: format!("key{:03}", number % keys).into(),
                value: Bytes::from(value),
                want_previous: false,
            };
            let write = client.submit(Command::Op(op)).await;
            pending.push(write.expect("the client is open"));
            if pending.len() == IN_FLIGHT {
                await_all(&mut pending).await;
            }
        }
        await_all(&mut pending).await;
        client.close().await;
    });
}

async fn await_all(pending: &mut Vec<PendingWrite>) {
    for write in pending.drain(..) {
        let result = write.result().await;
        result.expect("a healthy majority takes writes");
    }
}
