//! TLS 1.3 and QUIC configurations made from [`Credentials`], and the keys derived from the node's private key.
//!
//! No early data, no tickets, no session storage: a resumed session would not check the certificate again, so a
//! client on the deny list or past its expiry could come back.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{IdleTimeout, TransportConfig, VarInt};
use ring::{hkdf, hmac};
use rustls::client::Resumption;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls_pki_types::CertificateDer;

use crate::credentials::{Credentials, provider};
use crate::handshake::Refusal;
use crate::identity::{Identity, IdentityError};
use crate::limits::{DIAL_INITIAL_RTT, STREAMS_PER_PEER};
use crate::options::{ClientOptions, EndpointOptions};

/// Protocol between nodes. The number is the version of the wire format.
pub const PEER_ALPN: &[u8] = b"kvd-raft/1";

/// Protocol between clients and nodes.
pub const CLIENT_ALPN: &[u8] = b"kvd-client/1";

/// Everything that changes when credentials are reloaded.
pub(crate) struct Tls {
    pub(crate) credentials: Credentials,
    pub(crate) dial: quinn::ClientConfig,
}

impl Tls {
    pub(crate) fn new(credentials: Credentials, options: &EndpointOptions) -> Result<Tls, String> {
        let dial = quic_client(&credentials, PEER_ALPN, peer_transport(options))?;
        Ok(Tls { credentials, dial })
    }

    /// Who is at the other end of a connection whose TLS handshake is done.
    pub(crate) fn identify(&self, connection: &quinn::Connection) -> Result<Identity, PeerError> {
        let (identity, certificate) = peer_identity(connection)?;
        if identity.cluster() != self.credentials.identity().cluster() {
            return Err(PeerError::Refused(identity, Refusal::WrongCluster));
        }
        if self.credentials.deny_list().denies(&identity, &certificate) {
            return Err(PeerError::Refused(identity, Refusal::Denied));
        }
        Ok(identity)
    }
}

/// Why the other side of a verified connection is not welcome.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("{0}")]
    Identity(#[from] IdentityError),
    #[error("{1} ({0})")]
    Refused(Identity, Refusal),
}

impl PeerError {
    /// What the other side is told.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            PeerError::Identity(_) => Refusal::WrongIdentity,
            PeerError::Refused(_, refusal) => *refusal,
        }
    }
}

/// Owner and certificate of the other end of a connection whose TLS handshake is done.
pub(crate) fn peer_identity(
    connection: &quinn::Connection,
) -> Result<(Identity, CertificateDer<'static>), IdentityError> {
    let certificate = peer_certificate(connection)?;
    Ok((Identity::from_certificate(&certificate)?, certificate))
}

fn peer_certificate(
    connection: &quinn::Connection,
) -> Result<CertificateDer<'static>, IdentityError> {
    let missing = || IdentityError {
        text: "nothing".to_owned(),
        expected: "a certificate chain",
    };
    let chain = connection.peer_identity().ok_or_else(missing)?;
    let chain = chain
        .downcast::<Vec<CertificateDer<'static>>>()
        .map_err(|_| missing())?;
    chain.into_iter().next().ok_or_else(missing)
}

/// The protocol negotiated on a connection whose handshake is done.
pub(crate) fn negotiated_alpn(connection: &quinn::Connection) -> Option<Vec<u8>> {
    let data = connection.handshake_data()?;
    data.downcast::<quinn::crypto::rustls::HandshakeData>()
        .ok()?
        .protocol
}

