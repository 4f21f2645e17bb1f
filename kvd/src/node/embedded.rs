//! Clients in the process of the node: the same client as everywhere, over a pipe in memory.

use std::sync::Arc;
use std::time::Duration;

use raft_net::{FrameReceiver, FrameSender};
use tokio::io::{DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::Control;
use super::clients::NewClient;
use crate::client::{Client, ClientOptions, Dial, Found, Link, Pending, Target};
use crate::kv::auth::{Principal, Role};

/// The node's end of the pipe, and whose it is.
pub(crate) type EmbeddedClient = NewClient<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;

/// The address of the own node.
const OWN: &str = "embedded";

/// Bytes on their way in one direction; beyond it the writer waits.
const PIPE_BYTES: usize = 256 << 10;

/// Makes a client that speaks with this node only; the node forwards what is for the leader.
pub(super) fn client(controls: mpsc::WeakSender<Control>, timeout: Duration) -> Client {
    let frame_bytes_max = raft_net::ClientOptions::default().frame_bytes_max;
    let pipe = Pipe {
        controls,
        frame_bytes_max,
    };
    let options = ClientOptions {
        endpoints: vec![OWN.to_owned()],
        timeout,
        pinned: true,
        retry_overloaded: true,
        ..ClientOptions::default()
    };
    Client::over(Arc::new(pipe), options)
}

struct Pipe {
    /// Weak, so that a client does not keep a dropped node alive.
    controls: mpsc::WeakSender<Control>,
    frame_bytes_max: usize,
}

impl Dial for Pipe {
    fn dial(&self, target: Target) -> Pending<Result<Link, Found>> {
        let controls = self.controls.clone();
        let frame_bytes_max = self.frame_bytes_max;
        Box::pin(async move {
            if target.address != OWN {
                return Err(Found::NotAsked);
            }
            let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
            let (read, write) = tokio::io::split(theirs);
            // Whoever has the node has its data too: there is nothing to keep from it.
            let client = NewClient {
                principal: Principal::new(Role::Admin, OWN),
                receiver: FrameReceiver::new(read, frame_bytes_max),
                sender: FrameSender::new(write, frame_bytes_max),
            };
            let controls = controls.upgrade().ok_or(Found::Ended)?;
            controls
                .send(Control::Connect(Box::new(client)))
                .await
                .map_err(|_| Found::Ended)?;
            let (read, write) = tokio::io::split(ours);
            let receiver = FrameReceiver::new(read, frame_bytes_max);
            let sender = FrameSender::new(write, frame_bytes_max);
            Ok(Link::over(receiver, sender, None))
        })
    }

    /// A dial fails at once when the node is gone, and a pipe ends with it: there is nothing to probe.
    fn refused(&self, _: Target) -> Pending<()> {
        Box::pin(std::future::pending())
    }
}
