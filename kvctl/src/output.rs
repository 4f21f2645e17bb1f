//! One answer in each of the formats. Commands return a [`View`]; only this file and the bulk commands print.

use std::io::{self, IsTerminal as _, Write};

use serde_json::{Value, json};

use crate::cli::{Colour, Format, Global};
use crate::escape::escape_into;

/// What a command has to say, in every format.
pub(crate) trait View {
    /// For people on a terminal.
    fn human(&self) -> Vec<u8>;

    /// One record a line, fields separated by tabs.
    fn plain(&self) -> Vec<u8>;

    /// Everything; `"v": 1` is added.
    fn json(&self) -> Value;

    /// Byte for byte.
    fn raw(&self) -> Vec<u8> {
        self.plain()
    }
}

/// A record of plain text fields.
pub(crate) fn record<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut line = String::new();
    for (at, field) in fields.into_iter().enumerate() {
        if at > 0 {
            line.push('\t');
        }
        escape_into(&mut line, field);
    }
    line.push('\n');
    line.into_bytes()
}

/// A sentence with the same facts as JSON.
pub(crate) struct Sentence {
    pub(crate) text: String,
    pub(crate) facts: Value,
}

impl View for Sentence {
    fn human(&self) -> Vec<u8> {
        format!("{}\n", self.text).into_bytes()
    }

    fn plain(&self) -> Vec<u8> {
        self.human()
    }

    fn json(&self) -> Value {
        self.facts.clone()
    }
}

/// Where and how this run prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    /// Never [`Format::Auto`] with a printer that does not write for a person.
    pub(crate) format: Format,
    pub(crate) quiet: bool,
    pub(crate) verbose: bool,
    pub(crate) colour: Colour,
}

impl Printer {
    pub(crate) fn new(global: &Global) -> Printer {
        Printer {
            format: global.output,
            quiet: global.quiet,
            verbose: global.verbose,
            colour: global.color,
        }
    }

    /// The bytes of an answer in the format that was asked for.
    pub(crate) fn render(&self, view: &dyn View, terminal: bool) -> Vec<u8> {
        match self.format {
            Format::Auto if terminal => view.human(),
            Format::Auto | Format::Plain => view.plain(),
            Format::Raw => view.raw(),
            Format::Json => {
                let mut value = view.json();
                if let Some(object) = value.as_object_mut() {
                    object.insert("v".to_owned(), json!(1));
                }
                format!("{value}\n").into_bytes()
            }
        }
    }

    /// Prints an answer.
    ///
    /// # Errors
    /// Standard output does not take it; a reader that has gone away is no error.
    pub(crate) fn print(&self, view: &dyn View) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let bytes = self.render(view, out.is_terminal());
        ignore_broken_pipe(out.write_all(&bytes).and_then(|()| out.flush()))
    }

    /// Says something that is not part of the answer.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// Says what is being done, if that was asked for.
    pub(crate) fn trace(&self, text: impl std::fmt::Display) {
        if self.verbose {
            eprintln!("{text}");
        }
    }

    /// Whether errors are coloured.
    pub(crate) fn colours(&self) -> bool {
        match self.colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }
}

/// Whoever reads may stop when it has seen enough, as `head` does.
pub(crate) fn ignore_broken_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printer(format: Format) -> Printer {
        Printer {
            format,
            quiet: false,
            verbose: false,
            colour: Colour::Never,
        }
    }

    #[test]
    fn auto_is_for_people_only_on_a_terminal() {
        struct Two;
        impl View for Two {
            fn human(&self) -> Vec<u8> {
                b"human".to_vec()
            }
            fn plain(&self) -> Vec<u8> {
                b"plain".to_vec()
            }
            fn json(&self) -> Value {
                json!({ "a": 1 })
            }
        }
        assert_eq!(printer(Format::Auto).render(&Two, true), b"human");
        assert_eq!(printer(Format::Auto).render(&Two, false), b"plain");
        assert_eq!(printer(Format::Plain).render(&Two, true), b"plain");
        assert_eq!(printer(Format::Raw).render(&Two, true), b"plain");
        assert_eq!(
            printer(Format::Json).render(&Two, true),
            b"{\"a\":1,\"v\":1}\n"
        );
    }

    #[test]
    fn a_record_is_one_line_whatever_is_in_its_fields() {
        assert_eq!(record([b"a\tb".as_slice(), b"c\n"]), b"a\\tb\tc\\n\n");
    }
}
