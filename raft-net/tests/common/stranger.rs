//! Someone with a QUIC stack of their own and whatever certificate they could get hold of.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use raft_net::pki::{Authority, IssuedCertificate};
use raft_net::{CLIENT_ALPN, Hello, PEER_ALPN};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A connection made without the help of the crate under test.
pub(crate) struct Stranger {
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) connection: quinn::Connection,
}

impl Stranger {
    /// Connects to the endpoint of node `server`, verifying it under `authority`.
    pub(crate) async fn connect(
        remote: SocketAddr,
        server: &str,
        alpn: &[u8],
        authority: &Authority,
        own: Option<&IssuedCertificate>,
    ) -> Result<Stranger, String> {
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let crypto =
            quinn::crypto::rustls::QuicClientConfig::try_from(tls(alpn, authority, own)).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        let mut transport = quinn::TransportConfig::default();
        transport.max_idle_timeout(Some(Duration::from_secs(5).try_into().unwrap()));
        transport.keep_alive_interval(Some(Duration::from_millis(500)));
        config.transport_config(Arc::new(transport));
        endpoint.set_default_client_config(config);
        let connection = endpoint
            .connect(remote, server)
            .unwrap()
            .await
            .map_err(|error| error.to_string())?;
        Ok(Stranger {
            endpoint,
            connection,
        })
    }

    /// Says hello as a peer does. `Ok`: we were answered.
    pub(crate) async fn greet(&self, hello: &Hello) -> Result<(), String> {
        let exchange = async {
            let (mut send, mut recv) = self
                .connection
                .open_bi()
                .await
                .map_err(|error| error.to_string())?;
            let frame = hello.encode();
            let mut bytes = u32::try_from(frame.len()).unwrap().to_le_bytes().to_vec();
            bytes.extend_from_slice(&frame);
            send.write_all(&bytes)
                .await
                .map_err(|error| error.to_string())?;
            let mut answer = [0; 4];
            recv.read_exact(&mut answer)
                .await
                .map_err(|error| error.to_string())
        };
        self.answer(exchange.await).await
    }

    /// Opens a stream as a client does. `Ok`: we were answered.
    pub(crate) async fn ask(&self) -> Result<(), String> {
        let exchange = async {
            let (mut send, mut recv) = self
                .connection
                .open_bi()
                .await
                .map_err(|error| error.to_string())?;
            send.write_all(&[16])
                .await
                .map_err(|error| error.to_string())?;
            let mut answer = [0; 1];
            recv.read_exact(&mut answer)
                .await
                .map_err(|error| error.to_string())
        };
        self.answer(exchange.await).await
    }

    async fn answer(&self, result: Result<(), String>) -> Result<(), String> {
        match result {
            Ok(()) => Ok(()),
            Err(_) => Err(self.connection.closed().await.to_string()),
        }
    }
}

/// One attempt to be served with that protocol and that certificate; the error is what we were told.
pub(crate) async fn try_to_be_served(
    remote: SocketAddr,
    alpn: &[u8],
    authority: &Authority,
    own: Option<&IssuedCertificate>,
    hello: &Hello,
) -> Result<(), String> {
    let attempt = async {
        let stranger = Stranger::connect(remote, "node.kvd", alpn, authority, own).await?;
        match alpn {
            PEER_ALPN => stranger.greet(hello).await,
            CLIENT_ALPN => stranger.ask().await,
            other => panic!("{other:?}"),
        }
    };
    tokio::time::timeout(crate::common::DEADLINE, attempt)
        .await
        .expect("an answer or a refusal")
}

fn tls(
    alpn: &[u8],
    authority: &Authority,
    own: Option<&IssuedCertificate>,
) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = vec![CertificateDer::from_pem_slice(own.cert_pem.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}
