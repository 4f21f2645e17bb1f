//! The context `demo`, by which `kvctl` finds the cluster while it runs.

use std::path::{Path, PathBuf};

use crate::contexts::{self, Context, ContextError};

const NAME: &str = "demo";

/// The context; it is removed when this is dropped.
pub(super) struct DemoContext {
    file: PathBuf,
    own: Context,
}

impl DemoContext {
    /// Writes the context; the default one stays what it is. `None` where this user has no place for contexts.
    pub(super) fn write(endpoints: Vec<String>, dir: &Path) -> Option<DemoContext> {
        let file = contexts::default_file()?;
        let own = Context {
            endpoints,
            ca: dir.join("ca.pem"),
            cert: dir.join("admin.pem"),
            key: dir.join("admin.key"),
        };
        let written = contexts::update(&file, |all| {
            all.contexts.insert(NAME.into(), own.clone());
            Ok::<(), ContextError>(())
        });
        match written {
            Ok(()) => Some(DemoContext { file, own }),
            Err(error) => {
                tracing::warn!(%error, "no context for kvctl");
                None
            }
        }
    }
}

impl Drop for DemoContext {
    fn drop(&mut self) {
        let removed = contexts::update(&self.file, |all| {
            // Another demo may have taken the name since.
            if all.contexts.get(NAME) == Some(&self.own) {
                all.contexts.remove(NAME);
            }
            Ok::<(), ContextError>(())
        });
        if let Err(error) = removed {
            tracing::warn!(%error, "the context of the demo stays behind");
        }
    }
}
