//! The programs under test, built once per test process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The daemon.
    pub kvd: PathBuf,
    /// The client.
    pub kvctl: PathBuf,
}

/// Builds `kvd` and `kvctl` in the profile of this program, and says where they are.
///
/// # Panics
/// The build fails; its errors are shown.
pub fn binaries() -> &'static Binaries {
    static BUILT: OnceLock<Binaries> = OnceLock::new();
    BUILT.get_or_init(build)
}

/// The build directory that this program came out of, whatever option or variable chose it.
pub(super) fn target_dir() -> PathBuf {
    let own = std::env::current_exe().expect("the system knows what it runs");
    // target/PROFILE/{deps,examples}/PROGRAM
    let profile = own.ancestors().nth(2).unwrap_or(Path::new("/"));
    profile.parent().unwrap_or(profile).to_owned()
}

fn build() -> Binaries {
    let output = build_command().output().expect("cargo runs");
    assert!(
        output.status.success(),
        "cannot build the programs under test:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let messages = String::from_utf8_lossy(&output.stdout);
    Binaries {
        kvd: executable(&messages, "kvd"),
        kvctl: executable(&messages, "kvctl"),
    }
}

fn build_command() -> Command {
    let mut command = Command::new(env!("CARGO"));
    command
        .args([
            "build",
            "-p",
            "kvd",
            "-p",
            "kvctl",
            "--bins",
            "--message-format=json",
        ])
        .arg("--target-dir")
        .arg(target_dir())
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    // What cargo set for this program must not reach the inner cargo: build scripts would see other values than in an
    // ordinary build, and dependencies would be compiled anew each time.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if is_set_by_cargo(&name) {
            command.env_remove(name);
        }
    }
    command
}

fn is_set_by_cargo(name: &str) -> bool {
    name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_BIN_")
        || name.starts_with("CARGO_MANIFEST_")
        || [
            "CARGO_CRATE_NAME",
            "CARGO_PRIMARY_PACKAGE",
            "CARGO_TARGET_TMPDIR",
            "OUT_DIR",
        ]
        .contains(&name)
}

fn executable(messages: &str, program: &str) -> PathBuf {
    let path = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|message| {
            let is_ours =
                message["reason"] == "compiler-artifact" && message["target"]["name"] == program;
            let path = message["executable"].as_str()?;
            is_ours.then(|| PathBuf::from(path))
        });
    path.unwrap_or_else(|| panic!("cargo built no program {program}"))
}
