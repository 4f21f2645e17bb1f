//! Bytes as one field of a line and back: `\t \n \\ \xNN`, everything else as it is.
//!
//! What comes out is valid UTF-8 without tabs and line ends, so that `cut`, `sort` and `join` work, and it reads back as the
//! same bytes whatever they were.

use std::fmt::Write as _;

/// Appends `bytes` to a line.
pub(crate) fn escape_into(line: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\t' => line.push_str("\\t"),
                '\n' => line.push_str("\\n"),
                '\\' => line.push_str("\\\\"),
                other => line.push(other),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(line, "\\x{byte:02x}");
        }
    }
}

/// `bytes` as one field.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut line = String::with_capacity(bytes.len());
    escape_into(&mut line, bytes);
    line
}

/// The bytes of a field.
///
/// # Errors
/// Says which escape is not one.
pub(crate) fn unescape(field: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        bytes.extend_from_slice(&rest[..at]);
        let escape = &rest[at + 1..];
        let (byte, used) = match escape.first() {
            Some(b't') => (b'\t', 1),
            Some(b'n') => (b'\n', 1),
            Some(b'\\') => (b'\\', 1),
            Some(b'x') => (hex_byte(escape)?, 3),
            Some(_) | None => return Err(unknown(escape)),
        };
        bytes.push(byte);
        rest = &escape[used..];
    }
    bytes.extend_from_slice(rest);
    Ok(bytes)
}

fn hex_byte(escape: &[u8]) -> Result<u8, String> {
    escape
        .get(1..3)
        .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| u8::from_str_radix(digits, 16).ok())
        .ok_or_else(|| unknown(escape))
}

fn unknown(escape: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&escape[..escape.len().min(3)]);
    format!("`\\{shown}` is not an escape; known are \\t \\n \\\\ \\xNN")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_escapes_are_the_documented_ones() {
        assert_eq!(escape(b"a\tb\nc\\d\xff"), "a\\tb\\nc\\\\d\\xff");
        assert_eq!(
            escape("gr\u{fc}n \u{1f980}".as_bytes()),
            "gr\u{fc}n \u{1f980}"
        );
        assert_eq!(unescape(b"\\xFF\\x0d").unwrap(), b"\xff\r");
    }

    #[test]
    fn an_unknown_or_cut_escape_is_refused() {
        for bad in ["\\", "\\q", "\\x", "\\x1", "\\xzz", "\\x+1", "a\\"] {
            assert!(unescape(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_field_reads_back_as_the_same_bytes(bytes in any::<Vec<u8>>()) {
            let field = escape(&bytes);
            prop_assert!(!field.contains(['\t', '\n']));
            prop_assert_eq!(unescape(field.as_bytes()).unwrap(), bytes);
        }

        #[test]
        fn no_field_makes_it_panic(field in any::<Vec<u8>>()) {
            let _ = unescape(&field);
        }
    }
}
