//! One line of the demo's shell, parsed. Pure.

use std::time::Duration;

/// A command of the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Nothing, or a comment.
    Nothing,
    /// Stop what runs, start this many fresh nodes.
    Cluster(usize),
    /// Write, perhaps through one node.
    Set {
        key: String,
        value: String,
        via: Option<String>,
    },
    /// Read, perhaps through one node.
    Get { key: String, via: Option<String> },
    /// Remove.
    Del { key: String },
    /// Cut a node off from all others, or two nodes from each other.
    Disconnect { node: String, other: Option<String> },
    /// Undo [`Line::Disconnect`] for a node.
    Reconnect { node: String },
    /// Undo every cut.
    Heal,
    /// Stop a node between two steps.
    Crash { node: String },
    /// Start a crashed node again.
    Restart { node: String },
    /// Stop a node in good order.
    Shutdown { node: String },
    /// Who leads.
    Leader,
    /// Hand leadership over.
    Transfer { node: String },
    /// A line per node.
    Nodes,
    /// Wait.
    Sleep(Duration),
    /// The last value read must be this one.
    Expect(String),
    /// What can be typed.
    Help,
    /// Leave.
    Quit,
}

/// The commands with their old numbers, for `help` and for the menu.
pub(super) const HELP: &str = "\
 1  cluster N            stop what runs, start N fresh nodes
 2  set KEY VALUE [@n2]  write, perhaps through one node
 3  get KEY [@n2]        read, perhaps through one node
    del KEY              remove
 4  disconnect n3 [n1]   cut a node off from all others, or from one
 5  reconnect n3         undo that; heal: undo all cuts
 6  crash n1             stop a node between two steps
 7  restart n1           start it again
 8  shutdown n1          stop a node in good order
 9  leader               who leads; transfer n2: hand over
    nodes                a line per node
    sleep 500ms          wait
    expect VALUE         fail unless the last value read is this
10  quit";

impl Line {
    /// Parses a line; the error is for the person who typed it.
    pub(super) fn parse(text: &str) -> Result<Line, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let Some((verb, rest)) = words.split_first() else {
            return Ok(Line::Nothing);
        };
        if verb.starts_with('#') {
            return Ok(Line::Nothing);
        }
        parse_verb(verb, rest)
    }
}

fn parse_verb(verb: &str, rest: &[&str]) -> Result<Line, String> {
    let owned = |word: &str| word.to_owned();
    match (verb, rest) {
        ("cluster" | "1", [count]) => parse_count(count),
        ("set" | "2", [key, value]) => Ok(Line::Set {
            key: owned(key),
            value: owned(value),
            via: None,
        }),
        ("set" | "2", [key, value, via]) => Ok(Line::Set {
            key: owned(key),
            value: owned(value),
            via: Some(parse_via(via)?),
        }),
        ("get" | "3", [key]) => Ok(Line::Get {
            key: owned(key),
            via: None,
        }),
        ("get" | "3", [key, via]) => Ok(Line::Get {
            key: owned(key),
            via: Some(parse_via(via)?),
        }),
        ("del", [key]) => Ok(Line::Del { key: owned(key) }),
        ("disconnect" | "4", [node]) => Ok(Line::Disconnect {
            node: owned(node),
            other: None,
        }),
        ("disconnect" | "4", [node, other]) => Ok(Line::Disconnect {
            node: owned(node),
            other: Some(owned(other)),
        }),
        ("reconnect" | "5", [node]) => Ok(Line::Reconnect { node: owned(node) }),
        ("heal", []) => Ok(Line::Heal),
        ("crash" | "6", [node]) => Ok(Line::Crash { node: owned(node) }),
        ("restart" | "7", [node]) => Ok(Line::Restart { node: owned(node) }),
        ("shutdown" | "8", [node]) => Ok(Line::Shutdown { node: owned(node) }),
        ("leader" | "9", []) => Ok(Line::Leader),
        ("transfer", [node]) => Ok(Line::Transfer { node: owned(node) }),
        ("nodes" | "status", []) => Ok(Line::Nodes),
        ("sleep", [duration]) => humantime::parse_duration(duration)
            .map(Line::Sleep)
            .map_err(|error| format!("{duration}: {error}")),
        ("expect", [value]) => Ok(Line::Expect(owned(value))),
        ("help" | "menu", []) => Ok(Line::Help),
        ("quit" | "exit" | "10", []) => Ok(Line::Quit),
        _ => Err(format!(
            "not a command: {verb} with {} words; help lists them",
            rest.len()
        )),
    }
}

fn parse_count(count: &str) -> Result<Line, String> {
    match count.parse() {
        Ok(count @ 1..=9) => Ok(Line::Cluster(count)),
        _ => Err(format!("{count}: a cluster has 1 to 9 nodes")),
    }
}

fn parse_via(word: &str) -> Result<String, String> {
    word.strip_prefix('@')
        .map(str::to_owned)
        .ok_or_else(|| format!("{word}: say @n2 for node n2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_numbers_are_aliases() {
        for (number, word) in [
            ("1 3", "cluster 3"),
            ("2 k v", "set k v"),
            ("6 n1", "crash n1"),
            ("9", "leader"),
        ] {
            assert_eq!(Line::parse(number), Line::parse(word), "{number}");
        }
    }

    #[test]
    fn a_write_may_name_its_node() {
        let line = Line::parse("  set color red @n2 ").unwrap();
        assert_eq!(
            line,
            Line::Set {
                key: "color".into(),
                value: "red".into(),
                via: Some("n2".into())
            }
        );
        assert!(Line::parse("set color red n2").is_err());
    }

    #[test]
    fn comments_and_empty_lines_are_nothing() {
        assert_eq!(Line::parse("   "), Ok(Line::Nothing));
        assert_eq!(Line::parse("# a story"), Ok(Line::Nothing));
        assert!(Line::parse("fly").is_err());
    }
}
