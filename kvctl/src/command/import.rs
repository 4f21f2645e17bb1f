//! `kvctl import`: many keys out of a file, in batches, many of them on their way at the same time.
//!
//! Every batch is one write of the client's session, so a batch that is repeated after a change of leader takes effect once,
//! and batches take effect in the order of the file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kvd::client::{Client, ClientOptions, PendingWrite};
use kvd::kv::command::{Command, Op, Txn};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Answer;
use crate::cli::{FileFormat, ImportArgs};
use crate::connect::Session;
use crate::escape::unescape;
use crate::fault::Fault;
use crate::json::value_bytes;
use crate::output::Sentence;

/// Batches on their way at the same time.
const BATCHES_IN_FLIGHT_MAX: usize = 128;
/// Keys on their way at the same time: the cluster keeps their results until they are acknowledged.
const KEYS_IN_FLIGHT_MAX: usize = 4096;
/// Bytes on their way at the same time.
const BYTES_IN_FLIGHT_MAX: usize = 8 << 20;
/// A batch is sent when it is this large, even with fewer keys; one write must stay below the limit of a request.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Longest line; a value of a megabyte may be four times as long with its escapes.
const LINE_BYTES_MAX: usize = 16 << 20;
/// A change of leader in the middle must not end an import, so a batch has at least this long.
const TIMEOUT_MIN: Duration = Duration::from_secs(30);
/// Batches that wait between the reader of the file and the sender.
const READ_AHEAD: usize = 16;

pub(super) async fn run(args: ImportArgs, session: &Session) -> Result<Answer, Fault> {
    let (input, length) = open(&args.file)?;
    let bar = progress_bar(length, session.printer.quiet);
    let (batches, mut read) = mpsc::channel(READ_AHEAD);
    let (format, size) = (args.format, usize::from(args.batch));
    // Reading may block, on a pipe for ever, and the network must not wait for it.
    std::thread::spawn(move || read_batches(input, format, size, &batches));
    let client = Client::new(ClientOptions {
        timeout: session.options.timeout.max(TIMEOUT_MIN),
        prefer_leader: true,
        retry_overloaded: true,
        ..session.options.clone()
    });
    let mut import = Import::new(&client, &bar, args.rate);
    let result = import.run(&mut read).await;
    client.close().await;
    bar.finish_and_clear();
    match result {
        Ok(()) => Ok(Answer::done(import.summary())),
        Err(fault) => Err(fault.with_known(import.written())),
    }
}

fn open(file: &Path) -> Result<(Box<dyn Read + Send>, Option<u64>), Fault> {
    if file == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let fault = |error: io::Error| Fault::usage(format!("{}: {error}", file.display()));
    let handle = File::open(file).map_err(fault)?;
    let metadata = handle.metadata().map_err(fault)?;
    if metadata.is_dir() {
        return Err(Fault::usage(format!("{} is a directory", file.display())));
    }
    let length = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(handle), length))
}

fn progress_bar(length: Option<u64>, quiet: bool) -> ProgressBar {
    let shown = io::stderr().is_terminal() && !quiet;
    let target = if shown {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(length, target);
    let template = match length {
        Some(_) => {
            "importing {bar:30} {percent:>3}%  {bytes} of {total_bytes}  {bytes_per_sec}  {msg}  eta {eta}"
        }
        None => "importing {spinner}  {bytes}  {bytes_per_sec}  {msg}",
    };
    bar.set_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}

/// Some lines of the file, understood.
#[derive(Debug, Default, PartialEq, Eq)]
struct Batch {
    pairs: Vec<(Bytes, Bytes)>,
    /// Bytes of the keys and values.
    bytes: usize,
    /// Bytes in the file.
    file_bytes: usize,
}

/// Cuts the input into batches, until its end, an error, or nobody takes them any more.
fn read_batches(
    input: impl Read,
    format: FileFormat,
    size: usize,
    batches: &mpsc::Sender<Result<Batch, Fault>>,
) {
    let mut input = BufReader::with_capacity(1 << 16, input);
    let mut batch = Batch::default();
    for number in 1_u64.. {
        let line = match next_line(&mut input) {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => {
                send_rest(
                    batch,
                    Some(Fault::usage(format!("line {number}: {error}"))),
                    batches,
                );
                return;
            }
        };
        match parse(&line, format) {
            Ok((key, value)) => {
                batch.bytes += key.len() + value.len();
                batch.file_bytes += line.len() + 1;
                batch.pairs.push((key.into(), value.into()));
            }
            Err(why) => {
                send_rest(
                    batch,
                    Some(Fault::usage(format!("line {number}: {why}"))),
                    batches,
                );
                return;
            }
        }
        if batch.pairs.len() >= size || batch.bytes >= BATCH_BYTES_MAX {
            // Nobody takes batches any more after an error of the cluster.
            if batches
                .blocking_send(Ok(std::mem::take(&mut batch)))
                .is_err()
            {
                return;
            }
        }
    }
    send_rest(batch, None, batches);
}

/// What was read before the end, or before a fault.
fn send_rest(batch: Batch, fault: Option<Fault>, batches: &mpsc::Sender<Result<Batch, Fault>>) {
    let rest = (!batch.pairs.is_empty()).then_some(Ok(batch));
    for message in rest.into_iter().chain(fault.map(Err)) {
        // Nobody takes batches any more after an error of the cluster.
        if batches.blocking_send(message).is_err() {
            return;
        }
    }
}

/// The next line without its end. The last line needs none.
fn next_line(input: &mut impl BufRead) -> Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    let limit = LINE_BYTES_MAX as u64 + 1;
    let read = input
        .by_ref()
        .take(limit)
        .read_until(b'\n', &mut line)
        .map_err(|error| error.to_string())?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > LINE_BYTES_MAX {
        return Err(format!("is longer than {LINE_BYTES_MAX} bytes"));
    }
    Ok(Some(line))
}

