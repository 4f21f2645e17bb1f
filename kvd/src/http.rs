//! The HTTP side door: `curl` and load balancers, on loopback.
//!
//! It is plain and trusts whoever can connect, as client `http`, so it listens on loopback only. A browser is not such a
//! person: a request with an `Origin` or a foreign `Host` comes from a web page and is refused.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Form as RequestForm, FromRequest, Path, Query, State};
use axum::http::{HeaderMap, Request as HttpRequest, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::kv::auth::{Principal, Role};
use crate::kv::command::{Command, KeyRange, Op, OpResult, RangeQuery, command_crc};
use crate::kv::envelope::SessionRef;
use crate::node::Asker;
use crate::wire::client::{Consistency, Refusal, Request, Response};
use crate::wire::status::NodeStatus;

/// How long a request may wait for a quorum.
const TIMEOUT_MS: u32 = 5_000;

/// What a client should wait before it tries again, in seconds.
const RETRY_AFTER_S: &str = "1";

/// A form makes a value up to three times as long.
const BODY_FACTOR: u64 = 3;

#[derive(Clone)]
struct Door {
    asker: Asker,
}

/// Opens the door; returns where it listens.
///
/// # Errors
/// The address is not a loopback address, or is taken.
pub(crate) async fn serve(
    listen: SocketAddr,
    request_bytes: u64,
    asker: Asker,
) -> Result<SocketAddr, Failure> {
    let what = format!("http listener {listen}");
    if !listen.ip().is_loopback() {
        return Err(Failure::start(
            &what,
            &"beyond loopback the door would be open to everyone",
        ));
    }
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .map_err(|error| Failure::start(&what, &error))?;
    let address = listener
        .local_addr()
        .map_err(|error| Failure::start(&what, &error))?;
    let body_limit =
        usize::try_from(request_bytes.saturating_mul(BODY_FACTOR)).unwrap_or(usize::MAX);
    let router = Router::new()
        .route("/get/{*key}", get(get_key))
        .route("/set/{*key}", post(set_key))
        .route("/del/{*key}", delete(delete_key))
        .route("/status", get(status))
        .route(
            "/version",
            get(|| async { Json(json!({ "version": env!("CARGO_PKG_VERSION") })) }),
        )
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .layer(DefaultBodyLimit::max(body_limit))
        .layer(axum::middleware::from_fn(refuse_web_pages))
        .with_state(Door { asker });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the HTTP door closed");
        }
    });
    Ok(address)
}

async fn refuse_web_pages(request: axum::extract::Request, next: Next) -> HttpResponse {
    if let Err(why) = check_headers(request.headers()) {
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    next.run(request).await
}

fn check_headers(headers: &HeaderMap) -> Result<(), &'static str> {
    if headers.contains_key(header::ORIGIN) {
        return Err("requests from web pages are refused\n");
    }
    let Some(host) = headers.get(header::HOST) else {
        return Ok(());
    };
    match host.to_str() {
        Ok(host) if is_local_host(host) => Ok(()),
        _ => Err("the Host header names another machine\n"),
    }
}

