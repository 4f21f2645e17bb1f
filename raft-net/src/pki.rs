//! Makes the certificates of a cluster: an Ed25519 authority and what it signs.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType,
};

use crate::credentials::{CredentialError, Credentials};
use crate::identity::{
    ANY_NODE_NAME, ClusterId, Identity, IdentityError, check_client_name, check_node_name,
    node_dns_name,
};

/// Certificates begin to be valid this long before they are made: clocks differ.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long an authority is valid unless asked otherwise, in days.
pub const AUTHORITY_DAYS: u32 = 3650;

/// How long a certificate is valid unless asked otherwise, in days.
pub const CERTIFICATE_DAYS: u32 = 365;

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A name that could not be dialled, logged or denied.
    #[error("{0}")]
    Name(#[from] IdentityError),
    /// The library refused.
    #[error("cannot make the certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The authority's own certificate and key do not belong together, or it has expired.
    #[error("the authority cannot sign: {0}")]
    Authority(CredentialError),
}

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: SystemTime,
    /// Last moment.
    pub not_after: SystemTime,
}

impl Validity {
    /// From an hour ago, because clocks differ, for `days` from now.
    #[must_use]
    pub fn days(days: u32) -> Validity {
        let now = SystemTime::now();
        Validity {
            not_before: now - CLOCK_SKEW,
            not_after: now + DAY * days,
        }
    }
}

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct IssuedCertificate {
    /// The certificate.
    pub cert_pem: String,
    /// The private key. Secret.
    pub key_pem: String,
}

impl fmt::Debug for IssuedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedCertificate")
            .field("cert_pem", &self.cert_pem)
            .finish_non_exhaustive()
    }
}

/// The certificate authority of one cluster.
pub struct Authority {
    cluster: ClusterId,
    ca_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority, named after the cluster, valid for `days` (usually [`AUTHORITY_DAYS`]).
    ///
    /// # Errors
    ///
    /// The library refuses, for example a name that no certificate can hold.
    pub fn create(cluster: ClusterId, name: &str, days: u32) -> Result<Authority, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("kvd {name} {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, Validity::days(days));
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let key_pem = key.serialize_pem();
        let ca_pem = CertifiedIssuer::self_signed(params, key)?.pem();
        Authority::from_pem(cluster, &ca_pem, &key_pem)
    }

    /// An authority made earlier.
    ///
    /// # Errors
    ///
    /// The texts are not a CA certificate and a key. That they belong together is checked when signing.
    pub fn from_pem(
        cluster: ClusterId,
        ca_pem: &str,
        key_pem: &str,
    ) -> Result<Authority, PkiError> {
        let issuer = Issuer::from_ca_cert_pem(ca_pem, KeyPair::from_pem(key_pem)?)?;
        Ok(Authority {
            cluster,
            ca_pem: ca_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            issuer,
        })
    }

    /// The cluster it signs for.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The CA certificate.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The CA's private key. Secret; keep it off the servers.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// A certificate for a node. `extra_names` are further DNS names or IP addresses for other tools; kvd itself
    /// never looks at them.
    ///
    /// # Errors
    ///
    /// A name is not allowed, or the authority cannot sign.
    pub fn issue_node(
        &self,
        name: &str,
        id: u64,
        days: u32,
        extra_names: &[String],
    ) -> Result<IssuedCertificate, PkiError> {
        let identity = Identity::Node {
            cluster: self.cluster,
            name: name.to_owned(),
            id,
        };
        self.issue(&identity, Validity::days(days), extra_names)
    }

    /// A certificate for a client.
    ///
    /// # Errors
    ///
    /// As for [`issue_node`](Authority::issue_node).
    pub fn issue_client(&self, name: &str, days: u32) -> Result<IssuedCertificate, PkiError> {
        let identity = Identity::Client {
            cluster: self.cluster,
            name: name.to_owned(),
        };
        self.issue(&identity, Validity::days(days), &[])
    }

    /// A certificate for an administrator.
    ///
    /// # Errors
    ///
    /// As for [`issue_node`](Authority::issue_node).
    pub fn issue_admin(&self, name: &str, days: u32) -> Result<IssuedCertificate, PkiError> {
        let identity = Identity::Admin {
            cluster: self.cluster,
            name: name.to_owned(),
        };
        self.issue(&identity, Validity::days(days), &[])
    }

    /// A certificate for any identity and time. A validity that does not contain the present is signed as well:
    /// it is how the refusal of such certificates is tested.
    ///
    /// # Errors
    ///
    /// As for [`issue_node`](Authority::issue_node).
    pub fn issue(
        &self,
        identity: &Identity,
        validity: Validity,
        extra_names: &[String],
    ) -> Result<IssuedCertificate, PkiError> {
        let mut params = CertificateParams::new(extra_names.to_vec())?;
        params.distinguished_name = common_name(identity.name());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names.extend(own_names(identity)?);
        params.extended_key_usages = key_purposes(identity);
        set_validity(&mut params, validity);
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let issued = IssuedCertificate {
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        };
        self.check(&issued)?;
        Ok(issued)
    }

    /// Loads what was made as its owner will: an authority whose key is not that of its certificate is found here.
    fn check(&self, issued: &IssuedCertificate) -> Result<(), PkiError> {
        let loaded = Credentials::from_pem(
            self.ca_pem.as_bytes(),
            issued.cert_pem.as_bytes(),
            issued.key_pem.as_bytes(),
        );
        match loaded {
            Ok(_) => Ok(()),
            Err(CredentialError::Expired { .. } | CredentialError::NotYetValid { .. }) => Ok(()),
            Err(error) => Err(PkiError::Authority(error)),
        }
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn set_validity(params: &mut CertificateParams, validity: Validity) {
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
}

/// The names by which kvd recognises the owner.
fn own_names(identity: &Identity) -> Result<Vec<SanType>, PkiError> {
    let mut names = vec![SanType::URI(ia5(&identity.to_string())?)];
    match identity {
        Identity::Node { name, id, .. } => {
            check_node_name(name)?;
            if *id == 0 {
                return Err(IdentityError {
                    text: "0".to_owned(),
                    expected: "a node id",
                }
                .into());
            }
            names.push(SanType::DnsName(ia5(ANY_NODE_NAME)?));
            names.push(SanType::DnsName(ia5(&node_dns_name(name))?));
        }
        Identity::Client { name, .. } | Identity::Admin { name, .. } => check_client_name(name)?,
    }
    Ok(names)
}

fn ia5(text: &str) -> Result<Ia5String, PkiError> {
    Ok(Ia5String::try_from(text)?)
}

/// A node is both ends of its links; a client never answers a dial.
fn key_purposes(identity: &Identity) -> Vec<ExtendedKeyUsagePurpose> {
    match identity {
        Identity::Node { .. } => vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ],
        Identity::Client { .. } | Identity::Admin { .. } => {
            vec![ExtendedKeyUsagePurpose::ClientAuth]
        }
    }
}
