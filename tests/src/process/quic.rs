//! A QUIC client that is not ours: it presents whatever certificate it is told to, or none, and sends whatever bytes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::runtime::Runtime;

use super::load::open_runtime;

/// How long a node may take to answer or refuse.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The byte that opens a client stream, and its answer.
const CLIENT_TAG: u8 = 16;

/// What the client shows.
#[derive(Clone, Copy, Debug)]
pub enum Presented<'a> {
    /// No certificate.
    Nothing,
    /// A certificate and its key.
    Pem {
        /// The certificate.
        cert: &'a str,
        /// The private key.
        key: &'a str,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// The node opened the stream: it serves this client.
    Served,
    /// It does not, for this reason.
    Refused(String),
}

/// A client with a runtime of its own.
#[derive(Debug)]
pub struct Dialler {
    runtime: Runtime,
    ca: String,
}

impl Dialler {
    /// A client that trusts this authority.
    #[must_use]
    pub fn new(ca_pem: &str) -> Dialler {
        Dialler {
            runtime: open_runtime(),
            ca: ca_pem.to_owned(),
        }
    }

    /// Connects with the client protocol, and says whether the node serves.
    ///
    /// # Panics
    /// The node does neither within ten seconds.
    #[must_use]
    pub fn dial(&self, to: SocketAddr, alpn: &[u8], presented: Presented<'_>) -> Dialled {
        let outcome = self.within(self.open(to, alpn, presented));
        match outcome {
            Ok(_) => Dialled::Served,
            Err(reason) => Dialled::Refused(reason),
        }
    }

    /// Sends these bytes on a client stream that the node serves, and returns with what words it ended the connection.
    ///
    /// # Panics
    /// It does not end the connection within ten seconds.
    #[must_use]
    pub fn send_and_be_closed(
        &self,
        to: SocketAddr,
        presented: Presented<'_>,
        bytes: &[u8],
    ) -> String {
        self.within(async {
            let (connection, mut send, _receive) = self
                .open(to, raft_net::CLIENT_ALPN, presented)
                .await
                .expect("a good certificate is served");
            // The node may be faster to close than we are to write.
            let _ = send.write_all(bytes).await;
            connection.closed().await.to_string()
        })
    }

    fn within<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime
            .block_on(async { tokio::time::timeout(TIMEOUT, work).await })
            .unwrap_or_else(|_| panic!("the node neither serves nor refuses within {TIMEOUT:?}"))
    }

    async fn open(
        &self,
        to: SocketAddr,
        alpn: &[u8],
        presented: Presented<'_>,
    ) -> Result<(quinn::Connection, quinn::SendStream, quinn::RecvStream), String> {
        let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())
            .map_err(|error| error.to_string())?;
        let config = self.config(alpn, presented);
        let connecting = endpoint
            .connect_with(config, to, raft_net::ANY_NODE_NAME)
            .map_err(|error| error.to_string())?;
        let connection = connecting.await.map_err(|error| error.to_string())?;
        // With TLS 1.3 the client is done before the server has looked at its certificate: only the answer on the stream
        // shows that it serves.
        let closed = |error: &dyn std::fmt::Display| {
            connection
                .close_reason()
                .map_or_else(|| error.to_string(), |reason| reason.to_string())
        };
        let (mut send, mut receive) = connection.open_bi().await.map_err(|error| closed(&error))?;
        send.write_all(&[CLIENT_TAG])
            .await
            .map_err(|error| closed(&error))?;
        let mut tag = [0];
        receive
            .read_exact(&mut tag)
            .await
            .map_err(|error| closed(&error))?;
        assert_eq!(
            tag,
            [CLIENT_TAG],
            "the answer to the opening of a client stream"
        );
        Ok((connection, send, receive))
    }

    fn config(&self, alpn: &[u8], presented: Presented<'_>) -> quinn::ClientConfig {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca.as_bytes())
            .expect("the authority's certificate");
        roots.add(ca).expect("the authority's certificate");
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .with_root_certificates(roots);
        let mut config = match presented {
            Presented::Nothing => builder.with_no_client_auth(),
            Presented::Pem { cert, key } => {
                let chain =
                    CertificateDer::pem_slice_iter(cert.as_bytes()).collect::<Result<_, _>>();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key of ours");
                builder
                    .with_client_auth_cert(chain.expect("a certificate of ours"), key)
                    .expect("they belong together")
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        let crypto = QuicClientConfig::try_from(config).expect("TLS 1.3 has what QUIC needs");
        quinn::ClientConfig::new(Arc::new(crypto))
    }
}
