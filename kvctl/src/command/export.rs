//! `kvctl export`: many keys, page by page, printed as they come.

use std::io::{self, BufWriter, IsTerminal as _, Write};

use kvd::client::Client;
use kvd::kv::command::{KeyRange, KeyValue, RangeQuery};
use serde_json::json;

use super::{Answer, argument, mark_local};
use crate::cli::{ExportArgs, FileFormat, Format};
use crate::connect::Session;
use crate::exit::ExitCode;
use crate::fault::Fault;
use crate::json::{bytes_value, key_value};
use crate::output::record;

/// How the records look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Tsv,
    Jsonl,
    /// One JSON object around all.
    Json,
    /// Key, tab, value, line end, nothing escaped.
    Raw,
}

pub(super) async fn run(args: ExportArgs, session: &Session) -> Result<Answer, Fault> {
    let layout = match (session.printer.format, args.format) {
        (Format::Json, _) => Layout::Json,
        (Format::Raw, _) => Layout::Raw,
        (Format::Auto | Format::Plain, FileFormat::Tsv) => Layout::Tsv,
        (Format::Auto | Format::Plain, FileFormat::Jsonl) => Layout::Jsonl,
    };
    let range = args
        .prefix
        .map_or(KeyRange::All, |prefix| KeyRange::Prefix(argument(prefix)));
    let client = session.reader(args.node.as_deref()).await?;
    let exported = export(&client, RangeQuery::new(range), layout, session).await;
    client.close().await;
    let count = exported?;
    if io::stderr().is_terminal() && !io::stdout().is_terminal() {
        session.printer.note(format_args!("exported {count} keys"));
    }
    Ok(Answer::printed())
}

async fn export(
    client: &Client,
    mut query: RangeQuery,
    layout: Layout,
    session: &Session,
) -> Result<u64, Fault> {
    let mut out = BufWriter::new(io::stdout());
    let mut count = 0;
    if layout == Layout::Json {
        put(&mut out, b"{\"v\":1,\"items\":[")?;
    }
    loop {
        let answer = client.read(query.clone(), session.consistency).await?;
        for item in &answer.result.items {
            if layout == Layout::Json && count > 0 {
                put(&mut out, b",")?;
            }
            put(&mut out, &encode(item, layout))?;
            count += 1;
        }
        query.after = answer.result.items.last().map(|item| item.key.clone());
        if !answer.result.more || query.after.is_none() {
            mark_local(&answer, &session.printer);
            break;
        }
    }
    if layout == Layout::Json {
        put(&mut out, b"]}\n")?;
    }
    out.flush().map_err(|error| write_fault(&error))?;
    Ok(count)
}

fn encode(item: &KeyValue, layout: Layout) -> Vec<u8> {
    match layout {
        Layout::Tsv => record([item.key.as_ref(), &item.value]),
        Layout::Jsonl => {
            let line = json!({ "key": bytes_value(&item.key), "value": bytes_value(&item.value) });
            format!("{line}\n").into_bytes()
        }
        Layout::Json => key_value(item).to_string().into_bytes(),
        Layout::Raw => [item.key.as_ref(), b"\t", &item.value, b"\n"].concat(),
    }
}

fn put(out: &mut impl Write, bytes: &[u8]) -> Result<(), Fault> {
    out.write_all(bytes).map_err(|error| write_fault(&error))
}

/// An export that is not complete must not look like one, so even a reader that has gone away is a failure here.
fn write_fault(error: &io::Error) -> Fault {
    Fault::new(ExitCode::Internal, format!("standard output: {error}"))
}
