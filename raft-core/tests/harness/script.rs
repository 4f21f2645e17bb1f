//! Scripts: text in, transcript out.
//!
//! A file starts with comment lines that say what is expected, then come blocks: commands, a line
//! `----`, and the transcript of what happened. With `UPDATE=1` the transcripts are rewritten, to
//! be read as a diff before they are committed.

use std::path::Path;

use raft_core::{
    Configuration, ConfigurationChange, Envelope, HardState, MemberChange, NodeId, SnapshotOutcome,
    Term,
};

use super::disk::Left;
use super::{Cluster, index};

/// Runs a script and compares, or rewrites.
pub(crate) fn run_file(path: &Path) -> Result<(), String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let actual = run(&text)?;
    if actual == text {
        return Ok(());
    }
    if std::env::var_os("UPDATE").is_some() {
        return std::fs::write(path, actual)
            .map_err(|error| format!("{}: {error}", path.display()));
    }
    let differs = |(expected, actual): &(&str, &str)| expected != actual;
    let line = text
        .lines()
        .zip(actual.lines())
        .position(|pair| differs(&pair));
    let line = line.unwrap_or(text.lines().count().min(actual.lines().count()));
    Err(format!(
        "{} differs from line {}:\nexpected: {}\nactual:   {}\nwhole:\n{actual}",
        path.display(),
        line + 1,
        text.lines().nth(line).unwrap_or("(end)"),
        actual.lines().nth(line).unwrap_or("(end)"),
    ))
}

/// The script with the transcripts as they are now.
fn run(text: &str) -> Result<String, String> {
    let mut script = Script::default();
    let mut output = String::new();
    let mut in_transcript = false;
    for (number, line) in text.lines().enumerate() {
        match line.trim_end() {
            "" => {
                in_transcript = false;
                output.push('\n');
            }
            "----" => {
                in_transcript = true;
                output.push_str("----\n");
                script.take_transcript().iter().for_each(|line| {
                    output.push_str(line);
                    output.push('\n');
                });
            }
            _ if in_transcript => {}
            command => {
                output.push_str(command);
                output.push('\n');
                if !command.starts_with('#') {
                    script
                        .run(command)
                        .map_err(|error| format!("line {}: {command}: {error}", number + 1))?;
                }
            }
        }
    }
    Ok(output)
}

/// The state of a running script.
#[derive(Default)]
struct Script {
    cluster: Option<Cluster>,
    started: bool,
    /// Transcripts leave out messages and writes.
    is_quiet: bool,
}

type Outcome = Result<(), String>;

impl Script {
    fn run(&mut self, command: &str) -> Outcome {
        let words: Vec<&str> = command.split_whitespace().collect();
        let (verb, rest) = words.split_first().ok_or("empty command")?;
        if self.set_up(verb, rest)? {
            return Ok(());
        }
        let cluster = self.cluster.as_mut().ok_or("no nodes yet")?;
        if !self.started {
            self.started = true;
            cluster.start_all();
        }
        if drive(cluster, verb, rest)?
            || change_members(cluster, verb, rest)?
            || disturb(cluster, verb, rest)?
            || show(cluster, verb, rest)?
        {
            return Ok(());
        }
        Err(format!("unknown command {verb}"))
    }

