//! Sizes like `64MiB` and durations like `50ms`, both ways.

use std::time::Duration;

/// Suffixes of sizes, larger ones first so that formatting takes the largest that divides.
const SUFFIXES: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
];

/// Reads a size: a whole number, optionally with a suffix (`KiB MiB GiB TiB kB MB GB TB B`).
///
/// # Errors
/// A sentence without a subject, such as "is not a size like \"64MiB\"".
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let suffix = text[digits.len()..].trim();
    let number: u64 = digits
        .trim()
        .replace('_', "")
        .parse()
        .map_err(|_| "is not a size like \"64MiB\"".to_owned())?;
    let factor = factor_of(suffix).ok_or_else(|| {
        format!("has the unknown unit `{suffix}`; known are B, KiB, MiB, GiB, TiB, kB, MB, GB, TB")
    })?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "is larger than 64 bits can hold".to_owned())
}

fn factor_of(suffix: &str) -> Option<u64> {
    if suffix.is_empty() || suffix.eq_ignore_ascii_case("b") {
        return Some(1);
    }
    SUFFIXES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(suffix))
        .map(|(_, factor)| *factor)
}

/// Writes a size with the largest binary suffix that loses nothing.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    SUFFIXES
        .iter()
        .filter(|(name, _)| name.ends_with("iB"))
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .map_or_else(
            || format!("{bytes}B"),
            |(name, factor)| format!("{}{name}", bytes / factor),
        )
}

/// Reads a duration such as `50ms`, `1s 500ms` or `2m`.
///
/// # Errors
/// A sentence without a subject, such as "is not a duration like \"50ms\"".
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim())
        .map_err(|_| "is not a duration like \"50ms\" or \"2s\"".to_owned())
}

/// Writes a duration as [`parse_duration`] reads it.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("1536 KiB"), Ok(1536 << 10));
        assert_eq!(parse_bytes("1_000"), Ok(1000));
        assert_eq!(parse_bytes("5mb"), Ok(5_000_000));
        assert_eq!(parse_bytes("7B"), Ok(7));
        assert!(parse_bytes("").is_err());
        assert!(parse_bytes("-1").is_err());
        assert!(parse_bytes("1.5GiB").is_err());
        assert!(parse_bytes("12parsecs").is_err());
        assert!(parse_bytes("99999999TiB").is_err());
    }

    #[test]
    fn a_formatted_size_reads_back_as_itself() {
        for bytes in [
            0,
            1,
            1023,
            1024,
            1536,
            1 << 20,
            (1 << 20) + 1,
            3 << 30,
            u64::MAX,
        ] {
            assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
        }
        assert_eq!(format_bytes(1536 << 10), "1536KiB");
        assert_eq!(format_bytes(1 << 30), "1GiB");
    }

    #[test]
    fn durations_are_read_and_written() {
        assert_eq!(parse_duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(format_duration(Duration::from_millis(300)), "300ms");
        assert!(parse_duration("50").is_err());
        assert!(parse_duration("fast").is_err());
    }
}
