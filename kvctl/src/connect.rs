//! Which cluster is meant, and a client for it.
//!
//! First hit wins: `--endpoints`; `--context`; the admin socket of a node on this machine; the default context. What is
//! missing beside `--endpoints` (certificates) is taken from the context.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use kvd::client::{Client, ClientOptions};
use kvd::contexts::{self, Context, ContextError, Contexts};
use kvd::wire::client::Consistency as WireConsistency;
use raft_net::{CredentialError, Credentials};

use crate::cli::{Consistency, Global};
use crate::exit::ExitCode;
use crate::fault::Fault;
use crate::output::Printer;

/// The admin socket of a system-wide installation.
const ADMIN_SOCKET: &str = "/run/kvd/kvd.sock";

/// What every verb that talks to a cluster works with.
pub(crate) struct Session {
    pub(crate) options: ClientOptions,
    pub(crate) consistency: WireConsistency,
    pub(crate) printer: Printer,
    pub(crate) no_input: bool,
}

impl Session {
    /// Finds out which cluster is meant; nothing is sent yet.
    pub(crate) fn new(global: &Global) -> Result<Session, Fault> {
        let printer = Printer::new(global);
        let consistency = match global.consistency {
            Consistency::Linearizable => WireConsistency::Linearizable,
            Consistency::Local => WireConsistency::Local,
        };
        let mut options = options(global)?;
        // What one node holds is asked of the nodes that were named, and of no other.
        options.pinned = consistency == WireConsistency::Local && !global.endpoints.is_empty();
        printer.trace(format_args!("asking {}", options.endpoints.join(", ")));
        Ok(Session {
            options,
            consistency,
            printer,
            no_input: global.no_input,
        })
    }

    /// A client for it.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.options.clone())
    }

    /// A client that asks the node of this name and no other, or any.
    pub(crate) async fn reader(&self, node: Option<&str>) -> Result<Client, Fault> {
        let client = self.client();
        let Some(name) = node else {
            return Ok(client);
        };
        let greeting = client.connect().await?;
        if greeting.node == name {
            return Ok(client);
        }
        client.close().await;
        let member = greeting.members.iter().find(|member| member.name == name);
        let Some(member) = member else {
            let names: Vec<&str> = greeting.members.iter().map(|m| m.name.as_str()).collect();
            return Err(Fault::usage(format!("there is no node {name}"))
                .with_known(format!("the members are {}", names.join(", "))));
        };
        Ok(Client::new(ClientOptions {
            endpoints: vec![member.address.clone()],
            pinned: true,
            ..self.options.clone()
        }))
    }
}

/// The file of the contexts.
pub(crate) fn contexts_file() -> Result<PathBuf, Fault> {
    contexts::default_file().ok_or_else(|| ContextError::NoPlace.into())
}

impl From<ContextError> for Fault {
    fn from(error: ContextError) -> Self {
        Fault::usage(format!("the contexts cannot be used: {error}"))
    }
}

fn read_contexts() -> Result<Contexts, Fault> {
    match contexts::default_file() {
        Some(file) => Ok(contexts::read(&file)?),
        None => Ok(Contexts::default()),
    }
}

fn options(global: &Global) -> Result<ClientOptions, Fault> {
    let contexts = read_contexts()?;
    let named = global.context.as_deref();
    let context = match named {
        Some(name) => Some(context_of(&contexts, name)?),
        None => None,
    };
    let default = contexts
        .default
        .as_ref()
        .and_then(|name| contexts.contexts.get(name));
    if !global.endpoints.is_empty() {
        let credentials = credentials(global, context.or(default))?;
        return client_options(global, global.endpoints.clone(), credentials);
    }
    if context.is_none() && is_served(Path::new(ADMIN_SOCKET)) {
        return client_options(global, vec![format!("unix:{ADMIN_SOCKET}")], None);
    }
    let Some(context) = context.or(default) else {
        return Err(Fault::usage("it is not known which cluster is meant")
            .with_known("there is no --endpoints, no --context, no admin socket and no default context")
            .with_help("kvctl cluster init NAME NODE=ADDR... makes a cluster and its context; kvctl context list shows what there is"));
    };
    let credentials = credentials(global, Some(context))?;
    client_options(global, context.endpoints.clone(), credentials)
}

