//! Bytes in JSON: a string when they are valid UTF-8, otherwise `{"b64": "..."}`. Never base64 by default.

use kvd::kv::command::KeyValue;
use serde_json::{Value, json};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes as a JSON value.
pub(crate) fn bytes_value(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "b64": encode_base64(bytes) }),
    }
}

/// The bytes of a JSON value made by [`bytes_value`].
///
/// # Errors
/// Says what was expected.
pub(crate) fn value_bytes(value: &Value) -> Result<Vec<u8>, String> {
    if let Some(text) = value.as_str() {
        return Ok(text.as_bytes().to_vec());
    }
    let encoded = value.get("b64").and_then(Value::as_str);
    encoded
        .and_then(decode_base64)
        .ok_or_else(|| "expected a string or {\"b64\": \"...\"}".to_owned())
}

/// A key with all that is known of it.
pub(crate) fn key_value(item: &KeyValue) -> Value {
    json!({
        "key": bytes_value(&item.key),
        "value": bytes_value(&item.value),
        "version": item.version,
        "create_revision": item.create_revision,
        "mod_revision": item.mod_revision,
    })
}

/// The same without the value.
pub(crate) fn key_only(item: &KeyValue) -> Value {
    json!({
        "key": bytes_value(&item.key),
        "version": item.version,
        "create_revision": item.create_revision,
        "mod_revision": item.mod_revision,
    })
}

fn encode_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut word = 0_usize;
        for at in 0..3 {
            word = word << 8 | usize::from(group.get(at).copied().unwrap_or(0));
        }
        for at in 0..4 {
            let digit = ALPHABET[word >> (18 - 6 * at) & 63];
            text.push(if at <= group.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    text
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let mut word = 0_u32;
        for at in 0..4 {
            let value = match group.get(at) {
                Some(digit) => ALPHABET.iter().position(|known| known == digit)?,
                None => 0,
            };
            word = word << 6 | u32::try_from(value).ok()?;
        }
        let whole = word.to_le_bytes();
        bytes.extend([whole[2], whole[1], whole[0]].iter().take(group.len() - 1));
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_stays_text_and_other_bytes_are_named_as_base64() {
        assert_eq!(bytes_value(b"red"), json!("red"));
        assert_eq!(bytes_value(b"\xff\xfe"), json!({ "b64": "//4=" }));
    }

    proptest! {
        #[test]
        fn every_value_reads_back_as_the_same_bytes(bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(value_bytes(&bytes_value(&bytes)).unwrap(), bytes.clone());
            prop_assert_eq!(decode_base64(&encode_base64(&bytes)), Some(bytes));
        }

        #[test]
        fn no_text_makes_decoding_panic(text in any::<String>()) {
            let _ = decode_base64(&text);
        }
    }
}
