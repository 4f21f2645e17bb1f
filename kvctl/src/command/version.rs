//! `kvctl version`

use kvd::wire::client::CLIENT_VERSION;
use serde_json::json;

use crate::output::Sentence;

pub(super) fn version() -> Sentence {
    let version = env!("CARGO_PKG_VERSION");
    Sentence {
        text: format!("kvctl {version}, client protocol {CLIENT_VERSION}"),
        facts: json!({ "version": version, "client_protocol": CLIENT_VERSION }),
    }
}
