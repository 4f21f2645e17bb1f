//! `kvctl` and `kvd` as commands that end.

use std::io::{Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::wait::PATIENCE;

/// How a command ended and what it said.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The command line, for messages.
    pub command: String,
    /// Its exit code.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Ran {
    /// Stdout as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The same, if the exit code is this one.
    ///
    /// # Panics
    /// It is another.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Ran {
        assert_eq!(
            self.code,
            code,
            "exit code of `{}`\nstdout: {}\nstderr: {}",
            self.command,
            self.text(),
            self.stderr
        );
        self
    }

    /// Stdout as text, if it went well.
    ///
    /// # Panics
    /// It did not.
    #[track_caller]
    pub fn ok(self) -> String {
        self.expect_code(0).text()
    }

    /// Stdout as JSON, if it went well.
    ///
    /// # Panics
    /// It did not, or is not JSON.
    #[track_caller]
    #[must_use]
    pub fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// Runs a command to its end, with this on its stdin.
///
/// # Panics
/// It cannot be started, does not end within [`PATIENCE`] times three, or dies by a signal.
#[must_use]
pub fn run(mut command: Command, stdin: &[u8]) -> Ran {
    let words: Vec<String> = command
        .get_args()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let line = format!(
        "{} {}",
        command.get_program().to_string_lossy(),
        words.join(" ")
    );
    let start = Instant::now();
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{line}: {error}"));
    let stdout = drain(child.stdout.take().expect("piped"));
    let stderr = drain(child.stderr.take().expect("piped"));
    feed(&mut child, stdin.to_vec());
    let status = wait(&mut child, &line, PATIENCE * 3);
    let stdout = stdout.join().expect("reading a pipe");
    let stderr = String::from_utf8_lossy(&stderr.join().expect("reading a pipe")).into_owned();
    let code = status
        .code()
        .unwrap_or_else(|| panic!("{line} died by {status}: {stderr}"));
    Ran {
        command: line,
        code,
        stdout,
        stderr,
        took: start.elapsed(),
    }
}

fn wait(child: &mut Child, line: &str, patience: Duration) -> std::process::ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("our child can be asked for") {
            return status;
        }
        if start.elapsed() > patience {
            child.kill().expect("our child can be killed");
            panic!("{line} does not end");
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn feed(child: &mut Child, bytes: Vec<u8>) {
    let mut stdin = child.stdin.take().expect("piped");
    // A command that does not read its stdin is none of our business, so a broken pipe is not looked at.
    std::thread::spawn(move || {
        let _ = stdin.write_all(&bytes);
    });
}

fn drain(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("reading a pipe");
        bytes
    })
}