fn is_local_host(host: &str) -> bool {
    let name = match host.parse::<SocketAddr>() {
        Ok(address) => return address.ip().is_loopback(),
        Err(_) => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[derive(Deserialize)]
struct GetOptions {
    consistency: Option<String>,
}

async fn get_key(
    State(door): State<Door>,
    Path(key): Path<String>,
    Query(options): Query<GetOptions>,
) -> HttpResponse {
    let consistency = match options.consistency.as_deref() {
        None | Some("linearizable") => Consistency::Linearizable,
        Some("local") => Consistency::Local,
        Some(_) => {
            return (
                StatusCode::BAD_REQUEST,
                "consistency is linearizable or local\n",
            )
                .into_response();
        }
    };
    let request = Request::Read {
        consistency,
        query: RangeQuery::key(key),
        timeout_ms: TIMEOUT_MS,
    };
    let response = door.ask(request).await;
    let Response::Range { result, .. } = response else {
        return refused(response);
    };
    match result.items.into_iter().next() {
        Some(found) => found.value.into_response(),
        None => absent(),
    }
}

#[derive(Deserialize)]
struct Form {
    value: String,
}

async fn set_key(
    State(door): State<Door>,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> HttpResponse {
    let value = match form_value(&headers, &body).await {
        Some(value) => value.into(),
        None => body,
    };
    let op = Op::Put {
        key: key.into(),
        value,
        want_previous: false,
    };
    let response = door.write(op).await;
    let Response::Written { result, .. } = &response else {
        return refused(response);
    };
    let Some(OpResult::Put { version, .. }) = result.results.first() else {
        return refused(response);
    };
    Json(json!({ "version": version, "revision": result.revision })).into_response()
}

/// The field `value` of a form. `curl -d` calls every body a form, so one without that field is taken as it is.
async fn form_value(headers: &HeaderMap, body: &Bytes) -> Option<String> {
    let kind = headers.get(header::CONTENT_TYPE)?;
    let request = HttpRequest::post("/")
        .header(header::CONTENT_TYPE, kind)
        .body(Body::from(body.clone()))
        .ok()?;
    let form = RequestForm::<Form>::from_request(request, &()).await.ok()?;
    Some(form.0.value)
}

async fn delete_key(State(door): State<Door>, Path(key): Path<String>) -> HttpResponse {
    let op = Op::Delete {
        range: KeyRange::Key(key.into()),
        want_previous: false,
    };
    let response = door.write(op).await;
    let Response::Written { result, .. } = &response else {
        return refused(response);
    };
    let Some(OpResult::Deleted { count, .. }) = result.results.first() else {
        return refused(response);
    };
    match count {
        0 => absent(),
        _ => Json(json!({ "revision": result.revision })).into_response(),
    }
}

async fn status(State(door): State<Door>) -> HttpResponse {
    let response = door.ask(Request::Status).await;
    let Response::Status(status) = &response else {
        return refused(response);
    };
    match status_json(status) {
        Ok(json) => Json(json).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The node's part of `kvctl status -o json`, with the names of the older interface beside it.
fn status_json(status: &NodeStatus) -> Result<Value, serde_json::Error> {
    let mut json = serde_json::to_value(status)?;
    let older = json!({
        "state": status.role,
        "voted for": status.voted_for,
        "commit index": status.commit_index,
        "last applied": status.last_applied,
        "next index": status.next_index,
        "match index": status.match_index,
    });
    if let (Value::Object(all), Value::Object(older)) = (&mut json, older) {
        all.extend(older);
    }
    Ok(json)
}

/// Alive as long as the loop answers; other nodes have no part in it, or an outage would restart healthy nodes.
async fn alive(State(door): State<Door>) -> HttpResponse {
    match door.asker.ask(http(), Request::Members).await {
        Some(_) => "ok\n".into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the node is stopping\n").into_response(),
    }
}

async fn ready(
    State(door): State<Door>,
    Query(options): Query<HashMap<String, String>>,
) -> HttpResponse {
    let response = door.ask(Request::Health).await;
    let Response::Health { healthy, reasons } = response else {
        return refused(response);
    };
    let code = if healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut text = String::new();
    if options.contains_key("verbose") || !healthy {
        for reason in reasons {
            text.push_str(&format!("[-] {reason}\n"));
        }
    }
    text.push_str(if healthy { "ok\n" } else { "not ready\n" });
    (code, text).into_response()
}

impl Door {
    async fn ask(&self, request: Request) -> Response {
        match self.asker.ask(http(), request).await {
            Some(response) => response,
            None => Response::Refused(Refusal::Stopping),
        }
    }

    /// A write without a session: the node never repeats it, so its outcome is honest without a table entry per request.
    async fn write(&self, op: Op) -> Response {
        let command = Command::Op(op).encode();
        let crc = command_crc(&command);
        let session = SessionRef::None;
        let request = Request::Write {
            session,
            sequence: 0,
            done_below: 0,
            command,
            crc,
            timeout_ms: TIMEOUT_MS,
        };
        self.ask(request).await
    }
}

fn http() -> Principal {
    Principal::new(Role::Http, "http")
}

fn absent() -> HttpResponse {
    (StatusCode::NOT_FOUND, "no such key\n").into_response()
}

fn refused(response: Response) -> HttpResponse {
    let Response::Refused(refusal) = response else {
        return (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the node gave an answer of another kind\n",
        )
            .into_response();
    };
    let code = status_code(&refusal);
    let text = format!("{refusal}\n");
    match code {
        StatusCode::SERVICE_UNAVAILABLE => {
            (code, [(header::RETRY_AFTER, RETRY_AFTER_S)], text).into_response()
        }
        _ => (code, text).into_response(),
    }
}

fn status_code(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::NotAuthorised { .. } => StatusCode::FORBIDDEN,
        Refusal::BadRequest { .. } | Refusal::CommandCorrupt => StatusCode::BAD_REQUEST,
        Refusal::MembersRefused { .. } | Refusal::QuorumAtRisk { .. } => StatusCode::CONFLICT,
        Refusal::Unsupported | Refusal::NoMachine { .. } => StatusCode::NOT_IMPLEMENTED,
        Refusal::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        // Sessions are not used here, so only the first of these is ever seen.
        Refusal::OutcomeUnknown { .. }
        | Refusal::SessionExpired
        | Refusal::SequenceDone
        | Refusal::SequenceGap
        | Refusal::SequenceReused => StatusCode::GATEWAY_TIMEOUT,
        Refusal::NotLeader { .. }
        | Refusal::NoLeader { .. }
        | Refusal::NoQuorum { .. }
        | Refusal::Overloaded { .. }
        | Refusal::MembersBusy { .. }
        | Refusal::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_of_this_machine_are_served() {
        for host in [
            "localhost",
            "localhost:7480",
            "127.0.0.1:7480",
            "127.0.0.1",
            "[::1]:7480",
        ] {
            assert!(is_local_host(host), "{host}");
        }
        for host in [
            "example.org",
            "example.org:7480",
            "10.0.0.1:7480",
            "localhost.example.org",
            "",
        ] {
            assert!(!is_local_host(host), "{host}");
        }
    }

    #[test]
    fn an_unknown_outcome_is_told_from_a_refusal() {
        let unknown = Refusal::OutcomeUnknown { why: "lost".into() };
        assert_eq!(status_code(&unknown), StatusCode::GATEWAY_TIMEOUT);
        let no_leader = Refusal::NoLeader {
            detail: String::new(),
        };
        assert_eq!(status_code(&no_leader), StatusCode::SERVICE_UNAVAILABLE);
        let large = Refusal::TooLarge {
            what: "value".into(),
            bytes: 2,
            limit: 1,
        };
        assert_eq!(status_code(&large), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn a_form_gives_its_field_and_any_other_body_itself() {
        let mut headers = HeaderMap::new();
        let body = Bytes::from_static(b"value=a+b%26c&x=1");
        assert_eq!(form_value(&headers, &body).await, None);
        headers.insert(
            header::CONTENT_TYPE,
            "application/x-www-form-urlencoded"
                .parse()
                .expect("a header"),
        );
        assert_eq!(form_value(&headers, &body).await.as_deref(), Some("a b&c"));
        assert_eq!(
            form_value(&headers, &Bytes::from_static(b"plain")).await,
            None
        );
    }
}
