//! Sabotages of the product, one line or two each, and which test must notice.
//!
//! A mutant is a file in `tests/mutants`: lines that begin with `#`, then a unified diff against the root of the workspace.
//!
//! ```text
//! # what is broken, in one line
//! # suite: test -p raft-core --test scripts
//! # suite: run -p kvd-sim -- --seeds 0..200
//! --- a/raft-core/src/...
//! +++ b/raft-core/src/...
//! @@ -1,3 +1,3 @@
//! ```
//!
//! The suites are arguments of `cargo`; the first that fails kills the mutant. The example `mutants` applies and runs them.
//!
//! A hunk is found by its text and not by its line numbers: the lines that it takes out or keeps must be in the file, in
//! order, exactly once. So an edit elsewhere in the file does not disturb it, and one in the middle of it is noticed.

use std::path::{Path, PathBuf};

/// One sabotage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// Name of its file, without the ending.
    pub name: String,
    /// What is broken, in one line.
    pub broken: String,
    /// Arguments of `cargo` for the suites that are to notice, in the order in which they are tried.
    pub suites: Vec<String>,
    /// What is changed.
    pub edits: Vec<Edit>,
}

/// One place that is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The file, relative to the root of the workspace.
    pub file: PathBuf,
    /// The lines that are there.
    pub before: String,
    /// The lines that take their place.
    pub after: String,
}

/// Why a file is no mutant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAMutant {
    /// It does not begin with a comment that says what is broken.
    #[error("the first line does not say what is broken")]
    NoStory,
    /// No suite is named.
    #[error("no suite is named")]
    NoSuite,
    /// Nothing is changed.
    #[error("nothing is changed")]
    NoEdit,
    /// A line that has no place in a unified diff.
    #[error("line {0} has no place in a unified diff")]
    BadLine(usize),
}

/// Why an edit cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: the lines to be changed are there {count} times, not once")]
pub struct DoesNotApply {
    /// The file.
    pub file: String,
    /// How often its text holds the lines.
    pub count: usize,
}

impl Mutant {
    /// Reads a mutant from the text of its file.
    ///
    /// # Errors
    /// What is missing, or which line makes no sense.
    pub fn parse(name: &str, text: &str) -> Result<Mutant, NotAMutant> {
        let comments: Vec<&str> = text
            .lines()
            .map_while(|line| line.strip_prefix('#'))
            .map(str::trim)
            .collect();
        let suite = |line: &&str| line.strip_prefix("suite: ").map(str::to_owned);
        let suites: Vec<String> = comments.iter().filter_map(suite).collect();
        let broken = comments.first().filter(|line| suite(line).is_none());
        let broken = broken.filter(|line| !line.is_empty());
        let broken = (*broken.ok_or(NotAMutant::NoStory)?).to_owned();
        if suites.is_empty() {
            return Err(NotAMutant::NoSuite);
        }
        let edits = parse_edits(text, comments.len())?;
        if edits.is_empty() {
            return Err(NotAMutant::NoEdit);
        }
        let name = name.to_owned();
        Ok(Mutant {
            name,
            broken,
            suites,
            edits,
        })
    }

    /// All mutants of a directory, in the order of their names.
    ///
    /// # Errors
    /// The directory or a file cannot be read, or is no mutant; the text says which.
    pub fn read_all(dir: &Path) -> Result<Vec<Mutant>, String> {
        let listed = std::fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()));
        let mut files = Vec::new();
        for entry in listed? {
            files.push(entry.map_err(|error| error.to_string())?.path());
        }
        files.sort();
        files.iter().map(|file| read(file)).collect()
    }
}

fn read(file: &Path) -> Result<Mutant, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| told(&error))?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    if file.extension().is_none_or(|ending| ending != "patch") {
        return Err(told(&"not a patch"));
    }
    Mutant::parse(&name, &text).map_err(|error| told(&error))
}

