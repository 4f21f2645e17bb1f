//! What a measurement was made on.

use std::fs::read_to_string;

/// The command line and the machine, a fact a line, for the head of a measurement.
#[must_use]
pub fn machine_facts() -> String {
    let words: Vec<String> = std::env::args().collect();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let profile = if cfg!(debug_assertions) {
        "debug: figures mean nothing"
    } else {
        "release"
    };
    format!(
        "command  {}\nprofile  {profile}\nmachine  {cores} cores, {}, {} of memory, Linux {}\ndisk     {}\n",
        words.join(" "),
        field("/proc/cpuinfo", "model name"),
        field("/proc/meminfo", "MemTotal"),
        read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim(),
        file_system(),
    )
}

/// The first line of a file of the form `name : value`.
fn field(file: &str, name: &str) -> String {
    let text = read_to_string(file).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.split_once(':'));
    line.map_or_else(
        || format!("unknown {name}"),
        |(_, value)| value.trim().to_owned(),
    )
}

/// Device and type of the file system that holds the data.
fn file_system() -> String {
    let root = super::scratch_root();
    let mounts = read_to_string("/proc/mounts").unwrap_or_default();
    let fields = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields.len() > 2);
    let holder = fields
        .filter(|fields| root.starts_with(fields[1]))
        .max_by_key(|fields| fields[1].len());
    holder.map_or_else(
        || "unknown".to_owned(),
        |fields| format!("{} on {}", fields[2], fields[0]),
    )
}
