//! The files that a demo's nodes live from: an authority, a directory for each node, and the list of these directories.
//!
//! Nodes are made as an operator makes them, with bundles that are joined. A directory is named after its node and, for later
//! ones, after its id: a name may be used again when its node was removed, an id and a directory never.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use raft_net::ClusterId;
use raft_net::pki::Authority;

use crate::exit::{ExitCode, Failure};
use crate::found::{self, NewNode};
use crate::join::join;
use crate::wire::client::MemberAddress;

/// Name of the cluster, of its authority and of its administrator.
const CLUSTER: &str = "demo";

const CERTIFICATE_DAYS: u32 = 30;

/// Names the directories of the nodes, one a line.
const LIST: &str = "nodes";

/// A founded demo: its directory and the authority that signs for it.
pub(super) struct Files {
    home: PathBuf,
    authority: Authority,
}

impl Files {
    /// Opens what is in `home`, or founds a cluster of `count` nodes there.
    pub(super) fn open(home: &Path, count: usize) -> Result<Files, Failure> {
        // Written last: its presence says that everything else is there.
        if home.join("admin.pem").exists() {
            return Files::read(home);
        }
        std::fs::create_dir_all(home).map_err(|error| Failure::storage(home, &error))?;
        let authority = Authority::create(ClusterId(rand::random()), CLUSTER, CERTIFICATE_DAYS)
            .map_err(cannot)?;
        let files = Files {
            home: home.to_owned(),
            authority,
        };
        files.found(count)?;
        Ok(files)
    }

    fn read(home: &Path) -> Result<Files, Failure> {
        let cluster = found::load_admin(home)?.identity().cluster();
        let authority = found::load_authority(home, cluster).map_err(cannot)?;
        Ok(Files {
            home: home.to_owned(),
            authority,
        })
    }

    fn found(&self, count: usize) -> Result<(), Failure> {
        let names: Vec<String> = (1..=count).map(|number| format!("n{number}")).collect();
        let members = new_members(&names)?;
        let admin = self.authority.issue_admin(CLUSTER, CERTIFICATE_DAYS);
        let admin = admin.map_err(cannot)?;
        write(&self.home.join("ca.pem"), self.authority.ca_pem())?;
        write(&self.home.join("ca.key"), self.authority.key_pem())?;
        write(&self.home.join("admin.key"), &admin.key_pem)?;
        let all: Vec<MemberAddress> = members.iter().map(NewNode::member).collect();
        for member in &members {
            self.join_one(member, &all, false, &self.home.join(&member.name))?;
        }
        let dirs: Vec<PathBuf> = names.iter().map(|name| self.home.join(name)).collect();
        self.write_list(dirs.iter().map(PathBuf::as_path))?;
        write(&self.home.join("admin.pem"), &admin.cert_pem)
    }

    /// Makes the directory of a later node; `members` are those that it is told of, itself included.
    pub(super) fn join_later(
        &self,
        member: &NewNode,
        members: &[MemberAddress],
    ) -> Result<PathBuf, Failure> {
        let dir = self
            .home
            .join(format!("{}-{:016x}", member.name, member.id));
        self.join_one(member, members, true, &dir)?;
        Ok(dir)
    }

    fn join_one(
        &self,
        member: &NewNode,
        members: &[MemberAddress],
        later: bool,
        dir: &Path,
    ) -> Result<(), Failure> {
        let members = members.iter().cloned();
        let bundle = member
            .bundle(&self.authority, CLUSTER, members, later, CERTIFICATE_DAYS)
            .map_err(cannot)?;
        let file = dir.with_extension("kvd");
        bundle.write_file(&file)?;
        join(&bundle, Some(dir))?;
        Ok(())
    }

    /// Removes the directory of a node that never became a member.
    pub(super) fn take_back(&self, dir: &Path) -> Result<(), Failure> {
        let failed = |error| Failure::storage(dir, &error);
        std::fs::remove_file(dir.with_extension("kvd")).map_err(failed)?;
        std::fs::remove_dir_all(dir).map_err(failed)
    }

    /// The directories of the nodes.
    pub(super) fn list(&self) -> Result<Vec<PathBuf>, Failure> {
        let file = self.home.join(LIST);
        let text =
            std::fs::read_to_string(&file).map_err(|error| Failure::storage(file, &error))?;
        Ok(text.lines().map(|name| self.home.join(name)).collect())
    }

    /// Remembers whose directories these are for the next time that this demo is started.
    pub(super) fn write_list<'a>(
        &self,
        dirs: impl Iterator<Item = &'a Path>,
    ) -> Result<(), Failure> {
        let mut text = String::new();
        for dir in dirs {
            let name = dir.file_name().expect("every node has a directory");
            text.push_str(&name.to_string_lossy());
            text.push('\n');
        }
        write(&self.home.join(LIST), &text)
    }
}

fn cannot(error: impl std::fmt::Display) -> Failure {
    Failure::new(ExitCode::CannotStart, error)
}

/// New ids, and addresses that are free now. Another program could take one before the node does; then the start says so.
pub(super) fn new_members(names: &[String]) -> Result<Vec<NewNode>, Failure> {
    let addresses = found::free_addresses(names.len())
        .map_err(|error| Failure::start("a free port", &error))?;
    let member = |(name, address): (&String, SocketAddr)| {
        let mut node = NewNode::new(name, &address.to_string()).map_err(cannot)?;
        node.http = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        Ok(node)
    };
    names.iter().zip(addresses).map(member).collect()
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let options = || {
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
    };
    options()
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::storage(path, &error))
}