type Pair = (Vec<u8>, Vec<u8>);

fn parse(line: &[u8], format: FileFormat) -> Result<Pair, String> {
    let (key, value) = match format {
        FileFormat::Tsv => parse_tsv(line)?,
        FileFormat::Jsonl => parse_jsonl(line)?,
    };
    if key.is_empty() {
        return Err("the key is empty".to_owned());
    }
    Ok((key, value))
}

fn parse_tsv(line: &[u8]) -> Result<Pair, String> {
    let tab = line
        .iter()
        .position(|byte| *byte == b'\t')
        .ok_or("has no tab between key and value")?;
    let (key, value) = (&line[..tab], &line[tab + 1..]);
    if value.contains(&b'\t') {
        return Err("has a second tab; a tab in a value is written \\t".to_owned());
    }
    Ok((unescape(key)?, unescape(value)?))
}

fn parse_jsonl(line: &[u8]) -> Result<Pair, String> {
    let value: Value =
        serde_json::from_slice(line).map_err(|error| format!("is not JSON: {error}"))?;
    let field = |name: &str| {
        let field = value
            .get(name)
            .ok_or_else(|| format!("has no \"{name}\""))?;
        value_bytes(field).map_err(|why| format!("\"{name}\": {why}"))
    };
    Ok((field("key")?, field("value")?))
}

/// A batch on its way.
struct Sent {
    write: PendingWrite,
    keys: usize,
    bytes: usize,
    file_bytes: usize,
}

struct Import<'a> {
    client: &'a Client,
    bar: &'a ProgressBar,
    rate: Option<u32>,
    began: Instant,
    in_flight: VecDeque<Sent>,
    keys_in_flight: usize,
    bytes_in_flight: usize,
    keys_sent: u64,
    keys_written: u64,
    bytes_written: u64,
}