/// rustls' side of an endpoint: both protocols, a client certificate is a must.
pub(crate) fn rustls_server(credentials: &Credentials) -> Result<rustls::ServerConfig, String> {
    let verifier = WebPkiClientVerifier::builder_with_provider(credentials.roots(), provider());
    let verifier = verifier.build().map_err(|error| error.to_string())?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain(), credentials.key())
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![PEER_ALPN.to_vec(), CLIENT_ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// rustls' side of a dialler or client: one protocol.
pub(crate) fn rustls_client(
    credentials: &Credentials,
    alpn: &[u8],
) -> Result<rustls::ClientConfig, String> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(credentials.roots())
        .with_client_auth_cert(credentials.chain(), credentials.key())
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// The server side of an endpoint, for peers and clients.
pub(crate) fn quic_server(
    credentials: &Credentials,
    options: &EndpointOptions,
) -> Result<quinn::ServerConfig, String> {
    let crypto = QuicServerConfig::try_from(rustls_server(credentials)?)
        .map_err(|error| error.to_string())?;
    let token_key = derived_prk(credentials);
    let mut config = quinn::ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
    config.transport_config(Arc::new(accept_transport(options)));
    config.max_incoming(options.handshakes_max.saturating_mul(2).max(16));
    // A handshake fits in a few datagrams; more is not worth keeping for an address nobody has proven.
    config
        .incoming_buffer_size(64 << 10)
        .incoming_buffer_size_total(8 << 20);
    config.migration(true);
    Ok(config)
}

/// A dialler's or client's side.
pub(crate) fn quic_client(
    credentials: &Credentials,
    alpn: &[u8],
    transport: TransportConfig,
) -> Result<quinn::ClientConfig, String> {
    let crypto = QuicClientConfig::try_from(rustls_client(credentials, alpn)?)
        .map_err(|error| error.to_string())?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    config.token_store(Arc::new(quinn::NoneTokenStore));
    Ok(config)
}

/// Bytes that all streams of a peer may hold together: none can use up another's credit.
pub(crate) fn peer_window_bytes(options: &EndpointOptions) -> u64 {
    u64::from(options.stream_window_bytes) * u64::from(STREAMS_PER_PEER)
}

/// An idle timeout QUIC can express; a longer one than it can means none.
fn idle(timeout: Duration) -> Option<IdleTimeout> {
    IdleTimeout::try_from(timeout).ok()
}

fn varint(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}

/// For accepted connections before we know whether a peer or a client dialled: the client's limits. A peer gets its
/// larger ones once it is admitted. The smaller idle timeout of the two sides counts, and it is the dialler's.
fn accept_transport(options: &EndpointOptions) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(idle(
            options.client_idle_timeout.max(options.peer_idle_timeout),
        ))
        .stream_receive_window(options.stream_window_bytes.into())
        .receive_window(options.client_window_bytes.into())
        .send_window(u64::from(options.stream_window_bytes))
        .max_concurrent_bidi_streams(1_u32.into())
        .max_concurrent_uni_streams(0_u32.into())
        .datagram_receive_buffer_size(None);
    config
}

/// For links we dial.
fn peer_transport(options: &EndpointOptions) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(idle(options.peer_idle_timeout))
        .keep_alive_interval(Some(options.peer_keep_alive))
        .initial_rtt(DIAL_INITIAL_RTT)
        .stream_receive_window(options.stream_window_bytes.into())
        .receive_window(varint(peer_window_bytes(options)))
        .send_window(peer_window_bytes(options))
        .max_concurrent_bidi_streams(crate::limits::SNAPSHOTS_AT_ONCE.into())
        .max_concurrent_uni_streams(2_u32.into())
        .datagram_receive_buffer_size(None);
    config
}

/// For client connections we dial.
pub(crate) fn client_transport(options: &ClientOptions) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(idle(options.idle_timeout))
        .keep_alive_interval(Some(options.keep_alive))
        .initial_rtt(DIAL_INITIAL_RTT)
        .stream_receive_window(options.window_bytes.into())
        .receive_window(options.window_bytes.into())
        .max_concurrent_bidi_streams(0_u32.into())
        .max_concurrent_uni_streams(0_u32.into())
        .datagram_receive_buffer_size(None);
    config
}

/// Keys that must survive a restart are derived from the private key, so that nothing more has to be stored.
///
/// With the same reset key and the same connection ids, a node that was killed and started again can tell the peers
/// of its former life at once that their connections are gone; otherwise they wait for their idle timeout.
pub(crate) fn endpoint_config(credentials: &Credentials) -> quinn::EndpointConfig {
    let reset = hmac::sign(&master_key(credentials), b"kvd quic stateless reset key 1");
    let id_key = connection_id_key(credentials);
    let mut config =
        quinn::EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, reset.as_ref())));
    config.cid_generator(move || {
        Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(id_key))
    });
    config
}

