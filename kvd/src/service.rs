//! A node as a service: signals in, notifications to the service manager out.

use std::time::Duration;

use kvd::config::Config;
use kvd::exit::{ExitCode, Failure};
use kvd::kv::auth::{Principal, Role};
use kvd::node::Node;
use kvd::wire::client::{Request, Response};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

/// How often the service manager is told what the node does.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Runs a node until SIGTERM or SIGINT, or until it fails.
pub(crate) fn run(config: Config) -> Result<(), Failure> {
    let name = config.node.name.clone();
    let mut node = Node::start(config)?;
    tracing::info!(node = name, address = %node.address(), http = ?node.http(), "serving");
    notify(&[
        NotifyState::Ready,
        NotifyState::Status("serving, waiting for a quorum"),
    ]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ExitCode::CannotStart, error))?;
    runtime.block_on(until_told_to_stop(&mut node))?;
    node.join()?;
    tracing::info!(node = name, "stopped");
    Ok(())
}

async fn until_told_to_stop(node: &mut Node) -> Result<(), Failure> {
    let cannot = |error| Failure::new(ExitCode::CannotStart, format!("signal handler: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut report = tokio::time::interval(watchdog_interval().unwrap_or(STATUS_INTERVAL));
    loop {
        tokio::select! {
            () = node.ended() => return Ok(()),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = report.tick() => tell_status(node).await,
        }
    }
    notify(&[
        NotifyState::Stopping,
        NotifyState::Status("handing leadership over"),
    ]);
    node.shutdown();
    node.ended().await;
    Ok(())
}

/// Says what the node does. The watchdog is fed only with the loop's own answer, never by a bare timer.
async fn tell_status(node: &Node) {
    let who = Principal::new(Role::Internal, "service");
    let Some(Response::Status(status)) = node.asker().ask(who, Request::Status).await else {
        return;
    };
    let leader = status.leader.as_deref().unwrap_or("none");
    let line = format!(
        "{}, term {}, leader {leader}",
        status.role.as_str(),
        status.term
    );
    notify(&[NotifyState::Status(&line), NotifyState::Watchdog]);
}

fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Without a service manager there is nobody to tell, and that is no error.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}
