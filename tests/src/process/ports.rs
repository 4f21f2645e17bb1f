//! Ports for nodes.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};

use rand::RngExt as _;

/// Below the range from which the system takes ports for outgoing connections (32768 on Linux), so that nobody gets one of
/// ours by chance while its node is down.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// A loopback port that is free for UDP and TCP and was not given out by this process before.
///
/// # Panics
/// None is left.
#[must_use]
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut rng = rand::rng();
    for _ in 0..10_000 {
        let port = rng.random_range(PORTS);
        if !given.contains(&port) && is_free(port) {
            given.insert(port);
            return port;
        }
    }
    panic!("no free port in {PORTS:?}");
}

fn is_free(port: u16) -> bool {
    let at = (Ipv4Addr::LOCALHOST, port);
    UdpSocket::bind(at).is_ok() && TcpListener::bind(at).is_ok()
}
