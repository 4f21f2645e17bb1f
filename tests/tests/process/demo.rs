//! `kvd demo`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use kvd_sim::process::{
    PATIENCE, Ran, binaries, http_request, run_command, scratch_root, wait_for,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

fn home() -> TempDir {
    tempfile::Builder::new()
        .prefix("demo-")
        .tempdir_in(scratch_root())
        .expect("a directory for a test")
}

fn command(home: &TempDir, words: &[&str]) -> Command {
    let mut command = Command::new(&binaries().kvd);
    command.arg("demo").args(words).current_dir(home.path());
    command.env("TMPDIR", home.path()).env("HOME", home.path());
    command
        .env("XDG_CONFIG_HOME", home.path())
        .env("KVCTL_CONFIG", home.path().join("contexts"));
    command
}

fn demo(home: &TempDir, words: &[&str], script: &str) -> Ran {
    run_command(command(home, words), script.as_bytes())
}

/// Must show 1: fed from a pipe, the demo runs `set`, `get`, `leader`, `nodes`, `crash`, `restart` and exits 0.
#[test]
fn a_script_from_a_pipe_is_executed() {
    let home = home();
    let script = "\
        nodes\nleader\nset color red\nget color\nexpect red\n\
        crash n1\nset color green @n2\nget color @n3\nexpect green\nrestart n1\nget color @n1\nexpect green\n\
        crash n2\nset color blue\nrestart n2\nget color @n2\nexpect blue\n\
        crash n3\nset color black\nrestart n3\nget color @n3\nexpect black\nleader\nnodes\n";
    let ran = demo(&home, &[], script);
    let text = ran.clone().ok();
    for word in ["red", "green", "blue", "n1", "n2", "n3", "kvctl", "curl"] {
        assert!(
            text.contains(word),
            "`{word}` is not in:\n{text}\n{}",
            ran.stderr
        );
    }
    let left: Vec<_> = std::fs::read_dir(home.path())
        .expect("our directory")
        .map(|entry| {
            entry
                .expect("our directory")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| name.starts_with("kvd-demo"))
        .collect();
    assert_eq!(
        left,
        Vec::<String>::new(),
        "the temporary directory is removed at the end"
    );
}

/// Must show 1, the other way: the first line that fails ends the demo with 1, and later lines are not executed.
#[test]
fn a_failing_line_ends_the_demo_with_one() {
    let home = home();
    let ran = demo(
        &home,
        &["--script", "-"],
        "set color red\nget color\nexpect green\nset color later\n",
    )
    .expect_code(1);
    let last = ran.stderr.lines().next_back().unwrap_or_default();
    assert!(last.contains("line 3"), "{last}");
    assert!(!ran.text().contains("later"), "{}", ran.text());
    let ran = demo(&home, &["--nodes", "1"], "fly away\n").expect_code(1);
    assert!(ran.stderr.contains("line 1"), "{}", ran.stderr);
}

/// Ends the process with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody left to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Must show 1: the `kvctl` and `curl` lines that the demo prints work.
#[test]
fn the_printed_lines_work() {
    let home = home();
    let mut command = command(&home, &["--no-shell"]);
    let log = std::fs::File::create(home.path().join("stderr")).expect("our directory");
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn();
    let mut child = Running(child.expect("kvd starts"));
    let mut lines = BufReader::new(child.0.stdout.take().expect("piped")).lines();
    let mut printed = Vec::new();
    while printed
        .iter()
        .filter(|line: &&String| line.contains("curl"))
        .count()
        < 3
    {
        let line = lines.next().expect("three curl lines come").expect("text");
        printed.push(line.trim().to_owned());
    }
    for line in printed.iter().filter(|line| line.contains("kvctl")) {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir(home.path());
        shell
            .env("HOME", home.path())
            .env("KVCTL_CONFIG", home.path().join("contexts"));
        let text = run_command(shell, b"").ok();
        assert!(
            text.contains("OK") || text.contains("red"),
            "{line}: {text}"
        );
    }
    let url = printed.iter().find_map(|line| {
        line.split("http://")
            .nth(1)
            .filter(|url| url.contains("/get/"))
    });
    let (host, path) = url
        .expect("a line with a URL to get")
        .split_once('/')
        .expect("a URL has a path");
    let answer = http_request(
        host.parse().expect("an address"),
        "GET",
        &format!("/{path}"),
        &[],
        b"",
    );
    assert_eq!(answer.expect("the demo serves").text(), "red");
    kill_process(Pid::from_child(&child.0), Signal::TERM).expect("our child");
    let status = wait_for("the end of the demo", PATIENCE, || {
        child.0.try_wait().expect("our child")
    });
    assert_eq!(status.code(), Some(0));
}
