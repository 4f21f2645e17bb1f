//! Golden bytes: what is stored and sent, as it was when the format was released.

use std::fmt::Write as _;
use std::path::Path;

/// Compares encodings with the file of this name below `src`, one `name: hex` on each line. With `UPDATE=1` in the
/// environment the file is rewritten instead; read the diff before it is committed.
pub(crate) fn check(file: &str, samples: &[(String, Vec<u8>)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
    let text = samples
        .iter()
        .fold(String::new(), |mut text, (name, bytes)| {
            write!(text, "{name}: ").unwrap();
            bytes
                .iter()
                .for_each(|byte| write!(text, "{byte:02x}").unwrap());
            text.push('\n');
            text
        });
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    for (made, golden) in text.lines().zip(golden.lines()) {
        assert_eq!(made, golden, "older programs cannot read this any more");
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}
