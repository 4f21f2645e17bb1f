//! The UDP socket: large buffers asked for, and one warning with the remedy when the system gave less.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Once;

use socket2::{Domain, Protocol, Socket, Type};

/// A non-blocking socket on `listen` with buffers of `buffer_bytes`, as far as the system allows.
pub(crate) fn bind(listen: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(listen),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if listen.is_ipv6() {
        // Some systems have no dual stack; the socket then serves IPv6 only.
        if let Err(error) = socket.set_only_v6(false) {
            tracing::debug!(%error, "no IPv4 on the IPv6 socket");
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    if let Some(granted) = ask_for_buffers(&socket, buffer_bytes) {
        warn_once(buffer_bytes, granted);
    }
    Ok(socket.into())
}

/// Asks for larger buffers; returns what was granted if that is less. The system may clamp the request silently,
/// so the answer is read back; Linux reports twice what it lets us use.
fn ask_for_buffers(socket: &Socket, wanted: usize) -> Option<usize> {
    let asked = socket
        .set_recv_buffer_size(wanted)
        .and_then(|()| socket.set_send_buffer_size(wanted));
    if let Err(error) = asked {
        tracing::debug!(%error, "asking for UDP buffers");
    }
    let doubled = if cfg!(target_os = "linux") { 2 } else { 1 };
    let granted = socket
        .recv_buffer_size()
        .and_then(|recv| Ok(recv.min(socket.send_buffer_size()?) / doubled));
    match granted {
        Ok(granted) if granted < wanted => Some(granted),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%error, "reading back UDP buffers");
            None
        }
    }
}

fn warn_once(wanted: usize, granted: usize) {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            wanted_bytes = wanted,
            granted_bytes = granted,
            "the system grants smaller UDP buffers than asked for; bursts will lose packets. \
             Remedy: sysctl -w net.core.rmem_max={wanted} net.core.wmem_max={wanted}"
        );
    });
}

/// Without segmentation offload each packet costs a system call: about twice the CPU.
pub(crate) fn warn_without_offload(segments: usize) {
    static WARNED: Once = Once::new();
    if segments <= 1 {
        WARNED.call_once(|| {
            tracing::warn!("the system offers no UDP segmentation offload (GSO); sending costs about twice the CPU");
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaller_buffers_than_asked_for_are_noticed() {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        assert_eq!(ask_for_buffers(&socket, 64 << 10), None);
        let granted = ask_for_buffers(&socket, 1 << 30).unwrap();
        assert!(granted < 1 << 30);
    }
}
