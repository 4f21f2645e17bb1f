//! Certificate authority, own certificate and own key: loaded, checked, and never printed.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::identity::{Identity, IdentityError};

/// Names of the files that [`Credentials::load`] reads. `deny` may be absent.
pub const CREDENTIAL_FILES: [&str; 4] = ["ca.pem", "node.pem", "node.key", "deny"];

/// Why credentials cannot be used. Found at load, not at the first connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// A file is not there.
    #[error("{} is missing", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("{}: {reason}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Others than the owner can read the private key.
    #[error("{} has mode {mode:04o}, expected 0600: others can read the private key", .path.display())]
    WidePermissions {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not the PEM that was expected.
    #[error("{what}: {reason}")]
    Malformed {
        /// `CA`, `certificate` or `key`.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The private key does not belong to the certificate.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The certificate's time is over.
    #[error("the certificate of {identity} expired {}", seconds_ago(.not_after))]
    Expired {
        /// Whose certificate.
        identity: Identity,
        /// When it ended.
        not_after: SystemTime,
    },
    /// The certificate's time has not come; perhaps the clock is wrong.
    #[error("the certificate of {identity} is not valid yet")]
    NotYetValid {
        /// Whose certificate.
        identity: Identity,
        /// When it begins.
        not_before: SystemTime,
    },
    /// The certificate names nobody of ours.
    #[error("{0}")]
    NoIdentity(#[from] IdentityError),
    /// Another CA signed the certificate, or it may not be used for its role.
    #[error("the certificate of {identity} does not verify under the CA: {reason}")]
    NotSignedByCa {
        /// Whose certificate.
        identity: Identity,
        /// What the verifier said.
        reason: String,
    },
}

fn seconds_ago(time: &SystemTime) -> String {
    match SystemTime::now().duration_since(*time) {
        Ok(ago) => format!("{} s ago", ago.as_secs()),
        Err(_) => "just now".to_owned(),
    }
}

/// The ring provider, always passed explicitly: a process default panics once a dependency brings a second one.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::LazyLock<Arc<CryptoProvider>> =
        std::sync::LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    PROVIDER.clone()
}

/// CA bundle, own certificate chain, own key and deny list. Cheap to clone.
#[derive(Clone)]
pub struct Credentials {
    inner: Arc<Inner>,
    deny: Arc<DenyList>,
}

struct Inner {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    identity: Identity,
    not_after: SystemTime,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("Credentials")
            .field("identity", &self.inner.identity)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Credentials from PEM texts, without a deny list. `ca` may hold several certificates while a CA is replaced.
    ///
    /// # Errors
    ///
    /// Any [`CredentialError`] but those about files.
    pub fn from_pem(
        ca: &[u8],
        certificate: &[u8],
        key: &[u8],
    ) -> Result<Credentials, CredentialError> {
        let roots = parse_roots(ca)?;
        let chain = parse_certificates("certificate", certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| malformed("key", error))?;
        check_key(&chain, &key)?;
        let identity = Identity::from_certificate(&chain[0])?;
        let not_after = verify(&roots, &chain, &identity)?;
        let inner = Inner {
            roots: Arc::new(roots),
            chain,
            key,
            identity,
            not_after,
        };
        Ok(Credentials {
            inner: Arc::new(inner),
            deny: Arc::default(),
        })
    }

    /// Credentials from three files. The key must be readable by its owner only.
    ///
    /// # Errors
    ///
    /// Any [`CredentialError`].
    pub fn load_files(
        ca: &Path,
        certificate: &Path,
        key: &Path,
    ) -> Result<Credentials, CredentialError> {
        let (ca, certificate) = (read(ca)?, read(certificate)?);
        check_permissions(key)?;
        Credentials::from_pem(&ca, &certificate, &read(key)?)
    }

    /// Credentials of a node from the [`CREDENTIAL_FILES`] in `dir`, with its deny list if there is one.
    ///
    /// # Errors
    ///
    /// Any [`CredentialError`].
    pub fn load(dir: &Path) -> Result<Credentials, CredentialError> {
        let [ca, certificate, key, deny] = CREDENTIAL_FILES.map(|name| dir.join(name));
        let credentials = Credentials::load_files(&ca, &certificate, &key)?;
        match read(&deny) {
            Ok(text) => {
                Ok(credentials.with_deny_list(DenyList::parse(&String::from_utf8_lossy(&text))))
            }
            Err(CredentialError::Missing { .. }) => Ok(credentials),
            Err(error) => Err(error),
        }
    }

    /// The same credentials with another deny list.
    #[must_use]
    pub fn with_deny_list(self, deny: DenyList) -> Credentials {
        Credentials {
            deny: Arc::new(deny),
            ..self
        }
    }

    /// Whose credentials these are.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// When the certificate ends.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.inner.not_after
    }

    /// Who is not served.
    #[must_use]
    pub fn deny_list(&self) -> &DenyList {
        &self.deny
    }

    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        self.inner.roots.clone()
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.inner.chain.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.inner.key.clone_key()
    }
}

