//! House rules that a compiler cannot know.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Lines of the longest file without a reason.
const LINES_MAX: usize = 600;

/// Files that may be longer, each with its reason.
const LONGER: [(&str, &str); 0] = [];

/// The only file with `unsafe`: mapping a file into memory.
const UNSAFE_FILE: &str = "raft-log/src/mmap.rs";

/// The least version of a dependency, and why.
const LEAST_VERSIONS: [(&str, [u64; 3], &str); 3] = [
    (
        "quinn-proto",
        [0, 11, 15],
        "peers could make it panic and use up memory",
    ),
    ("memmap2", [0, 9, 11], "unsound on overlong ranges"),
    (
        "rustls-webpki",
        [0, 103, 13],
        "name constraints and revocation were not checked everywhere",
    ),
];

/// Dependencies that must not come in, not even through others.
const UNWANTED: [(&str, &str); 3] = [
    ("rustls-pemfile", "unmaintained; rustls-pki-types reads PEM"),
    ("openssl-sys", "a C library of the system"),
    (
        "aws-lc-sys",
        "a second cryptography library beside ring; needs cmake",
    ),
];

/// Scenarios that must be shown by a test of this stage.
const CASES: [u32; 59] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
    27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50,
    51, 52, 53, 54, 55, 56, 57, 59, 61,
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .expect("the workspace")
}

/// Every file of the checkout that is a source of ours, relative to its root.
fn sources(extensions: &[&str]) -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    collect(&root, &mut found);
    found.retain(|path| {
        path.extension()
            .is_some_and(|it| extensions.iter().any(|wanted| it == *wanted))
    });
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (
                path.strip_prefix(&root)
                    .unwrap_or(&path)
                    .display()
                    .to_string(),
                text,
            )
        })
        .collect()
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("the checkout can be read") {
        let entry = entry.expect("the checkout can be read");
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir && !name.starts_with('.') && !name.starts_with("target") && name != "peers" {
            collect(&entry.path(), found);
        } else if !is_dir {
            found.push(entry.path());
        }
    }
}

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn sources_are_ascii() {
    let mut found = Vec::new();
    for (file, text) in sources(&["rs", "toml"]) {
        for (number, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.is_ascii())
        {
            found.push(format!("{file}:{}: {line}", number + 1));
        }
    }
    assert_none("not ASCII", &found);
}

/// Compilers enforce it per crate; this says it for the whole workspace, tests and examples included.
#[test]
fn only_one_file_has_unsafe_code() {
    let keyword = ["un", "safe"].concat();
    let mut found = Vec::new();
    for (file, text) in sources(&["rs"])
        .iter()
        .filter(|(file, _)| file != UNSAFE_FILE)
    {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let mut words = code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '"'));
            if words.any(|word| word == keyword) {
                found.push(format!("{file}:{}: {line}", number + 1));
            }
        }
    }
    assert_none("code that the compiler cannot check", &found);
}

/// Where the lint is switched off, such code could come in through a macro, without the word.
#[test]
fn only_one_file_switches_that_lint_off() {
    let lint = ["unsafe", "_code"].concat();
    let mut found = Vec::new();
    for (file, text) in sources(&["rs", "toml"])
        .iter()
        .filter(|(file, _)| file != UNSAFE_FILE)
    {
        for level in ["allow(", "expect(", "warn("] {
            let lists = text.split(level).skip(1);
            let mut lists = lists.map(|after| after.split(')').next().unwrap_or_default());
            if lists.any(|list| list.contains(&lint)) {
                found.push(format!("{file}: {level}{lint})"));
            }
        }
        if file.ends_with(".toml") && text.contains(&lint) {
            found.push(format!("{file}: {lint}"));
        }
    }
    assert_none("code that the compiler may not check", &found);
}

#[test]
fn every_crate_forbids_or_denies_unsafe_code() {
    let crates = [
        "raft-core",
        "raft-log",
        "raft-log/fuzz",
        "raft-net",
        "kvd",
        "kvctl",
        "tests",
    ];
    let mut found = Vec::new();
    for (file, text) in sources(&["rs"]) {
        let is_root = crates
            .iter()
            .any(|it| file == format!("{it}/src/lib.rs") || file == format!("{it}/src/main.rs"));
        let attribute = if file.starts_with("raft-log/src/") {
            "#![deny(unsafe_code)]"
        } else {
            "#![forbid(unsafe_code)]"
        };
        if is_root && !text.contains(attribute) {
            found.push(format!("{file} lacks {attribute}"));
        }
    }
    assert_none("crates", &found);
}

#[test]
fn no_file_is_too_long() {
    let mut found = Vec::new();
    for (file, text) in sources(&["rs"]) {
        let lines = text.lines().count();
        let is_excepted = LONGER.iter().any(|(name, _)| *name == file);
        if (lines > LINES_MAX) != is_excepted {
            found.push(format!("{file}: {lines} lines, excepted: {is_excepted}"));
        }
    }
    assert_none(
        &format!("more than {LINES_MAX} lines, or an exception that is none any more"),
        &found,
    );
}

/// Names and versions in `Cargo.lock`.
fn locked() -> Vec<(String, String)> {
    let text =
        std::fs::read_to_string(root().join("Cargo.lock")).expect("the lock file is committed");
    let lock: toml::Table = text.parse().expect("cargo writes TOML");
    let packages = lock["package"].as_array().expect("a list");
    let field =
        |package: &toml::Value, name: &str| package[name].as_str().expect("text").to_owned();
    packages
        .iter()
        .map(|package| (field(package, "name"), field(package, "version")))
        .collect()
}

