//! A copy of the tree that can be changed and put back.

use std::path::{Path, PathBuf};
use std::process::Command;

use kvd_sim::mutants::Mutant;

/// A copy of all files that git knows.
pub(super) struct Copy(PathBuf);

/// What files held before they were changed.
pub(super) struct Undo(Vec<(PathBuf, String)>);

impl Copy {
    /// Copies the tree at `root` to `to`. Files that are the same there already are left alone, so that they need not be
    /// compiled again; others that lie there stay.
    pub(super) fn make(root: &Path, to: &Path) -> Result<Copy, String> {
        let listed = Command::new("git")
            .args([
                "ls-files",
                "--cached",
                "--others",
                "--exclude-standard",
                "-z",
            ])
            .current_dir(root)
            .output()
            .map_err(|error| format!("git: {error}"))?;
        if !listed.status.success() {
            return Err(format!("git ls-files: {}", listed.status));
        }
        let names = String::from_utf8(listed.stdout).map_err(|error| error.to_string())?;
        for name in names.split_terminator('\0') {
            copy_file(&root.join(name), &to.join(name))?;
        }
        Ok(Copy(to.to_owned()))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes all edits of a mutant, or none.
    pub(super) fn apply(&self, mutant: &Mutant) -> Result<Undo, String> {
        let mut changed: Vec<(PathBuf, String)> = Vec::new();
        let mut undo = Vec::new();
        for edit in &mutant.edits {
            let file = self.0.join(&edit.file);
            let known = changed.iter().position(|(path, _)| *path == file);
            let text = match known {
                Some(at) => changed.remove(at).1,
                None => {
                    let text = read(&file)?;
                    undo.push((file.clone(), text.clone()));
                    text
                }
            };
            let text = edit.apply(&text).map_err(|error| error.to_string())?;
            changed.push((file, text));
        }
        for (file, text) in &changed {
            write(file, text)?;
        }
        Ok(Undo(undo))
    }

    /// Puts back what a mutant has changed.
    pub(super) fn put_back(&self, undo: Undo) -> Result<(), String> {
        undo.0.iter().try_for_each(|(file, text)| write(file, text))
    }
}

fn copy_file(from: &Path, to: &Path) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{}: {error}", from.display());
    if !from.exists() {
        return Ok(()); // Removed, and git was not told yet.
    }
    let bytes = std::fs::read(from).map_err(told)?;
    if std::fs::read(to).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let parent = to.parent().expect("a file lies in a directory");
    std::fs::create_dir_all(parent).map_err(told)?;
    std::fs::copy(from, to).map(drop).map_err(told)
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}
