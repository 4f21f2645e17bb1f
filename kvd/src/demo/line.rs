//! One line of the demo's shell, parsed. Pure.

use std::time::Duration;

/// Entries that `log` shows without a number.
const LOG_LINES: u64 = 16;

/// A command of the shell.
#[derive(Clone, Debug, PartialEq)]
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
    /// Write if the key holds a certain value.
    Cas {
        key: String,
        old: String,
        new: String,
    },
    /// Cut a node off from all others, or two nodes from each other.
    Disconnect { node: String, other: Option<String> },
    /// Undo [`Line::Disconnect`] for a node.
    Reconnect { node: String },
    /// Cut every node of one group off from every node of the other.
    Partition(Vec<String>, Vec<String>),
    /// All links are sound again.
    Heal,
    /// What is sent between two nodes comes later.
    Delay {
        node: String,
        other: String,
        delay: Duration,
    },
    /// A share of what is sent between two nodes is lost.
    Loss {
        node: String,
        other: String,
        share: f64,
    },
    /// The log of a node waits before each sync.
    SlowDisk { node: String, delay: Duration },
    /// Stop a node between two steps.
    Crash { node: String },
    /// Start a stopped node again.
    Restart { node: String },
    /// Let a node stand still.
    Pause { node: String },
    /// Let it go on.
    Resume { node: String },
    /// Stop a node in good order.
    Shutdown { node: String },
    /// Take in new nodes, all in one change.
    Add(Vec<String>),
    /// Let members leave for good, all in one change.
    Remove(Vec<String>),
    /// Who leads.
    Leader,
    /// Hand leadership over.
    Transfer { node: String },
    /// A line per node.
    Nodes,
    /// The cluster at a glance.
    Status,
    /// The newest entries of a node's log.
    Log { node: String, count: u64 },
    /// Snapshot now, and discard old log.
    Discard { node: String },
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
 1  cluster N              stop what runs, start N fresh nodes
 2  set KEY VALUE [@n2]    write, perhaps through one node
 3  get KEY [@n2]          read, perhaps through one node
    del KEY                remove
    cas KEY OLD NEW        write if it holds OLD
 4  disconnect n3 [n1]     cut a node off from all others, or from one
    partition n1 n2 | n3   cut two groups off from each other
 5  reconnect n3           undo the cuts of a node; heal: all links are sound again
    delay n1 n2 50ms       what is sent between them comes later; 0ms ends it
    loss n1 n2 10%         a share of the datagrams between them is lost; 0% ends it
    slow-disk n3 200ms     the log waits before each sync; 0ms ends it
 6  crash n1               stop a node between two steps
 7  restart n1             start it again
    pause n1               let a node stand still; resume n1: let it go on
 8  shutdown n1            stop a node in good order
 9  leader                 who leads; transfer n2: hand over
11  add n4 n5              take in new nodes: they learn, and vote once they have caught up
12  remove n2              let members leave for good, also the leader
    status                 the cluster at a glance; nodes: a line per node
    log n2 [COUNT]         the newest entries of a node's log
    discard n2             snapshot now, and discard old log
    sleep 500ms            wait
    expect VALUE           fail unless the last value read is this
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
        let parsed = parse_data(verb, rest)
            .or_else(|| parse_faults(verb, rest))
            .or_else(|| parse_nodes(verb, rest))
            .or_else(|| parse_shell(verb, rest));
        parsed.unwrap_or_else(|| {
            Err(format!(
                "not a command: {verb} with {} words; help lists them",
                rest.len()
            ))
        })
    }
}

/// `None`: not one of these commands.
type Parsed = Option<Result<Line, String>>;

fn parse_data(verb: &str, rest: &[&str]) -> Parsed {
    let line = match (verb, rest) {
        ("set" | "2", [key, value]) => Line::Set {
            key: owned(key),
            value: owned(value),
            via: None,
        },
        ("set" | "2", [key, value, via]) => {
            return Some(parse_via(via).map(|via| Line::Set {
                key: owned(key),
                value: owned(value),
                via: Some(via),
            }));
        }
        ("get" | "3", [key]) => Line::Get {
            key: owned(key),
            via: None,
        },
        ("get" | "3", [key, via]) => {
            return Some(parse_via(via).map(|via| Line::Get {
                key: owned(key),
                via: Some(via),
            }));
        }
        ("del", [key]) => Line::Del { key: owned(key) },
        ("cas", [key, old, new]) => Line::Cas {
            key: owned(key),
            old: owned(old),
            new: owned(new),
        },
        ("expect", [value]) => Line::Expect(owned(value)),
        _ => return None,
    };
    Some(Ok(line))
}

fn parse_faults(verb: &str, rest: &[&str]) -> Parsed {
    let line = match (verb, rest) {
        ("disconnect" | "4", [node]) => Line::Disconnect {
            node: owned(node),
            other: None,
        },
        ("disconnect" | "4", [node, other]) => Line::Disconnect {
            node: owned(node),
            other: Some(owned(other)),
        },
        ("reconnect" | "5", [node]) => Line::Reconnect { node: owned(node) },
        ("partition", groups) => return Some(parse_partition(groups)),
        ("heal", []) => Line::Heal,
        ("delay", [node, other, delay]) => {
            return Some(parse_duration(delay).map(|delay| Line::Delay {
                node: owned(node),
                other: owned(other),
                delay,
            }));
        }
        ("loss", [node, other, share]) => {
            return Some(parse_share(share).map(|share| Line::Loss {
                node: owned(node),
                other: owned(other),
                share,
            }));
        }
        ("slow-disk", [node, delay]) => {
            return Some(parse_duration(delay).map(|delay| Line::SlowDisk {
                node: owned(node),
                delay,
            }));
        }
        _ => return None,
    };
    Some(Ok(line))
}

