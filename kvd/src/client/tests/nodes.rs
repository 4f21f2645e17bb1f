//! Scripted nodes that speak the server's side of the protocol over real frames.

use super::*;

pub(super) const FRAME_BYTES_MAX: usize = 1 << 20;

/// What a scripted node does with a request.
pub(super) enum Act {
    Answer(Response),
    Say(Vec<(u64, Response)>),
    Garbage,
    Nothing,
    HangUp,
}

pub(super) type Script = dyn Fn(&str, &RequestFrame, &mut Seen) -> Act + Send + Sync;

/// What the nodes have seen.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) dialled: Vec<String>,
    pub(super) writes: Vec<(String, SessionRef, u64, u64)>,
    pub(super) requests: usize,
}

/// A cluster whose nodes follow a script. Addresses are the nodes' names.
pub(super) struct Nodes {
    pub(super) names: Vec<String>,
    /// The members that came in place of those of the hello.
    pub(super) later: Option<Vec<String>>,
    pub(super) leader: Option<usize>,
    pub(super) unreachable: BTreeMap<String, Found>,
    pub(super) seen: Arc<Mutex<Seen>>,
    pub(super) script: Arc<Script>,
}

pub(super) fn nodes(
    names: &[&str],
    script: impl Fn(&str, &RequestFrame, &mut Seen) -> Act + Send + Sync + 'static,
) -> Nodes {
    Nodes {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        later: None,
        leader: Some(0),
        unreachable: BTreeMap::new(),
        seen: Arc::default(),
        script: Arc::new(script),
    }
}

impl Nodes {
    pub(super) fn without(mut self, name: &str, found: Found) -> Nodes {
        self.unreachable.insert(name.to_owned(), found);
        self
    }

    fn id_of(&self, name: &str) -> u64 {
        let place = self.names.iter().position(|n| n == name);
        place.map_or(0, |at| at as u64 + 1)
    }

    fn addresses(&self, names: &[String]) -> Vec<MemberAddress> {
        let address = |name: &String| MemberAddress {
            name: name.clone(),
            id: self.id_of(name),
            address: name.clone(),
        };
        names.iter().map(address).collect()
    }

    /// What is said after the members were changed to those of `later`.
    fn members(&self) -> Response {
        let member = |address| Member {
            address,
            voter: true,
        };
        let names = self.later.as_ref().unwrap_or(&self.names);
        Response::Members {
            members: self.addresses(names).into_iter().map(member).collect(),
            leader: self.leader.map(|at| at as u64 + 1),
        }
    }

    pub(super) fn hello(&self, name: &str) -> Response {
        Response::Hello {
            version: 1,
            node: name.to_owned(),
            node_id: self.id_of(name),
            cluster: 1,
            cluster_name: "test".to_owned(),
            members: self.addresses(&self.names),
            leader: self.leader.map(|at| at as u64 + 1),
        }
    }

    pub(super) fn status(&self, name: &str) -> Response {
        Response::Status(Box::new(NodeStatus {
            name: name.to_owned(),
            role: NodeRole::Follower,
            term: 7,
            voters: self.names.clone(),
            ..NodeStatus::default()
        }))
    }

    pub(super) fn client(
        self,
        endpoints: &[&str],
        change: impl FnOnce(&mut ClientOptions),
    ) -> (Client, Arc<Mutex<Seen>>) {
        let seen = self.seen.clone();
        let mut options = ClientOptions {
            endpoints: endpoints.iter().map(|name| (*name).to_owned()).collect(),
            ..ClientOptions::default()
        };
        change(&mut options);
        (
            Client::over(Arc::new(Cluster(Arc::new(self))), options),
            seen,
        )
    }
}

pub(super) struct Cluster(pub(super) Arc<Nodes>);

impl Dial for Cluster {
    fn dial(&self, target: Target) -> Pending<Result<Link, Found>> {
        let nodes = self.0.clone();
        Box::pin(async move {
            nodes
                .seen
                .lock()
                .unwrap()
                .dialled
                .push(target.address.clone());
            match nodes.unreachable.get(&target.address) {
                Some(Found::TimedOut) => std::future::pending().await,
                Some(found) => return Err(found.clone()),
                None => {}
            }
            let (near, far) = tokio::io::duplex(1 << 16);
            tokio::spawn(serve(nodes, target.address, far));
            let (read, write) = tokio::io::split(near);
            let receiver = FrameReceiver::new(read, FRAME_BYTES_MAX);
            let sender = FrameSender::new(write, FRAME_BYTES_MAX);
            Ok(Link::over(receiver, sender, None))
        })
    }

    fn refused(&self, _: Target) -> Pending<()> {
        Box::pin(std::future::pending())
    }
}

pub(super) async fn serve(nodes: Arc<Nodes>, name: String, stream: tokio::io::DuplexStream) {
    let (read, write) = tokio::io::split(stream);
    let mut receiver = FrameReceiver::new(read, FRAME_BYTES_MAX);
    let mut sender = FrameSender::new(write, FRAME_BYTES_MAX);
    while let Ok(Some(frame)) = receiver.recv().await {
        let request = RequestFrame::decode(&frame).unwrap();
        let act = if matches!(request.body, Request::Hello { .. }) {
            Act::Answer(nodes.hello(&name))
        } else if request.body == Request::Status {
            Act::Answer(nodes.status(&name))
        } else if request.body == Request::Members {
            Act::Answer(nodes.members())
        } else {
            play(&nodes, &name, &request)
        };
        let answers = match act {
            Act::Answer(body) => vec![
                ResponseFrame {
                    id: request.id,
                    body,
                }
                .encode(),
            ],
            Act::Say(answers) => answers
                .into_iter()
                .map(|(id, body)| ResponseFrame { id, body }.encode())
                .collect(),
            Act::Garbage => vec![Bytes::from_static(b"\xff garbage")],
            Act::Nothing => continue,
            Act::HangUp => return,
        };
        if sender.send_all(&answers).await.is_err() {
            return;
        }
    }
}

pub(super) fn play(nodes: &Nodes, name: &str, request: &RequestFrame) -> Act {
    let mut seen = nodes.seen.lock().unwrap();
    seen.requests += 1;
    if let Request::Write {
        session,
        sequence,
        done_below,
        ..
    } = &request.body
    {
        seen.writes
            .push((name.to_owned(), *session, *sequence, *done_below));
    }
    (nodes.script)(name, request, &mut seen)
}

pub(super) fn put(key: &str) -> Command {
    Op::Put {
        key: key.to_owned().into(),
        value: "v".into(),
        want_previous: false,
    }
    .into()
}

pub(super) fn written(revision: u64) -> Response {
    let result = CommandResult {
        revision,
        succeeded: true,
        results: vec![OpResult::Put {
            version: 1,
            previous: None,
        }],
    };
    Response::Written {
        session: 100,
        result,
    }
}

/// Answers each write with its sequence as revision.
pub(super) fn done(request: &RequestFrame) -> Act {
    if let Request::Write { sequence, .. } = &request.body {
        return Act::Answer(written(*sequence));
    }
    Act::Answer(Response::Range {
        result: RangeResult::default(),
        applied: 1,
        local: false,
    })
}

pub(super) fn refuse(refusal: Refusal) -> Act {
    Act::Answer(Response::Refused(refusal))
}

pub(super) fn no_leader() -> Refusal {
    Refusal::NoLeader {
        detail: "election".to_owned(),
    }
}
