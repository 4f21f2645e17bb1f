//! Tests that ask a healthy cluster and change nothing but keys of their own: they use one cluster together.

mod http;
mod kvctl;
mod limits;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use kvd_sim::process::Cluster;

/// A running cluster that other tests use as well. It ends with the last test that holds it, because nothing drops a static.
fn cluster() -> Arc<Cluster> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let made = Arc::new(Cluster::start());
        *shared = Arc::downgrade(&made);
        made
    })
}
