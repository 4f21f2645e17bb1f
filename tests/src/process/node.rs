//! One `kvd run` process.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::binaries::binaries;
use super::http::{HttpAnswer, http_request};
use super::wait::{PATIENCE, wait_for};

/// How much of a node's log is shown when a test fails.
const SHOWN_LINES: usize = 60;

/// A node: its directory, its addresses, and its process while it runs. Dropped, the process is killed.
#[derive(Debug)]
pub struct NodeProcess {
    /// Its name.
    pub name: String,
    /// Everything of it lies below.
    pub dir: PathBuf,
    /// Where peers and clients reach it.
    pub address: SocketAddr,
    /// Its HTTP side door.
    pub http: SocketAddr,
    child: Option<Child>,
}

impl NodeProcess {
    pub(super) fn new(
        name: String,
        dir: PathBuf,
        address: SocketAddr,
        http: SocketAddr,
    ) -> NodeProcess {
        NodeProcess {
            name,
            dir,
            address,
            http,
            child: None,
        }
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("kvd.toml")
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The directory of the write-ahead log.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.data_dir().join("log")
    }

    /// Overwrites settings in the configuration file; each is a section, a key and a value in TOML.
    ///
    /// # Panics
    /// The file is not ours to write.
    pub fn configure(&self, settings: &[(&str, &str, toml::Value)]) {
        let file = self.config_file();
        let text = std::fs::read_to_string(&file).expect("a joined node has a configuration");
        let mut document: toml::Table = text.parse().expect("join writes TOML");
        for (section, key, value) in settings {
            let table = document
                .entry(*section)
                .or_insert_with(|| toml::Table::new().into());
            let table = table.as_table_mut().expect("a section is a table");
            table.insert((*key).to_owned(), value.clone());
        }
        let text = toml::to_string(&document).expect("what was read can be written");
        std::fs::write(&file, text).expect("the configuration can be written");
    }

    /// Starts the process; does not wait until it serves.
    ///
    /// # Panics
    /// It runs already.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts the process with further flags.
    ///
    /// # Panics
    /// It runs already.
    pub fn start_with(&mut self, flags: &[&str]) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.stderr_file())
            .expect("our directory");
        let child = Command::new(&binaries().kvd)
            .args(["run", "--config"])
            .arg(self.config_file())
            .args(flags)
            .env_clear()
            .envs(
                std::env::vars_os()
                    .filter(|(name, _)| name == "KVD_LOG" || name == "RUST_BACKTRACE"),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("kvd starts");
        self.child = Some(child);
    }

    /// Whether it was started and has not been waited for.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// The process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Panics
    /// It does not run.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        child.kill().expect("our child can be killed");
        child.wait().expect("our child can be waited for");
    }

    /// `kill -TERM`; see [`wait_exit`](NodeProcess::wait_exit).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGTERM, and waits for exit code 0.
    ///
    /// # Panics
    /// It ends in another way, or not in time.
    pub fn stop(&mut self) {
        self.terminate();
        let status = self.wait_exit(PATIENCE);
        assert_eq!(
            status.code(),
            Some(0),
            "{} after SIGTERM: {}",
            self.name,
            self.log_tail()
        );
    }

    /// SIGSTOP: the process stays, and does nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the node runs");
        kill_process(Pid::from_child(child), signal).expect("our child can be signalled");
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Panics
    /// It does not end in time.
    pub fn wait_exit(&mut self, patience: Duration) -> ExitStatus {
        let name = self.name.clone();
        let child = self.child.as_mut().expect("the node was started");
        let what = format!("the end of {name}");
        let status = wait_for(&what, patience, || {
            child.try_wait().expect("our child can be asked for")
        });
        self.child = None;
        status
    }

    /// Starts it, expects that it refuses to serve, and returns exit code and last line of its log.
    ///
    /// # Panics
    /// It does not end, or by a signal.
    pub fn start_refused(&mut self, flags: &[&str]) -> (i32, String) {
        self.start_with(flags);
        let status = self.wait_exit(PATIENCE);
        let code = status
            .code()
            .unwrap_or_else(|| panic!("{} died by {status}: {}", self.name, self.log_tail()));
        (code, self.last_log_line())
    }

    /// Panics if the process has ended.
    ///
    /// # Panics
    /// It has ended.
    pub fn assert_alive(&mut self) {
        let child = self.child.as_mut().expect("the node was started");
        if let Some(status) = child.try_wait().expect("our child can be asked for") {
            panic!("{} ended with {status}: {}", self.name, self.log_tail());
        }
    }

    /// Waits until its HTTP door answers.
    ///
    /// # Panics
    /// It does not.
    pub fn wait_listening(&mut self) {
        let start = Instant::now();
        while self.get("/livez").is_none_or(|answer| answer.code != 200) {
            self.assert_alive();
            assert!(
                start.elapsed() < PATIENCE,
                "{} does not listen: {}",
                self.name,
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// GET on its HTTP door; `None` if nobody answers.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<HttpAnswer> {
        http_request(self.http, "GET", path, &[], b"").ok()
    }

    /// All it wrote to stderr since the cluster was made.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(self.stderr_file()).map_or_else(
            |error| format!("no log: {error}"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// The last line it wrote.
    #[must_use]
    pub fn last_log_line(&self) -> String {
        self.log()
            .lines()
            .next_back()
            .unwrap_or_default()
            .to_owned()
    }

    /// The end of its log, for the message of a failure.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(SHOWN_LINES);
        format!(
            "---- log of {}\n{}\n----",
            self.name,
            lines[from..].join("\n")
        )
    }

    fn stderr_file(&self) -> PathBuf {
        self.dir.with_extension("log")
    }

    /// Bytes of all files below its data directory.
    ///
    /// # Panics
    /// The directory cannot be read.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        tree_bytes(&self.data_dir())
    }
}

fn tree_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a data directory can be read");
    entries
        .map(|entry| {
            let entry = entry.expect("a data directory can be read");
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => tree_bytes(&entry.path()),
                Ok(metadata) => metadata.len(),
                // Removed in between: a running node discards old segments.
                Err(_) => 0,
            }
        })
        .sum()
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; there is nobody left to tell.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