fn malformed(what: &'static str, reason: impl ToString) -> CredentialError {
    CredentialError::Malformed {
        what,
        reason: reason.to_string(),
    }
}

fn file_error(path: &Path, error: &io::Error) -> CredentialError {
    let path = path.to_owned();
    if error.kind() == io::ErrorKind::NotFound {
        return CredentialError::Missing { path };
    }
    CredentialError::Unreadable {
        path,
        reason: error.to_string(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialError> {
    fs::read(path).map_err(|error| file_error(path, &error))
}

#[cfg(unix)]
fn check_permissions(key: &Path) -> Result<(), CredentialError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::metadata(key).map_err(|error| file_error(key, &error))?;
    match metadata.permissions().mode() & 0o7777 {
        mode if mode & 0o077 != 0 => Err(CredentialError::WidePermissions {
            path: key.to_owned(),
            mode,
        }),
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn check_permissions(_: &Path) -> Result<(), CredentialError> {
    Ok(())
}

fn parse_certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = parsed.map_err(|error| malformed(what, error))?;
    if certificates.is_empty() {
        return Err(malformed(what, "no certificate in PEM form"));
    }
    Ok(certificates)
}

fn parse_roots(pem: &[u8]) -> Result<RootCertStore, CredentialError> {
    let mut roots = RootCertStore::empty();
    for certificate in parse_certificates("CA", pem)? {
        roots
            .add(certificate)
            .map_err(|error| malformed("CA", error))?;
    }
    Ok(roots)
}

fn check_key(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<(), CredentialError> {
    let signing = provider().key_provider.load_private_key(key.clone_key());
    let signing = signing.map_err(|error| malformed("key", error))?;
    let certified = rustls::sign::CertifiedKey::new(chain.to_vec(), signing);
    match certified.keys_match() {
        Ok(()) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err(CredentialError::KeyMismatch),
        Err(error) => Err(malformed("certificate", error)),
    }
}

/// Verifies as the other side will, and finds out when that will fail.
fn verify(
    roots: &RootCertStore,
    chain: &[CertificateDer<'static>],
    identity: &Identity,
) -> Result<SystemTime, CredentialError> {
    let now = UnixTime::now();
    verify_at(roots, chain, now).map_err(|error| verify_error(error, identity))?;
    match verify_at(roots, chain, UnixTime::since_unix_epoch(FAR_FUTURE)) {
        Err(webpki::Error::CertExpired { not_after, .. }) => Ok(system_time(not_after)),
        // Valid beyond all times.
        _ => Ok(SystemTime::UNIX_EPOCH + FAR_FUTURE),
    }
}

/// The year 9999, when every certificate has ended: the verifier then tells its last second.
const FAR_FUTURE: Duration = Duration::from_secs(253_402_300_799);

fn verify_at(
    roots: &RootCertStore,
    chain: &[CertificateDer<'static>],
    time: UnixTime,
) -> Result<(), webpki::Error> {
    let (own, intermediates) = chain.split_first().ok_or(webpki::Error::UnknownIssuer)?;
    let parsed = webpki::EndEntityCert::try_from(own)?;
    let algorithms = provider().signature_verification_algorithms.all;
    let usage = webpki::KeyUsage::client_auth();
    parsed.verify_for_usage(
        algorithms,
        &roots.roots,
        intermediates,
        time,
        usage,
        None,
        None,
    )?;
    Ok(())
}

fn verify_error(error: webpki::Error, identity: &Identity) -> CredentialError {
    let identity = identity.clone();
    if let webpki::Error::CertExpired { not_after, .. } = error {
        return CredentialError::Expired {
            identity,
            not_after: system_time(not_after),
        };
    }
    if let webpki::Error::CertNotValidYet { not_before, .. } = error {
        return CredentialError::NotYetValid {
            identity,
            not_before: system_time(not_before),
        };
    }
    CredentialError::NotSignedByCa {
        identity,
        reason: error.to_string(),
    }
}

fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

/// Names of nodes and clients, and serial numbers of certificates, that are not served.
///
/// One per line; `#` begins a comment. A serial number is hexadecimal, with or without colons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DenyList {
    lines: std::collections::BTreeSet<String>,
}

impl DenyList {
    /// Reads the text of a deny list. Every text is one.
    #[must_use]
    pub fn parse(text: &str) -> DenyList {
        let entry = |line: &str| line.split('#').next().unwrap_or_default().trim().to_owned();
        DenyList {
            lines: text
                .lines()
                .map(entry)
                .filter(|line| !line.is_empty())
                .collect(),
        }
    }

    /// Entries in the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether everybody with a good certificate is served.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether this certificate is on the list, by name or by serial number.
    #[must_use]
    pub fn denies(&self, identity: &Identity, certificate: &CertificateDer<'_>) -> bool {
        if self.lines.is_empty() {
            return false;
        }
        if self.lines.contains(identity.name()) {
            return true;
        }
        match webpki::EndEntityCert::try_from(certificate) {
            Ok(parsed) => {
                let serial = hex(parsed.serial());
                self.lines.iter().any(|line| normal_serial(line) == serial)
            }
            // Certificates get here verified; one that does not parse is not let in.
            Err(_) => true,
        }
    }
}

/// Serial numbers without leading zeros: the leading 00 of a positive DER integer is often left out in print.
fn hex(serial: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(serial.len() * 2);
    for byte in serial {
        write!(out, "{byte:02x}").expect("a String takes everything");
    }
    out.trim_start_matches('0').to_owned()
}

fn normal_serial(line: &str) -> String {
    let digits: String = line
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_ascii_lowercase())
        .collect();
    digits.trim_start_matches('0').to_owned()
}

#[cfg(test)]
#[cfg(feature = "pki")]
mod tests {
    use super::*;
    use crate::identity::ClusterId;
    use crate::pki::Authority;

    #[test]
    fn serial_numbers_are_denied_in_every_usual_spelling_and_nobody_else_is() {
        let authority = Authority::create(ClusterId(1), "test", 9).unwrap();
        let issued = authority.issue_client("ops", 9).unwrap();
        let other = authority.issue_client("ops2", 9).unwrap();
        let parse = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (certificate, other) = (parse(&issued.cert_pem), parse(&other.cert_pem));
        let identity = Identity::from_certificate(&certificate).unwrap();
        let serial = hex(webpki::EndEntityCert::try_from(&certificate)
            .unwrap()
            .serial());
        let padded = if serial.len() % 2 == 1 {
            format!("0{serial}")
        } else {
            serial.clone()
        };
        let pairs: Vec<&str> = (0..padded.len() / 2)
            .map(|at| &padded[2 * at..2 * at + 2])
            .collect();
        for line in [
            serial.clone(),
            format!("00{padded}"),
            pairs.join(":"),
            padded.to_uppercase(),
            "ops # gone".to_owned(),
        ] {
            let deny = DenyList::parse(&format!("someone\n{line}\n"));
            assert!(deny.denies(&identity, &certificate), "{line}");
        }
        let deny = DenyList::parse(&serial);
        assert!(!deny.denies(&Identity::from_certificate(&other).unwrap(), &other));
        assert!(!DenyList::default().denies(&identity, &certificate));
    }
}
