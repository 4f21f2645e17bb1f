//! What a node, client or cluster may be called, and what an address looks like.

/// Longest name: it is one label of the DNS name `NAME.node.kvd` in the certificate.
pub const NAME_BYTES_MAX: usize = 63;

/// Checks a name: lower-case letters, digits and inner dashes, at most [`NAME_BYTES_MAX`] bytes.
///
/// # Errors
/// A sentence without a subject that says what is wrong.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty".to_owned());
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("is longer than {NAME_BYTES_MAX} bytes"));
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if let Some(bad) = name.chars().find(|c| !allowed(*c)) {
        return Err(format!(
            "has `{}`; names are lower-case letters, digits and dashes",
            bad.escape_debug()
        ));
    }
    if name.starts_with('-') || name.ends_with('-') {
        return Err("begins or ends with a dash".to_owned());
    }
    Ok(())
}

/// Checks `HOST:PORT`, where HOST is a name, an IPv4 address or an IPv6 address in brackets.
/// The host is not looked up: addresses are hints, and may begin to exist later.
///
/// # Errors
/// A sentence without a subject that says what is wrong.
pub fn check_address(address: &str) -> Result<(), String> {
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err("has no port; expected HOST:PORT".to_owned());
    };
    match port.parse::<u16>() {
        Ok(0) | Err(_) => return Err(format!("has no usable port (`{port}`)")),
        Ok(_) => {}
    }
    let fault = "is not HOST:PORT (an IPv6 address stands in brackets)";
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return inner
            .parse::<std::net::Ipv6Addr>()
            .map(|_| ())
            .map_err(|_| fault.to_owned());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_';
    if host.is_empty() || !host.chars().all(allowed) {
        return Err(fault.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["n1", "node-7", "a"] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in [
            "",
            "-n",
            "n-",
            "N1",
            "n.1",
            "n/1",
            "caf\u{e9}",
            &"x".repeat(64),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in [
            "10.0.0.1:7400",
            "node-1.example.org:1",
            "[::1]:7400",
            "localhost:65535",
        ] {
            assert_eq!(check_address(good), Ok(()));
        }
        for bad in [
            "10.0.0.1", ":7400", "h:0", "h:65536", "h:", "::1:7400", "[::g]:1", "a b:1",
        ] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }
}
