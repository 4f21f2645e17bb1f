//! `kvctl context`

use std::io::{IsTerminal as _, Write as _};

use kvd::contexts::{self, Context, Contexts};
use serde_json::{Value, json};

use super::Answer;
use crate::cli::{ContextVerb, Global};
use crate::connect::contexts_file;
use crate::fault::Fault;
use crate::output::{Sentence, View, record};

pub(super) fn run(verb: ContextVerb, global: &Global) -> Result<Answer, Fault> {
    let file = contexts_file()?;
    match verb {
        ContextVerb::List => Ok(Answer::done(List(contexts::read(&file)?))),
        ContextVerb::Use { name } => {
            contexts::update(&file, |contexts| {
                check(contexts, &name)?;
                contexts.default = Some(name.clone());
                Ok::<_, Fault>(())
            })?;
            Ok(done(format!("{name} is now the default"), &name))
        }
        ContextVerb::Show { name } => show(&contexts::read(&file)?, name),
        ContextVerb::Remove { name } => {
            check(&contexts::read(&file)?, &name)?;
            confirm(&format!("Forget the context {name}?"), global)?;
            contexts::update(&file, |contexts| {
                contexts.contexts.remove(&name);
                contexts.default.take_if(|default| *default == name);
                Ok::<_, Fault>(())
            })?;
            Ok(done(
                format!("{name} is forgotten; its certificates are still there"),
                &name,
            ))
        }
    }
}

fn done(text: String, name: &str) -> Answer {
    Answer::done(Sentence {
        text,
        facts: json!({ "ok": true, "context": name }),
    })
}

fn check<'a>(contexts: &'a Contexts, name: &str) -> Result<&'a Context, Fault> {
    contexts.contexts.get(name).ok_or_else(|| {
        Fault::no(format!("there is no context {name}")).with_help("kvctl context list")
    })
}

fn show(contexts: &Contexts, name: Option<String>) -> Result<Answer, Fault> {
    let name = name.or_else(|| contexts.default.clone()).ok_or_else(|| {
        Fault::no("there is no default context").with_help("kvctl context use NAME")
    })?;
    let context = check(contexts, &name)?.clone();
    Ok(Answer::done(Show { name, context }))
}

/// Asks on a terminal; a script must say `--yes`, or it is taken for one that knows what it does when nobody can be asked.
pub(super) fn confirm(question: &str, global: &Global) -> Result<(), Fault> {
    if global.yes || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    if global.no_input {
        return Err(
            Fault::usage("this needs a yes, and --no-input forbids to ask").with_help("--yes"),
        );
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    std::io::stderr()
        .flush()
        .and_then(|()| std::io::stdin().read_line(&mut answer))
        .map_err(|error| Fault::usage(format!("standard input: {error}")))?;
    if answer.trim().eq_ignore_ascii_case("y") {
        return Ok(());
    }
    Err(Fault::no("nothing was changed"))
}

struct List(Contexts);

impl List {
    fn rows(&self, mark: (&str, &str)) -> Vec<u8> {
        let rows = self.0.contexts.iter().flat_map(|(name, context)| {
            let is_default = self.0.default.as_ref() == Some(name);
            let mark = if is_default { mark.0 } else { mark.1 };
            record([
                mark.as_bytes(),
                name.as_bytes(),
                context.endpoints.join(",").as_bytes(),
            ])
        });
        rows.collect()
    }
}

impl View for List {
    fn human(&self) -> Vec<u8> {
        if self.0.contexts.is_empty() {
            return b"there are none; kvctl cluster init makes one\n".to_vec();
        }
        self.rows(("*", " "))
    }

    fn plain(&self) -> Vec<u8> {
        self.rows(("default", ""))
    }

    fn json(&self) -> Value {
        json!({ "default": self.0.default, "contexts": self.0.contexts })
    }
}

struct Show {
    name: String,
    context: Context,
}

impl View for Show {
    fn human(&self) -> Vec<u8> {
        self.plain()
    }

    fn plain(&self) -> Vec<u8> {
        let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let rows = [
            ("name", self.name.clone()),
            ("endpoints", self.context.endpoints.join(",")),
            ("ca", path(&self.context.ca)),
            ("cert", path(&self.context.cert)),
            ("key", path(&self.context.key)),
        ];
        rows.iter()
            .flat_map(|(name, value)| record([name.as_bytes(), value.as_bytes()]))
            .collect()
    }

    fn json(&self) -> Value {
        json!({ "name": self.name, "context": self.context })
    }
}
