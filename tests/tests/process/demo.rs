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

/// Two nodes join in one change, the leader leaves, and a name that became free is used by a new node; all of it without losing
/// a write. Started again on the same directory, the demo has the nodes that there were.
#[test]
fn members_come_and_go_by_script() {
    let home = home();
    let script = "\
        set color red\nadd n4 n5\nstatus\nset color green @n5\n\
        transfer n2\nremove n2\nget color\nexpect green\nset color blue\n\
        11 n2\nget color @n2\nexpect blue\ncrash n4\n12 n3 n4\nnodes\nget color @n5\nexpect blue\n";
    let ran = demo(&home, &["--data-dir", "kept"], script);
    let text = ran.ok();
    for line in [
        "before  3 voters; quorum is 2, 1 more may fail",
        "n4 and n5 vote",
        "after   5 voters; quorum is 3, 2 more may fail",
        "n2 leads",
        "n2 left for good",
        "after   4 voters; quorum is 3, 1 more may fail",
        "note: an even number of voters bears no more failures than one voter less",
        "n2 vote",
        "n3 and n4 left for good",
        "after   3 voters; quorum is 2, 1 more may fail",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
    }
    let again = demo(
        &home,
        &["--data-dir", "kept"],
        "get color\nexpect blue\nnodes\n",
    );
    let text = again.ok();
    for (name, is_there) in [
        ("n1", true),
        ("n2", true),
        ("n3", false),
        ("n4", false),
        ("n5", true),
    ] {
        let listed = text
            .lines()
            .any(|line| line.starts_with(&format!("{name}  ")) && line.contains("term"));
        assert_eq!(listed, is_there, "{name}:\n{text}");
    }
}

/// What cannot be ends the script, and leaves nothing behind.
#[test]
fn members_that_cannot_change_are_refused() {
    let home = home();
    for (line, why) in [
        ("add n1", "there is a node n1 already"),
        ("add N4", "lower-case"),
        ("remove n9", "no node is called n9"),
        ("remove n1 n2 n3", "n1"),
        ("transfer n9", "n9"),
        ("pause n9", "no node is called n9"),
    ] {
        let ran = demo(&home, &["--data-dir", "kept"], line).expect_code(1);
        let last = ran.stderr.lines().next_back().unwrap_or_default();
        assert!(last.contains("line 1") && last.contains(why), "{last}");
    }
    let text = demo(&home, &["--data-dir", "kept"], "set color red\nnodes\n").ok();
    let nodes = text.lines().filter(|line| line.contains("  term ")).count();
    assert_eq!(nodes, 3, "{text}");
}

/// Nodes that stand still, links that are slow or lose, a slow disk: writes go on, and whoever was away has all of them.
#[test]
fn grey_failures_by_script() {
    let home = home();
    let script = "\
        transfer n1\npause n1\nnodes\nset color red @n2\nget color @n3\nexpect red\nresume n1\nget color @n1\nexpect red\n\
        delay n1 n2 20ms\nloss n1 n3 10%\nslow-disk n3 30ms\nset color green @n2\nget color @n1\nexpect green\n\
        crash n3\nrestart n3\nheal\nslow-disk n3 0ms\n\
        partition n1 n2 | n3\nset color blue @n1\nget color @n2\nexpect blue\nheal\nget color @n3\nexpect blue\n\
        pause n2\ncrash n2\nset color black\nrestart n2\nget color @n2\nexpect black\n\
        cas color black white\nget color\nexpect white\n\
        discard n1\nset color grey\nlog n1 3\nstatus\npause n3\n";
    let text = demo(&home, &[], script).ok();
    for word in [
        "n1  paused",
        "n1 has a snapshot of entry",
        "set color grey",
        "quorum is 2",
    ] {
        assert!(text.contains(word), "{word}:\n{text}");
    }
    let ran = demo(
        &home,
        &["--nodes", "1"],
        "set color red\ncas color blue green\n",
    );
    let ran = ran.expect_code(1);
    assert!(
        ran.stderr.contains("color holds red and not blue"),
        "{}",
        ran.stderr
    );
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