impl<'a> Import<'a> {
    fn new(client: &'a Client, bar: &'a ProgressBar, rate: Option<u32>) -> Import<'a> {
        Import {
            client,
            bar,
            rate,
            began: Instant::now(),
            in_flight: VecDeque::new(),
            keys_in_flight: 0,
            bytes_in_flight: 0,
            keys_sent: 0,
            keys_written: 0,
            bytes_written: 0,
        }
    }

    async fn run(
        &mut self,
        batches: &mut mpsc::Receiver<Result<Batch, Fault>>,
    ) -> Result<(), Fault> {
        let mut fault = None;
        while let Some(batch) = batches.recv().await {
            match batch {
                Ok(batch) => self.send(batch).await?,
                Err(in_file) => fault = Some(in_file),
            }
        }
        while !self.in_flight.is_empty() {
            self.wait_for_oldest().await?;
        }
        fault.map_or(Ok(()), Err)
    }

    async fn send(&mut self, batch: Batch) -> Result<(), Fault> {
        while self.is_full(&batch) {
            self.wait_for_oldest().await?;
        }
        self.keep_to_rate().await;
        let (keys, bytes, file_bytes) = (batch.pairs.len(), batch.bytes, batch.file_bytes);
        let write = self.client.submit(command(batch.pairs)).await?;
        self.keys_in_flight += keys;
        self.bytes_in_flight += bytes;
        self.keys_sent += keys as u64;
        self.in_flight.push_back(Sent {
            write,
            keys,
            bytes,
            file_bytes,
        });
        Ok(())
    }

    fn is_full(&self, batch: &Batch) -> bool {
        !self.in_flight.is_empty()
            && (self.in_flight.len() >= BATCHES_IN_FLIGHT_MAX
                || self.keys_in_flight + batch.pairs.len() > KEYS_IN_FLIGHT_MAX
                || self.bytes_in_flight + batch.bytes > BYTES_IN_FLIGHT_MAX)
    }

    async fn wait_for_oldest(&mut self) -> Result<(), Fault> {
        let Some(sent) = self.in_flight.pop_front() else {
            return Ok(());
        };
        self.keys_in_flight -= sent.keys;
        self.bytes_in_flight -= sent.bytes;
        let result = sent.write.result().await?;
        if !result.succeeded {
            return Err(super::strange());
        }
        self.keys_written += sent.keys as u64;
        self.bytes_written += sent.bytes as u64;
        self.bar.inc(sent.file_bytes as u64);
        self.bar.set_message(format!("{} keys", self.keys_written));
        Ok(())
    }

    async fn keep_to_rate(&self) {
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.keys_sent as f64 / f64::from(rate));
            tokio::time::sleep(due.saturating_sub(self.began.elapsed())).await;
        }
    }

    /// For an error: what had certainly been done.
    fn written(&self) -> String {
        format!(
            "keys certainly written before: {}; the same import can be run again",
            self.keys_written
        )
    }

    fn summary(&self) -> Sentence {
        let elapsed = self.began.elapsed();
        let per_second = self.keys_written as f64 / elapsed.as_secs_f64().max(0.001);
        Sentence {
            text: format!(
                "imported {} keys, {} in {} ({per_second:.0}/s)",
                self.keys_written,
                HumanBytes(self.bytes_written),
                HumanDuration(elapsed)
            ),
            facts: json!({
                "keys": self.keys_written,
                "bytes": self.bytes_written,
                "seconds": elapsed.as_secs_f64(),
            }),
        }
    }
}

fn command(pairs: Vec<(Bytes, Bytes)>) -> Command {
    let steps = pairs.into_iter().map(|(key, value)| Op::Put {
        key,
        value,
        want_previous: false,
    });
    Command::Txn(Txn {
        then: steps.collect(),
        ..Txn::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(input: &[u8], size: usize) -> Vec<Result<Batch, Fault>> {
        let (sender, mut receiver) = mpsc::channel(100);
        let input = input.to_vec();
        std::thread::spawn(move || read_batches(input.as_slice(), FileFormat::Tsv, size, &sender));
        std::iter::from_fn(|| receiver.blocking_recv()).collect()
    }

    #[test]
    fn lines_become_batches_and_the_last_line_needs_no_end() {
        let batches = batches(b"a\t1\nb\t\nc\tx\\ty", 2);
        let pairs: Vec<_> = batches
            .into_iter()
            .flat_map(|batch| batch.unwrap().pairs)
            .collect();
        assert_eq!(pairs[0], (Bytes::from("a"), Bytes::from("1")));
        assert_eq!(pairs[1], (Bytes::from("b"), Bytes::new()));
        assert_eq!(pairs[2], (Bytes::from("c"), Bytes::from("x\ty")));
    }

    #[test]
    fn a_bad_line_is_named_after_everything_before_it_was_sent() {
        let mut batches = batches(b"a\t1\nb\t2\nno tab\nc\t3\n", 100);
        assert_eq!(batches.len(), 2);
        assert_eq!(batches.remove(0).unwrap().pairs.len(), 2);
        assert_eq!(
            batches.remove(0).unwrap_err().what,
            "line 3: has no tab between key and value"
        );
    }

    #[test]
    fn lines_that_are_not_a_pair_are_refused() {
        for line in ["\tv", "k", "k\tv\tw", "k\t\\q"] {
            assert!(parse(line.as_bytes(), FileFormat::Tsv).is_err(), "{line}");
        }
        for line in [
            "",
            "{}",
            "{\"key\":\"k\"}",
            "{\"key\":1,\"value\":\"v\"}",
            "[]",
        ] {
            assert!(parse(line.as_bytes(), FileFormat::Jsonl).is_err(), "{line}");
        }
        let pair = parse(
            b"{\"key\":{\"b64\":\"/w==\"},\"value\":\"v\"}",
            FileFormat::Jsonl,
        )
        .unwrap();
        assert_eq!(pair, (vec![0xff], b"v".to_vec()));
    }

    #[test]
    fn a_batch_ends_at_its_size_in_keys_or_bytes() {
        assert_eq!(batches(b"a\t1\nb\t2\nc\t3\n", 2).len(), 2);
        let large = format!("a\t{0}\nb\t{0}\n", "x".repeat(BATCH_BYTES_MAX));
        assert_eq!(batches(large.as_bytes(), 100).len(), 2);
    }
}