fn context_of<'a>(contexts: &'a Contexts, name: &str) -> Result<&'a Context, Fault> {
    contexts.contexts.get(name).ok_or_else(|| {
        let names: Vec<&str> = contexts.contexts.keys().map(String::as_str).collect();
        let known = match names.as_slice() {
            [] => "there are none".to_owned(),
            names => format!("there are {}", names.join(", ")),
        };
        Fault::usage(format!("there is no context {name}")).with_known(known)
    })
}

fn client_options(
    global: &Global,
    endpoints: Vec<String>,
    credentials: Option<Credentials>,
) -> Result<ClientOptions, Fault> {
    for endpoint in &endpoints {
        if endpoint.starts_with("unix:") {
            continue;
        }
        kvd::names::check_address(endpoint)
            .map_err(|why| Fault::usage(format!("the endpoint {endpoint} {why}")))?;
        if credentials.is_none() {
            return Err(Fault::usage("there is no certificate to connect with")
                .with_help("give --cert, --key and --ca, or a context that has them"));
        }
    }
    Ok(ClientOptions {
        endpoints,
        credentials,
        timeout: global.timeout,
        ..ClientOptions::default()
    })
}

/// Certificate files out of flags, and what flags do not say out of the context.
fn credentials(global: &Global, context: Option<&Context>) -> Result<Option<Credentials>, Fault> {
    let pick = |flag: &Option<PathBuf>, of_context: fn(&Context) -> &PathBuf| {
        flag.clone()
            .or_else(|| context.map(|context| of_context(context).clone()))
    };
    let files = (
        pick(&global.ca, |context| &context.ca),
        pick(&global.cert, |context| &context.cert),
        pick(&global.tls_key, |context| &context.key),
    );
    match files {
        (Some(ca), Some(cert), Some(key)) => Ok(Some(
            Credentials::load_files(&ca, &cert, &key).map_err(credential_fault)?,
        )),
        (None, None, None) => Ok(None),
        _ => Err(Fault::usage("--cert, --key and --ca belong together")),
    }
}

fn credential_fault(error: CredentialError) -> Fault {
    let fault = |code| Fault::new(code, format!("the certificate cannot be used: {error}"));
    match &error {
        CredentialError::WidePermissions { path, .. } => {
            fault(ExitCode::Usage).with_help(format!("chmod 600 {}", path.display()))
        }
        CredentialError::Expired { .. } | CredentialError::NotYetValid { .. } => fault(
            ExitCode::NotAuthorised,
        )
        .with_help("issue a new one with the authority's key, and check this machine's clock"),
        CredentialError::NotSignedByCa { .. } => {
            fault(ExitCode::NotAuthorised).with_help("take --ca and --cert from the same cluster")
        }
        CredentialError::Missing { .. }
        | CredentialError::Unreadable { .. }
        | CredentialError::Malformed { .. }
        | CredentialError::KeyMismatch
        | CredentialError::NoIdentity(_)
        | _ => fault(ExitCode::Usage),
    }
}

/// The certificates of the cluster's authority: those that connections are checked against.
pub(crate) fn authority_file(global: &Global) -> Result<PathBuf, Fault> {
    if let Some(file) = &global.ca {
        return Ok(file.clone());
    }
    let contexts = read_contexts()?;
    let name = global.context.as_ref().or(contexts.default.as_ref());
    match name {
        Some(name) => Ok(context_of(&contexts, name)?.ca.clone()),
        None => Err(
            Fault::usage("it is not known where the cluster's authority lies")
                .with_help("give --ca DIR/ca.pem of the directory that kvctl cluster init made"),
        ),
    }
}

/// Whether this user can talk to a node over this socket.
fn is_served(socket: &Path) -> bool {
    socket.exists() && UnixStream::connect(socket).is_ok()
}