/// Reads the hunks of a unified diff that begins after `skipped` lines.
fn parse_edits(text: &str, skipped: usize) -> Result<Vec<Edit>, NotAMutant> {
    let mut edits = Vec::new();
    let mut file = None;
    for (number, line) in text.lines().enumerate().skip(skipped) {
        if line.starts_with("--- a/") {
            file = None; // Named by the next line.
        } else if let Some(name) = line.strip_prefix("+++ b/") {
            file = Some(PathBuf::from(name));
        } else if line.starts_with("@@ ") {
            let file = file.clone().ok_or(NotAMutant::BadLine(number + 1))?;
            let (before, after) = Default::default();
            edits.push(Edit {
                file,
                before,
                after,
            });
        } else {
            let edit = edits.last_mut().filter(|_| file.is_some());
            let edit = edit.ok_or(NotAMutant::BadLine(number + 1))?;
            add_line(edit, line).ok_or(NotAMutant::BadLine(number + 1))?;
        }
    }
    Ok(edits)
}

/// Takes one line of a hunk. An empty line is one of context whose blank somebody's editor took away.
fn add_line(edit: &mut Edit, line: &str) -> Option<()> {
    let (is_before, is_after, content) = match line.split_at_checked(1) {
        None => (true, true, ""),
        Some((" ", content)) => (true, true, content),
        Some(("-", content)) => (true, false, content),
        Some(("+", content)) => (false, true, content),
        Some(_) => return None,
    };
    for (wanted, side) in [(is_before, &mut edit.before), (is_after, &mut edit.after)] {
        if wanted {
            side.push_str(content);
            side.push('\n');
        }
    }
    Some(())
}

impl Edit {
    /// The text of the file after the edit.
    ///
    /// # Errors
    /// The lines that it changes are not there, or more than once.
    pub fn apply(&self, text: &str) -> Result<String, DoesNotApply> {
        // Whole lines only: each begins behind the end of another.
        let begins_a_line = |at: &usize| *at == 0 || text.as_bytes()[at - 1] == b'\n';
        let places = text.match_indices(&self.before).map(|(at, _)| at);
        let places: Vec<usize> = places.filter(begins_a_line).collect();
        let [at] = places[..] else {
            let (file, count) = (self.file.display().to_string(), places.len());
            return Err(DoesNotApply { file, count });
        };
        let (front, rest) = text.split_at(at);
        let behind = &rest[self.before.len()..];
        Ok([front, &self.after, behind].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "# two is left out\n# suite: test -p x\n--- a/x.rs\n+++ b/x.rs\n@@ -1,3 +1,2 @@\n one\n-two\n three\n";

    #[test]
    fn patch_is_read_and_applied_wherever_its_lines_are() {
        let mutant = Mutant::parse("01-x", PATCH).unwrap();
        assert_eq!(mutant.broken, "two is left out");
        assert_eq!(mutant.suites, ["test -p x"]);
        let [edit] = &mutant.edits[..] else {
            panic!("{:?}", mutant.edits);
        };
        assert_eq!(edit.file, Path::new("x.rs"));
        let text = "zero\none\ntwo\nthree\nfour\n";
        assert_eq!(edit.apply(text).unwrap(), "zero\none\nthree\nfour\n");
        assert_eq!(edit.apply("one\ntwo\nthree\n").unwrap(), "one\nthree\n");
    }

    #[test]
    fn patch_does_not_apply_to_other_lines_or_to_two_places() {
        let edit = &Mutant::parse("01-x", PATCH).unwrap().edits[0];
        let count = |text| edit.apply(text).map_err(|error| error.count);
        assert_eq!(count("one\ntoo\nthree\n"), Err(0));
        assert_eq!(count("someone\ntwo\nthree\n"), Err(0));
        assert_eq!(count("one\ntwo\nthree\none\ntwo\nthree\n"), Err(2));
    }

    #[test]
    fn incomplete_files_are_no_mutants() {
        let parse = |text: &str| Mutant::parse("x", text).unwrap_err();
        assert_eq!(parse("--- a/x\n"), NotAMutant::NoStory);
        assert_eq!(parse("# suite: test\n"), NotAMutant::NoStory);
        assert_eq!(parse("# broken\n"), NotAMutant::NoSuite);
        assert_eq!(parse("# broken\n# suite: test\n"), NotAMutant::NoEdit);
        let bad = PATCH.replace("-two", "*two");
        assert_eq!(parse(&bad), NotAMutant::BadLine(7));
        assert_eq!(parse("# b\n# suite: t\n one\n"), NotAMutant::BadLine(3));
    }
}