fn parse_nodes(verb: &str, rest: &[&str]) -> Parsed {
    let line = match (verb, rest) {
        ("cluster" | "1", [count]) => return Some(parse_count(count)),
        ("crash" | "6", [node]) => Line::Crash { node: owned(node) },
        ("restart" | "7", [node]) => Line::Restart { node: owned(node) },
        ("pause", [node]) => Line::Pause { node: owned(node) },
        ("resume", [node]) => Line::Resume { node: owned(node) },
        ("shutdown" | "8", [node]) => Line::Shutdown { node: owned(node) },
        ("add" | "11", [_, ..]) => Line::Add(all(rest)),
        ("remove" | "12", [_, ..]) => Line::Remove(all(rest)),
        ("leader" | "9", []) => Line::Leader,
        ("transfer", [node]) => Line::Transfer { node: owned(node) },
        ("nodes", []) => Line::Nodes,
        ("status", []) => Line::Status,
        ("log", [node]) => Line::Log {
            node: owned(node),
            count: LOG_LINES,
        },
        ("log", [node, count]) => {
            let count = count
                .parse()
                .map_err(|_| format!("{count}: not a number of entries"));
            return Some(count.map(|count| Line::Log {
                node: owned(node),
                count,
            }));
        }
        ("discard", [node]) => Line::Discard { node: owned(node) },
        _ => return None,
    };
    Some(Ok(line))
}

fn parse_shell(verb: &str, rest: &[&str]) -> Parsed {
    match (verb, rest) {
        ("sleep", [duration]) => Some(parse_duration(duration).map(Line::Sleep)),
        ("help" | "menu", []) => Some(Ok(Line::Help)),
        ("quit" | "exit" | "10", []) => Some(Ok(Line::Quit)),
        _ => None,
    }
}

fn owned(word: &str) -> String {
    word.to_owned()
}

fn all(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| owned(word)).collect()
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

fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{text}: {error}"))
}

fn parse_share(text: &str) -> Result<f64, String> {
    let percent = text
        .strip_suffix('%')
        .and_then(|number| number.parse::<f64>().ok());
    percent
        .filter(|percent| (0.0..=100.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| format!("{text}: say 10% for one datagram in ten"))
}

fn parse_partition(words: &[&str]) -> Result<Line, String> {
    let mut groups = words.split(|word| *word == "|");
    match (groups.next(), groups.next(), groups.next()) {
        (Some(one @ [_, ..]), Some(other @ [_, ..]), None) => {
            Ok(Line::Partition(all(one), all(other)))
        }
        _ => Err("say partition n1 n2 | n3 for two groups".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_numbers_are_aliases_and_stand_in_the_menu() {
        for (number, word) in [
            ("1 3", "cluster 3"),
            ("2 k v", "set k v"),
            ("3 k", "get k"),
            ("4 n3", "disconnect n3"),
            ("5 n3", "reconnect n3"),
            ("6 n1", "crash n1"),
            ("7 n1", "restart n1"),
            ("8 n1", "shutdown n1"),
            ("9", "leader"),
            ("10", "quit"),
            ("11 n4 n5", "add n4 n5"),
            ("12 n2", "remove n2"),
        ] {
            let parsed = Line::parse(word);
            assert!(parsed.is_ok(), "{word}");
            assert_eq!(Line::parse(number), parsed, "{number}");
            let (number, word) = (first(number), first(word));
            let listed = HELP
                .lines()
                .any(|line| line.split_whitespace().take(2).eq([number, word]));
            assert!(listed || word == "quit", "{number} {word} is not listed");
        }
    }

    fn first(text: &str) -> &str {
        text.split(' ').next().unwrap()
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
    fn several_servers_make_one_change() {
        let names = || vec!["n4".to_owned(), "n5".to_owned()];
        assert_eq!(Line::parse("add n4 n5"), Ok(Line::Add(names())));
        assert_eq!(Line::parse("12 n4 n5"), Ok(Line::Remove(names())));
        assert!(Line::parse("add").is_err());
    }

    #[test]
    fn grey_failures_have_two_nodes_and_a_measure() {
        let (node, other) = ("n1".to_owned(), "n2".to_owned());
        let delay = Duration::from_millis(50);
        let parsed = Line::parse("delay n1 n2 50ms");
        assert_eq!(parsed, Ok(Line::Delay { node, other, delay }));
        let Ok(Line::Loss { share, .. }) = Line::parse("loss n1 n2 2.5%") else {
            panic!("a loss")
        };
        assert_eq!(share, 0.025);
        for wrong in [
            "loss n1 n2 0.1",
            "loss n1 n2 101%",
            "delay n1 n2 50",
            "slow-disk n1",
            "partition n1 n2",
            "partition | n2",
            "partition n1 | n2 | n3",
        ] {
            assert!(Line::parse(wrong).is_err(), "{wrong}");
        }
        let one = vec!["n1".to_owned(), "n2".to_owned()];
        let other = vec!["n3".to_owned()];
        assert_eq!(
            Line::parse("partition n1 n2 | n3"),
            Ok(Line::Partition(one, other))
        );
    }

    #[test]
    fn comments_and_empty_lines_are_nothing() {
        assert_eq!(Line::parse("   "), Ok(Line::Nothing));
        assert_eq!(Line::parse("# a story"), Ok(Line::Nothing));
        assert!(Line::parse("fly").is_err());
    }
}
