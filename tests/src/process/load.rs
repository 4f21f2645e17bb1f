//! Load through the client library: many clients in one thread, and an exact account of what was promised to them.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use kvd::client::{Client, ClientError, ClientOptions};
use kvd::kv::command::{Command, KeyRange, KeyValue, Op, OpResult, RangeQuery};
use kvd::wire::client::Consistency;
use raft_net::Credentials;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use super::cluster::Cluster;
use super::pulse::Pulses;
use super::wait::eventually;

/// How long a write of the load is retried before its outcome is left open: longer than any fault of a test.
const TIMEOUT: Duration = Duration::from_secs(40);

/// What clients were told.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    /// Keys whose write was answered, with the value.
    pub written: BTreeMap<Bytes, Bytes>,
    /// Keys whose write may have happened.
    pub unknown: BTreeSet<Bytes>,
    /// Keys whose write has definitely not happened, with the reason.
    pub failed: BTreeMap<Bytes, String>,
    /// Answered increments of the counter.
    pub counted: u64,
    /// Increments that may have happened.
    pub counted_unknown: u64,
    /// Why reads and increments failed.
    pub other_failures: Vec<String>,
}

impl Acknowledged {
    /// Adds what other clients were told.
    pub fn merge(&mut self, other: Acknowledged) {
        self.written.extend(other.written);
        self.unknown.extend(other.unknown);
        self.failed.extend(other.failed);
        self.counted += other.counted;
        self.counted_unknown += other.counted_unknown;
        self.other_failures.extend(other.other_failures);
    }

    /// Why requests were not answered with success, whatever became of them.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let unknown = self.unknown.iter().map(|key| format!("{key:?}: unknown"));
        let failed = self
            .failed
            .iter()
            .map(|(key, why)| format!("{key:?}: {why}"));
        let counted = (0..self.counted_unknown).map(|_| "increment: unknown".to_owned());
        let others = self.other_failures.iter().cloned();
        unknown.chain(failed).chain(counted).chain(others).collect()
    }

    /// Keys whose write was answered, and that the cluster does not hold.
    #[must_use]
    pub fn missing(&self, held: &[KeyValue]) -> Vec<&Bytes> {
        let held: BTreeSet<&Bytes> = held.iter().map(|item| &item.key).collect();
        let written = self.written.keys();
        written.filter(|key| !held.contains(key)).collect()
    }

    /// Compares the counter of this key with the increments that were answered.
    ///
    /// # Panics
    /// It holds fewer, or more than can be.
    pub fn check_counter(&self, key: &str, held: &[KeyValue]) {
        let counter = held.iter().find(|item| item.key == key);
        let version = counter.map_or(0, |item| item.version);
        let can_be = self.counted..=self.counted + self.counted_unknown;
        assert!(
            can_be.contains(&version),
            "{key} was counted {version} times, and clients were told of {can_be:?}"
        );
        assert_eq!(
            counter.map_or(Bytes::from("0"), |item| item.value.clone()),
            version.to_string(),
            "each increment of {key} adds one"
        );
    }

    /// Compares with what the cluster holds.
    ///
    /// # Panics
    /// Something answered is missing or different, or something that failed is there.
    pub fn check(&self, held: &[KeyValue]) {
        let missing = self.missing(held);
        let some = missing.iter().take(10).collect::<Vec<_>>();
        assert!(missing.is_empty(), "acknowledged and missing: {some:?}");
        let held: BTreeMap<&Bytes, &KeyValue> = held.iter().map(|item| (&item.key, item)).collect();
        for (key, value) in &self.written {
            let found = held[key];
            assert_eq!(
                &found.value, value,
                "acknowledged with another value: {key:?}"
            );
            assert_eq!(found.version, 1, "written more than once: {key:?}");
        }
        for (key, why) in &self.failed {
            assert!(
                !held.contains_key(key),
                "said to have failed ({why}), and is there: {key:?}"
            );
        }
    }
}

/// What the clients do over and over.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Work {
    /// Write a new key, named after this prefix, the client and a number.
    Keys(String),
    /// The same, and then read it.
    KeysAndReads(String),
    /// Add one to this key.
    Count(String),
}

/// Clients at work in a thread of their own.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    pulses: Arc<Pulses>,
    thread: Option<JoinHandle<Acknowledged>>,
}

impl Load {
    /// Clients that write new keys below a prefix.
    #[must_use]
    pub fn writing(cluster: &Cluster, clients: usize, prefix: &str) -> Load {
        Load::start(cluster, clients, Work::Keys(prefix.to_owned()))
    }