    /// Commands before the nodes run.
    fn set_up(&mut self, verb: &str, words: &[&str]) -> Result<bool, String> {
        match verb {
            "nodes" => self.cluster = Some(Cluster::new(number(words.first())?)),
            "configuration" => {
                self.cluster = Some(Cluster::with_configuration(configuration(words)?))
            }
            "option" => self.set_option(words)?,
            "log" => {
                let terms: Vec<u64> = words[1..]
                    .iter()
                    .map(|word| number(Some(word)))
                    .collect::<Result<_, _>>()?;
                let node = node(words.first())?;
                self.cluster()?.set_own_log(node, &terms);
            }
            "term" => {
                let state = HardState {
                    term: Term(number(words.get(1))?),
                    vote: None,
                };
                let node = node(words.first())?;
                self.cluster()?.member(node).disk.set_hard_state(state);
            }
            "damage" if !self.started => damage(self.cluster()?, words)?,
            "priority" => {
                let priority = number(words.get(1))? as u32;
                let node = node(words.first())?;
                self.cluster()?.member(node).config.priority = priority;
            }
            "quiet" => self.is_quiet = true,
            "all-events" => self.cluster()?.tells_all = true,
            "loud" => self.is_quiet = false,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn cluster(&mut self) -> Result<&mut Cluster, String> {
        self.cluster
            .as_mut()
            .ok_or_else(|| "no nodes yet".to_owned())
    }

    fn set_option(&mut self, words: &[&str]) -> Outcome {
        let (name, value) = (*words.first().ok_or("which option")?, words.get(1).copied());
        let amount = number(words.get(1)).unwrap_or(0);
        self.cluster()?.configure(|config| match name {
            "pre_vote" => config.pre_vote = value == Some("on"),
            "check_quorum" => config.check_quorum = value == Some("on"),
            "lease_reads" => config.lease_reads = value == Some("on"),
            "election_timeout_ticks" => config.election_timeout_ticks = amount as u32,
            "heartbeat_ticks" => config.heartbeat_ticks = amount as u32,
            "max_append_bytes" => config.max_append_bytes = amount,
            "max_inflight_appends" => config.max_inflight_appends = amount as usize,
            "max_uncommitted_bytes" => config.max_uncommitted_bytes = amount,
            "max_apply_bytes" => config.max_apply_bytes = amount,
            _ => panic!("unknown option {name}"),
        });
        Ok(())
    }

    fn take_transcript(&mut self) -> Vec<String> {
        let Some(cluster) = &mut self.cluster else {
            return Vec::new();
        };
        let lines = std::mem::take(&mut cluster.transcript);
        let is_noise = |line: &String| {
            line.contains(" -> n") || line.contains(" writes p") || line.contains(" synced p")
        };
        lines
            .into_iter()
            .filter(|line| !(self.is_quiet && is_noise(line)))
            .collect()
    }
}

/// Commands that let things take their course.
fn drive(cluster: &mut Cluster, verb: &str, words: &[&str]) -> Result<bool, String> {
    match verb {
        "tick" => {
            for _ in 0..number(words.get(1)).unwrap_or(1) {
                nodes(cluster, words.first())?
                    .into_iter()
                    .for_each(|id| cluster.tick(id));
            }
        }
        "run" => cluster.run(number(words.first())? as u32),
        "campaign" => cluster.campaign(node(words.first())?),
        "elect" => {
            // The way there is told by other scripts.
            let id = node(words.first())?;
            cluster.elect(id);
            cluster.transcript.clear();
        }
        "settle" => cluster.settle(),
        "sync" => {
            let count = number(words.get(1)).unwrap_or(u64::MAX);
            for id in nodes(cluster, words.first())? {
                let mut left = count;
                while left > 0 && cluster.sync(id) {
                    left -= 1;
                }
            }
        }
        "deliver" => deliver(cluster, words)?,
        "propose" => {
            let id = node(words.first())?;
            let payloads: Vec<&str> = words[1..]
                .iter()
                .map(|word| word.trim_matches('\''))
                .collect();
            if let Err(refused) = cluster.propose(id, &payloads) {
                cluster.transcript.push(format!("{id} refuses: {refused}"));
            }
        }
        "read" => {
            let id = node(words.first())?;
            for word in &words[1..] {
                if let Err(refused) = cluster.ask_to_read(id, number(Some(word))?) {
                    cluster.transcript.push(format!("{id} refuses: {refused}"));
                }
            }
            cluster.pump(id);
        }
        "transfer" => {
            let id = node(words.first())?;
            let to = words.get(1).map(|word| node(Some(word))).transpose()?;
            if let Err(refused) = cluster.node(id).transfer_leader(to) {
                cluster.transcript.push(format!("{id} refuses: {refused}"));
            }
            cluster.pump(id);
        }
        "apply" => {
            let id = node(words.first())?;
            cluster.apply(id);
            cluster.pump(id);
        }
        "fetch" => {
            let id = node(words.first())?;
            cluster.serve_fetches(id);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Commands that change who is a member.
fn change_members(cluster: &mut Cluster, verb: &str, words: &[&str]) -> Result<bool, String> {
    let id = node(words.first());
    let result = match verb {
        "join" => {
            cluster.join(id?);
            return Ok(true);
        }
        "change" => cluster.change(id?, &change(&words[1..])?),
        "leave" => cluster.leave(id?),
        _ => return Ok(false),
    };
    if let Err(refused) = result {
        let id = node(words.first())?;
        cluster.transcript.push(format!("{id} refuses: {refused}"));
    }
    Ok(true)
}

/// `add-voter n4 remove n1 explicit`.
fn change(words: &[&str]) -> Result<ConfigurationChange, String> {
    let mut change = ConfigurationChange::new([]);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if *word == "explicit" {
            change.auto_leave = false;
            continue;
        }
        let node = node(words.next())?;
        change.changes.push(match *word {
            "add-voter" => MemberChange::AddVoter(node),
            "add-learner" => MemberChange::AddLearner(node),
            "promote" => MemberChange::Promote(node),
            "demote" => MemberChange::Demote(node),
            "remove" => MemberChange::Remove(node),
            other => return Err(format!("unknown change {other}")),
        });
    }
    Ok(change)
}

/// Commands that make things go wrong, or report that they did.
fn disturb(cluster: &mut Cluster, verb: &str, words: &[&str]) -> Result<bool, String> {
    match verb {
        "drop" => {
            let filter = Filter::parse(words)?;
            let dropped = cluster.take(|envelope| filter.matches(envelope)).len();
            cluster.transcript.push(format!("{dropped} dropped"));
        }
        "duplicate" => {
            let filter = Filter::parse(words)?;
            let copies: Vec<Envelope> = cluster
                .bag
                .iter()
                .filter(|envelope| filter.matches(envelope))
                .cloned()
                .collect();
            cluster.bag.extend(copies);
        }
        "isolate" => drop(cluster.isolated.insert(node(words.first())?)),
        "heal" => cluster.isolated.clear(),
        "crash" => cluster.crash(
            node(words.first())?,
            number(words.get(1)).unwrap_or(0) as usize,
        ),
        "restart" => cluster.start(node(words.first())?),
        "compact" => cluster.compact(node(words.first())?, number(words.get(1))?),
        "evict" => {
            let below = index(number(words.get(1))?);
            cluster
                .node(node(words.first())?)
                .storage_mut()
                .evict_below(below);
        }
        "damage" => damage(cluster, words)?,
        "report-sync-ages" => cluster
            .members
            .values_mut()
            .for_each(|member| member.watch.reports = true),
        "sync-age" => {
            let age = number(words.get(1))? as u32;
            cluster.node(node(words.first())?).report_sync_age(age);
        }
        "unfit" => cluster.node(node(words.first())?).report_fit(false),
        "fit" => cluster.node(node(words.first())?).report_fit(true),
        "hold-disk" => cluster.member(node(words.first())?).watch.is_held = true,
        "free-disk" => cluster.member(node(words.first())?).watch.is_held = false,
        "hold-apply" => cluster.member(node(words.first())?).holds_apply = true,
        "delivered" | "failed" => {
            let outcome = if verb == "failed" {
                SnapshotOutcome::Failed
            } else {
                SnapshotOutcome::Delivered
            };
            let id = node(words.first())?;
            cluster
                .node(id)
                .on_snapshot_sent(node(words.get(1))?, outcome);
            cluster.pump(id);
        }
        "unreachable" => {
            let id = node(words.first())?;
            cluster.node(id).on_unreachable(node(words.get(1))?);
            cluster.pump(id);
        }
        "peer-restarted" => {
            let id = node(words.first())?;
            cluster.node(id).on_peer_restarted(node(words.get(1))?);
            cluster.pump(id);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// `n1 5`, of which only the `term` is left, or nothing, `unknown`.
fn damage(cluster: &mut Cluster, words: &[&str]) -> Outcome {
    let left = match words.get(2) {
        None => Left::Header,
        Some(&"term") => Left::Term,
        Some(&"unknown") => Left::Nothing,
        Some(other) => return Err(format!("unknown rest {other}")),
    };
    cluster.damage(node(words.first())?, index(number(words.get(1))?), left);
    Ok(())
}

/// Commands that only look.
fn show(cluster: &mut Cluster, verb: &str, words: &[&str]) -> Result<bool, String> {
    let mut ids = nodes(cluster, words.first())?;
    ids.retain(|id| cluster.is_up(*id));
    for id in ids {
        let lines = match verb {
            "status" => vec![cluster.status(id).to_string()],
            "progress" => cluster
                .status(id)
                .progress
                .iter()
                .map(|peer| format!("{id} sees {peer}"))
                .collect(),
            "logs" => {
                let log: Vec<String> = cluster.log_of(id).iter().map(ToString::to_string).collect();
                vec![format!("{id} holds {}", log.join(" "))]
            }
            "configurations" => {
                let status = cluster.status(id);
                vec![format!(
                    "{id} uses {} of {}",
                    status.configuration, status.configuration_index
                )]
            }
            _ => return Ok(false),
        };
        cluster.transcript.extend(lines);
    }
    Ok(true)
}

fn deliver(cluster: &mut Cluster, words: &[&str]) -> Outcome {
    let filter = Filter::parse(words)?;
    let mut taken = cluster.take(|envelope| filter.matches(envelope));
    if filter.is_reversed {
        taken.reverse();
    }
    for envelope in taken {
        cluster.deliver(envelope).ok();
    }
    Ok(())
}

/// Which messages are meant: `n1->n2`, `n1->`, `->n2`, names of kinds, and `reversed` for the
/// order.
#[derive(Default)]
struct Filter {
    from: Option<NodeId>,
    to: Option<NodeId>,
    kinds: Vec<String>,
    is_reversed: bool,
}

impl Filter {
    fn parse(words: &[&str]) -> Result<Filter, String> {
        let mut filter = Filter::default();
        for word in words {
            if let Some((from, to)) = word.split_once("->") {
                filter.from = if from.is_empty() {
                    None
                } else {
                    Some(node(Some(&from))?)
                };
                filter.to = if to.is_empty() {
                    None
                } else {
                    Some(node(Some(&to))?)
                };
            } else if *word == "reversed" {
                filter.is_reversed = true;
            } else {
                filter.kinds.push((*word).to_owned());
            }
        }
        Ok(filter)
    }

    fn matches(&self, envelope: &Envelope) -> bool {
        self.from.is_none_or(|from| from == envelope.from)
            && self.to.is_none_or(|to| to == envelope.to)
            && (self.kinds.is_empty()
                || self
                    .kinds
                    .iter()
                    .any(|kind| kind == envelope.message.name()))
    }
}

fn number(word: Option<&&str>) -> Result<u64, String> {
    let word = word.ok_or("a number is missing")?;
    word.parse().map_err(|_| format!("{word} is no number"))
}

fn node(word: Option<&&str>) -> Result<NodeId, String> {
    let word = word.ok_or("a node is missing")?;
    let digits = word
        .strip_prefix('n')
        .ok_or_else(|| format!("{word} is no node"))?;
    number(Some(&digits)).map(NodeId)
}

/// One node, or all that are up.
fn nodes(cluster: &Cluster, word: Option<&&str>) -> Result<Vec<NodeId>, String> {
    match word {
        None | Some(&"all") => Ok(cluster
            .members
            .keys()
            .copied()
            .filter(|id| cluster.is_up(*id))
            .collect()),
        word => Ok(vec![node(word)?]),
    }
}

/// `voters n1 n2 outgoing n3 learners n4`.
fn configuration(words: &[&str]) -> Result<Configuration, String> {
    let mut configuration = Configuration::default();
    let mut section = "voters";
    for word in words {
        if !word.starts_with('n') {
            section = word;
            continue;
        }
        let set = match section {
            "voters" => &mut configuration.voters,
            "outgoing" => &mut configuration.voters_outgoing,
            "learners" => &mut configuration.learners,
            other => return Err(format!("unknown section {other}")),
        };
        set.insert(node(Some(word))?);
    }
    Ok(configuration)
}
