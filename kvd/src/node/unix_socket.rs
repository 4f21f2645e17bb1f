//! The admin socket: `kvctl` on the node itself needs no certificate, because the kernel says who connects.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use raft_net::{FrameReceiver, FrameSender};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::clients::NewClient;
use crate::exit::Failure;
use crate::kv::auth::{Principal, Role};

/// How long to wait after a connection could not be taken.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(500);

/// A client on the socket.
pub(super) type SocketClient = NewClient<OwnedReadHalf, OwnedWriteHalf>;

/// Serves the socket until the node stops. A file left by an earlier life is replaced; the directory lock of the log has
/// already made sure that no other process of this node lives.
pub(super) fn listen(
    path: &Path,
    newcomers: mpsc::Sender<SocketClient>,
    frame_bytes_max: usize,
) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(Failure::start(
                &format!("admin socket {}", path.display()),
                &error,
            ));
        }
    }
    let bound = UnixListener::bind(path).and_then(|listener| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(listener)
    });
    let listener = bound
        .map_err(|error| Failure::start(&format!("admin socket {}", path.display()), &error))?;
    tokio::spawn(async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: the socket is needed all the more when that is over.
                    tracing::warn!(%error, "admin socket");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                    continue;
                }
            };
            if let Some(principal) = principal_of(&stream) {
                let (read, write) = stream.into_split();
                let client = NewClient {
                    principal,
                    receiver: FrameReceiver::new(read, frame_bytes_max),
                    sender: FrameSender::new(write, frame_bytes_max),
                };
                if newcomers.send(client).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(())
}

/// Root and the daemon's own user administer the node; nobody else is served.
fn principal_of(stream: &UnixStream) -> Option<Principal> {
    let uid = stream.peer_cred().ok()?.uid();
    let own = rustix::process::geteuid().as_raw();
    if uid == 0 || uid == own {
        return Some(Principal::new(Role::Admin, format!("uid-{uid}")));
    }
    tracing::warn!(uid, "admin socket: user refused");
    None
}