fn master_key(credentials: &Credentials) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, credentials.key().secret_der())
}

/// Lets a node recognise connection ids of its former life.
fn connection_id_key(credentials: &Credentials) -> u64 {
    let tag = hmac::sign(&master_key(credentials), b"kvd quic connection id key 1");
    let mut key = [0; 8];
    key.copy_from_slice(&tag.as_ref()[..8]);
    u64::from_le_bytes(key)
}

/// The key of address-validation tokens: one that survives a reload of the certificate's configuration.
fn derived_prk(credentials: &Credentials) -> hkdf::Prk {
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"kvd quic address validation key 1")
        .extract(credentials.key().secret_der())
}

#[cfg(test)]
#[cfg(feature = "pki")]
mod tests {
    use rustls::HandshakeKind;
    use rustls_pki_types::ServerName;

    use super::*;
    use crate::pki::Authority;
    use crate::{ClusterId, node_dns_name};

    fn credentials() -> Credentials {
        let authority = Authority::create(ClusterId(1), "test", 9).unwrap();
        let issued = authority.issue_node("n1", 1, 9, &[]).unwrap();
        let (ca, cert, key) = (authority.ca_pem(), issued.cert_pem, issued.key_pem);
        Credentials::from_pem(ca.as_bytes(), cert.as_bytes(), key.as_bytes()).unwrap()
    }

    /// One TLS handshake in memory and everything the server says after it; the bytes it took, and its kind.
    fn handshake(
        server: &Arc<rustls::ServerConfig>,
        client: &Arc<rustls::ClientConfig>,
    ) -> (HandshakeKind, Option<rustls::ProtocolVersion>) {
        let name = ServerName::try_from(node_dns_name("n1")).unwrap();
        let mut client = rustls::ClientConnection::new(client.clone(), name).unwrap();
        let mut server = rustls::ServerConnection::new(server.clone()).unwrap();
        while client.wants_write() || server.wants_write() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut wire = &wire[..];
            while !wire.is_empty() {
                server.read_tls(&mut wire).unwrap();
                server.process_new_packets().unwrap();
            }
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut wire = &wire[..];
            while !wire.is_empty() {
                client.read_tls(&mut wire).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        assert_eq!(client.tls13_tickets_received(), 0);
        assert!(client.early_data().is_none());
        assert!(!server.is_handshaking());
        (client.handshake_kind().unwrap(), client.protocol_version())
    }

    /// Case 60: early data and session resumption are off. Each handshake is a full one, even with a client that
    /// would gladly resume.
    #[test]
    fn no_tickets_no_early_data_no_resumption() {
        let credentials = credentials();
        let server = Arc::new(rustls_server(&credentials).unwrap());
        let ours = rustls_client(&credentials, PEER_ALPN).unwrap();
        assert!(!ours.enable_early_data);
        assert_eq!(server.max_early_data_size, 0);
        assert!(!server.session_storage.can_cache());
        assert!(!server.ticketer.enabled());
        let mut eager = rustls_client(&credentials, PEER_ALPN).unwrap();
        eager.resumption = Resumption::in_memory_sessions(16);
        eager.enable_early_data = true;
        for client in [Arc::new(ours), Arc::new(eager)] {
            for _ in 0..3 {
                let (kind, version) = handshake(&server, &client);
                assert_eq!(kind, HandshakeKind::Full);
                assert_eq!(version, Some(rustls::ProtocolVersion::TLSv1_3));
            }
        }
    }

    #[test]
    fn derived_keys_are_the_same_after_a_restart_and_differ_between_nodes() {
        use quinn_proto::ConnectionIdGenerator;
        let (one, two) = (credentials(), credentials());
        assert_eq!(connection_id_key(&one), connection_id_key(&one));
        assert_ne!(connection_id_key(&one), connection_id_key(&two));
        let mut before =
            quinn_proto::HashedConnectionIdGenerator::from_key(connection_id_key(&one));
        let after = quinn_proto::HashedConnectionIdGenerator::from_key(connection_id_key(&one));
        assert!(after.validate(&before.generate_cid()).is_ok());
    }
}
