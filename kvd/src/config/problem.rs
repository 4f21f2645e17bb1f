//! What is wrong with a configuration, and how that is shown: file, line, caret, help.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The file, at these bytes and this line (counted from 1).
    File {
        /// The bytes of the value in the file.
        span: Range<usize>,
        /// Its line.
        line: usize,
    },
    /// An environment variable of this name.
    Environment(String),
    /// A flag of this name, without dashes.
    Flag(String),
}

/// One thing that is wrong or doubtful.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, without the place.
    pub title: String,
    /// What stands beside the caret.
    pub label: String,
    /// Where it was found.
    pub origin: Origin,
    /// What to do, if that can be said.
    pub help: Option<String>,
}

/// Why there is no configuration.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file or other settings are wrong; all problems at once.
    Invalid(Box<Invalid>),
}

/// All problems of one configuration, with the text they point into.
#[derive(Debug)]
pub struct Invalid {
    /// The file, when there is one.
    pub file: Option<PathBuf>,
    /// Its text; empty without a file.
    pub text: String,
    /// What is wrong; never empty.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// The full report, one block per problem, with colours if wanted.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        match self {
            ConfigError::Unreadable { file, source } => format!(
                "error: cannot read the configuration\n --> {}: {source}\nhelp: `kvd join BUNDLE` writes it; `kvd config default` prints an example",
                file.display()
            ),
            ConfigError::Invalid(invalid) => invalid
                .problems
                .iter()
                .map(|problem| invalid.render_one(Level::ERROR, problem, colour))
                .collect::<Vec<_>>()
                .join("\n\n"),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Unreadable { file, source } => {
                write!(f, "cannot read {}: {source}", file.display())
            }
            ConfigError::Invalid(invalid) => {
                let first = &invalid.problems[0];
                write!(f, "{}: {}", first.title, first.label)?;
                match invalid.problems.len() - 1 {
                    0 => Ok(()),
                    more => write!(f, " (and {more} more)"),
                }
            }
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConfigError::Unreadable { source, .. } => Some(source),
            ConfigError::Invalid(_) => None,
        }
    }
}

impl Invalid {
    /// Shows one problem as an error or a warning.
    #[must_use]
    pub(crate) fn render_one(&self, level: Level<'_>, problem: &Problem, colour: bool) -> String {
        let path = self
            .file
            .as_ref()
            .map_or_else(String::new, |file| file.display().to_string());
        let mut group = Group::with_title(level.primary_title(problem.title.as_str()));
        let place;
        match &problem.origin {
            Origin::File { span, .. } => {
                let annotation = AnnotationKind::Primary
                    .span(caret_span(&self.text, span))
                    .label(problem.label.as_str());
                group = group.element(
                    Snippet::source(self.text.as_str())
                        .path(path)
                        .annotation(annotation),
                );
            }
            Origin::Default | Origin::Environment(_) | Origin::Flag(_) => {
                place = place_of(&problem.origin, &path, &problem.label);
                group = group.element(Level::NOTE.message(place.as_str()));
            }
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        renderer.render(&[group])
    }
}

/// A caret needs bytes within the text: an error at the very end points at the last character.
fn caret_span(text: &str, span: &Range<usize>) -> Range<usize> {
    let mut start = span.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = span.end.clamp(start, text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    // Only the first line of a long value: a caret below a whole table says nothing.
    let first_line = text[start..end].find('\n').map_or(end, |at| start + at);
    start..first_line
}

fn place_of(origin: &Origin, path: &str, label: &str) -> String {
    match origin {
        Origin::Environment(name) => format!("the environment variable {name} {label}"),
        Origin::Flag(name) => format!("the flag --{name} {label}"),
        Origin::Default | Origin::File { .. } if path.is_empty() => label.to_owned(),
        Origin::Default | Origin::File { .. } => format!("{path}: {label}"),
    }
}

/// The candidate nearest to `name`, if one is near enough to be a slip of the finger.
#[must_use]
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(name.len()) / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Number of insertions, removals and replacements between two words.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_single_changes() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("election_timout", "election_timeout"), 1);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }

    #[test]
    fn only_a_near_name_is_suggested() {
        let names = ["heartbeat", "election_timeout"];
        assert_eq!(nearest("heart_beat", names), Some("heartbeat"));
        assert_eq!(nearest("colour", names), None);
    }
}