fn parse_version(version: &str) -> [u64; 3] {
    let mut numbers = version
        .split(['.', '-', '+'])
        .map(|part| part.parse().unwrap_or(0));
    [(); 3].map(|()| numbers.next().unwrap_or(0))
}

#[test]
fn dependencies_are_not_older_than_their_fixes() {
    let mut found = Vec::new();
    for (name, version) in locked() {
        for (least_name, least, why) in LEAST_VERSIONS {
            if name == least_name && parse_version(&version) < least {
                found.push(format!("{name} {version} is older than {least:?}: {why}"));
            }
        }
    }
    assert_none("old dependencies", &found);
}

#[test]
fn unwanted_dependencies_stay_out() {
    let locked = locked();
    let mut found = Vec::new();
    for (name, why) in UNWANTED {
        if locked.iter().any(|(locked, _)| locked == name) {
            found.push(format!("{name}: {why}"));
        }
    }
    assert_none("unwanted dependencies", &found);
}

#[test]
fn every_published_crate_has_a_readme() {
    let mut found = Vec::new();
    for (file, text) in sources(&["toml"]) {
        let Some(dir) = file
            .strip_suffix("Cargo.toml")
            .filter(|_| text.contains("[package]"))
        else {
            continue;
        };
        let is_published = !text.contains("publish = false");
        if is_published && !root().join(dir).join("README.md").is_file() {
            found.push(format!("{dir} has no README.md"));
        }
    }
    assert_none("crates", &found);
}

/// A case is shown by a test whose doc comment says so, `/// Case 17: ...`, or by a script whose first line does, `# Case 5: ...`.
#[test]
fn every_case_of_this_stage_is_shown_by_a_test() {
    let tests = sources(&["rs"]);
    let scripts = sources(&["txt"]);
    let scripts = scripts
        .iter()
        .filter(|(file, _)| file.contains("/testdata/"));
    let mut shown: BTreeSet<u32> = tests
        .iter()
        .flat_map(|(_, text)| cases_in(text, "///"))
        .collect();
    shown.extend(
        scripts.flat_map(|(_, text)| cases_in(text.lines().next().unwrap_or_default(), "#")),
    );
    let missing: Vec<String> = CASES
        .iter()
        .filter(|case| !shown.contains(case))
        .map(|case| format!("case {case}"))
        .collect();
    assert_none("no test says that it shows", &missing);
}

/// Numbers after `Case` or `Cases` in comments that begin with `mark`: `/// Case 59, as a client: ...`,
/// `/// Cases 2 and 21: ...`.
fn cases_in(text: &str, mark: &str) -> BTreeSet<u32> {
    let docs = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix(mark));
    let mut found = BTreeSet::new();
    for line in docs {
        let Some(after) = line.trim_start().strip_prefix("Case") else {
            continue;
        };
        let numbers = after.split(':').next().unwrap_or_default();
        found.extend(
            numbers
                .split(|c: char| !c.is_ascii_digit())
                .filter_map(|word| word.parse::<u32>().ok()),
        );
    }
    found
}

#[test]
fn numbers_of_cases_are_read_from_doc_comments_only() {
    let text = "// Case 1: no\n    /// Case 59 with kvctl: yes\n/// Cases 2 and 21: yes\n/// In case 3: no\n";
    assert_eq!(cases_in(text, "///"), BTreeSet::from([2, 21, 59]));
}

/// Scenarios in the table of docs/testing.md.
const SCENARIOS: std::ops::RangeInclusive<u32> = 1..=23;

#[test]
fn every_scenario_of_raft_has_tests_that_exist() {
    let text = std::fs::read_to_string(root().join("docs/testing.md"));
    let text = text.expect("the checkout can be read");
    let rows: Vec<(u32, Vec<&str>)> = text.lines().filter_map(scenario_of_row).collect();
    let numbers: Vec<u32> = rows.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, SCENARIOS.collect::<Vec<u32>>());
    let tests = sources(&["rs"]);
    let exists = |name: &str| {
        tests
            .iter()
            .any(|(_, text)| text.contains(&format!("\nfn {name}()")))
    };
    let mut missing = Vec::new();
    for (number, names) in &rows {
        if names.is_empty() {
            missing.push(format!("scenario {number} names no test"));
        }
        let gone = names.iter().filter(|name| !exists(name));
        missing.extend(gone.map(|name| format!("scenario {number}: no test is called {name}")));
    }
    assert_none("in docs/testing.md", &missing);
}

/// A row that begins with a number: the number, and the names in backquotes without their modules.
fn scenario_of_row(line: &str) -> Option<(u32, Vec<&str>)> {
    let mut cells = line.strip_prefix('|')?.split('|');
    let number = cells.next()?.trim().parse().ok()?;
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    Some((
        number,
        names.filter_map(|name| name.rsplit("::").next()).collect(),
    ))
}

#[test]
fn names_of_tests_are_read_from_rows_with_a_number() {
    let row = "| 7 | away | `followers::is_away`, `is_back` | as 2 |";
    assert_eq!(scenario_of_row(row), Some((7, vec!["is_away", "is_back"])));
    assert_eq!(scenario_of_row("| | set | `commands::set` | |"), None);
}