    /// Clients that write new keys below a prefix, and read each of them.
    #[must_use]
    pub fn writing_and_reading(cluster: &Cluster, clients: usize, prefix: &str) -> Load {
        Load::start(cluster, clients, Work::KeysAndReads(prefix.to_owned()))
    }

    /// Clients that add one to a key.
    #[must_use]
    pub fn counting(cluster: &Cluster, clients: usize, key: &str) -> Load {
        Load::start(cluster, clients, Work::Count(key.to_owned()))
    }

    fn start(cluster: &Cluster, clients: usize, work: Work) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let pulses = Arc::new(Pulses::of(clients));
        let options = client_options(cluster, TIMEOUT);
        let shared = (stop.clone(), pulses.clone());
        let thread = std::thread::spawn(move || {
            let (stop, pulses) = shared;
            open_runtime()
                .block_on(LocalSet::new().run_until(run(options, clients, work, stop, pulses)))
        });
        Load {
            stop,
            pulses,
            thread: Some(thread),
        }
    }

    /// Requests answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.pulses.answered().iter().sum()
    }

    /// Begins a span for [`longest_gap`](Load::longest_gap).
    pub fn begin_span(&self) {
        self.pulses.begin_span();
    }

    /// The longest time that any client went without an answer, among the times that ended in this span or go on.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        self.pulses.longest_gap()
    }

    /// Waits until each client has so many more answers.
    ///
    /// # Panics
    /// They have not within a minute.
    pub fn wait_for_each(&self, more: u64) {
        let before = self.pulses.answered();
        eventually("each client to go on", || {
            let now = self.pulses.answered();
            now.iter()
                .zip(&before)
                .all(|(now, before)| *now >= before + more)
        });
    }

    /// Waits until this many more requests have been answered.
    ///
    /// # Panics
    /// They are not within a minute.
    pub fn wait_for_more(&self, count: u64) {
        let goal = self.answered() + count;
        eventually("the load to go on", || self.answered() >= goal);
    }

    /// Lets every client finish its write, and gives the account.
    ///
    /// # Panics
    /// A client panicked.
    #[must_use]
    pub fn finish(mut self) -> Acknowledged {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("a load is finished once");
        thread.join().expect("no client panics")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn run(
    options: ClientOptions,
    clients: usize,
    work: Work,
    stop: Arc<AtomicBool>,
    pulses: Arc<Pulses>,
) -> Acknowledged {
    let work = Rc::new(work);
    let tasks: Vec<_> = (0..clients)
        .map(|number| {
            let (mut options, work) = (options.clone(), work.clone());
            let (stop, pulses) = (stop.clone(), pulses.clone());
            // So that there are some at each node.
            let endpoints = options.endpoints.len();
            options.endpoints.rotate_left(number % endpoints);
            tokio::task::spawn_local(async move {
                one_client(options, number, &work, &stop, &pulses).await
            })
        })
        .collect();
    let mut all = Acknowledged::default();
    for task in tasks {
        all.merge(task.await.expect("no client panics"));
    }
    all
}

async fn one_client(
    options: ClientOptions,
    number: usize,
    work: &Work,
    stop: &AtomicBool,
    pulses: &Pulses,
) -> Acknowledged {
    let client = Client::new(options);
    let mut told = Acknowledged::default();
    let mut count = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        let key = |prefix| Bytes::from(format!("{prefix}/{number:02}/{count:08}"));
        let done = match work {
            Work::Keys(prefix) => write_key(&client, key(prefix), &mut told).await,
            Work::KeysAndReads(prefix) => {
                let key = key(prefix);
                let written = write_key(&client, key.clone(), &mut told).await;
                if written {
                    pulses.beat(number);
                }
                written && read_key(&client, &key, &mut told).await
            }
            Work::Count(key) => count_one(&client, key, &mut told).await,
        };
        if done {
            pulses.beat(number);
        } else {
            // A cluster that refuses at once must not be asked in a busy loop.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    client.close().await;
    told
}

async fn write_key(client: &Client, key: Bytes, told: &mut Acknowledged) -> bool {
    let value = Bytes::from([b"value of ", &*key].concat());
    let op = Op::Put {
        key: key.clone(),
        value: value.clone(),
        want_previous: false,
    };
    match client.write(Command::Op(op)).await {
        Ok(_) => {
            told.written.insert(key, value);
            true
        }
        Err(error) if is_unknown(&error) => {
            told.unknown.insert(key);
            false
        }
        Err(error) => {
            told.failed.insert(key, error.to_string());
            false
        }
    }
}

/// Reads a key that was just written.
async fn read_key(client: &Client, key: &Bytes, told: &mut Acknowledged) -> bool {
    let query = RangeQuery::key(key.clone());
    match client.read(query, Consistency::Linearizable).await {
        Ok(answer) => {
            let found = answer.result.items.first().map(|item| &item.value);
            assert_eq!(found, told.written.get(key), "a stale read of {key:?}");
            true
        }
        Err(error) => {
            told.other_failures
                .push(format!("read of {key:?}: {error}"));
            false
        }
    }
}

async fn count_one(client: &Client, key: &str, told: &mut Acknowledged) -> bool {
    let op = Op::Increment {
        key: Bytes::copy_from_slice(key.as_bytes()),
        by: 1,
    };
    match client.write(Command::Op(op)).await {
        Ok(result) => {
            let counted = matches!(result.results.first(), Some(OpResult::Incremented { .. }));
            assert!(counted, "an increment answered with {result:?}");
            told.counted += 1;
            true
        }
        Err(error) => {
            if is_unknown(&error) {
                told.counted_unknown += 1;
            } else {
                told.other_failures.push(format!("increment: {error}"));
            }
            false
        }
    }
}

fn is_unknown(error: &ClientError) -> bool {
    matches!(error, ClientError::Unknown { .. })
}

/// A runtime for one thread.
///
/// # Panics
/// The system has no more descriptors.
#[must_use]
pub fn open_runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Options for clients of a cluster that act as its administrator.
///
/// # Panics
/// The cluster has no certificates.
#[must_use]
pub fn client_options(cluster: &Cluster, timeout: Duration) -> ClientOptions {
    let secrets = cluster.secrets();
    let credentials = Credentials::load_files(
        &secrets.join("ca.pem"),
        &secrets.join("admin.pem"),
        &secrets.join("admin.key"),
    );
    ClientOptions {
        endpoints: cluster
            .nodes
            .iter()
            .map(|node| node.address.to_string())
            .collect(),
        credentials: Some(credentials.expect("init made certificates")),
        timeout,
        ..ClientOptions::default()
    }
}

/// Everything that the cluster holds, read linearizably, key by key in order.
///
/// # Panics
/// It cannot be read.
#[must_use]
pub fn dump(cluster: &Cluster) -> Vec<KeyValue> {
    open_runtime().block_on(async {
        let client = Client::new(client_options(cluster, TIMEOUT));
        let mut items: Vec<KeyValue> = Vec::new();
        loop {
            let mut query = RangeQuery::new(KeyRange::All);
            query.after = items.last().map(|item| item.key.clone());
            let page = client
                .read(query, Consistency::Linearizable)
                .await
                .expect("the cluster can be read");
            items.extend(page.result.items);
            if !page.result.more {
                client.close().await;
                return items;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(key: &str, value: &str, version: u64) -> KeyValue {
        KeyValue {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            create_revision: 1,
            mod_revision: 1,
            version,
        }
    }

    fn told() -> Acknowledged {
        let mut told = Acknowledged::default();
        told.written.insert("a".into(), "1".into());
        told.unknown.insert("b".into());
        told.failed.insert("c".into(), "refused".to_owned());
        told
    }

    #[test]
    fn an_honest_cluster_passes_whatever_became_of_the_unknown() {
        told().check(&[held("a", "1", 1)]);
        told().check(&[held("a", "1", 1), held("b", "2", 1), held("other", "3", 7)]);
    }

    #[test]
    #[should_panic(expected = "acknowledged and missing")]
    fn a_lost_write_is_found() {
        told().check(&[held("b", "2", 1)]);
    }

    #[test]
    #[should_panic(expected = "another value")]
    fn a_changed_write_is_found() {
        told().check(&[held("a", "2", 1)]);
    }

    #[test]
    #[should_panic(expected = "more than once")]
    fn a_write_that_happened_twice_is_found() {
        told().check(&[held("a", "1", 2)]);
    }

    #[test]
    #[should_panic(expected = "clients were told of 3..=4")]
    fn an_increment_that_happened_twice_is_found() {
        let mut told = told();
        (told.counted, told.counted_unknown) = (3, 1);
        told.check_counter("n", &[held("n", "4", 4)]);
        told.check_counter("n", &[held("n", "5", 5)]);
    }

    #[test]
    #[should_panic(expected = "said to have failed")]
    fn a_failed_write_that_happened_is_found() {
        told().check(&[held("a", "1", 1), held("c", "3", 1)]);
    }
}
