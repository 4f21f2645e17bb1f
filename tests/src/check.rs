//! Checkers of recorded histories: did the clients of a store see what one store, running one operation at a time, could
//! have answered?
//!
//! - [`history`]: what clients did and saw, and the [`Model`](history::Model) of what they talked to.
//! - [`linearizable`]: is there an order of the operations that explains every answer?
//! - [`kv`]: the model of one key of kvd.
//! - [`serial`]: do transactions over the whole store, in the order that their revisions name, explain every answer?
//! - [`store`]: the model of the whole store of kvd.
//! - [`once`]: did each acknowledged write take effect exactly once?
//! - [`text`]: histories as text, to be read, kept and checked again.
//!
//! Everything here works on plain values: nothing knows of clusters, simulated or real. A stranger brings a state machine of
//! his own by implementing [`Model`](history::Model).

pub mod history;
pub mod kv;
pub mod linearizable;
pub mod once;
pub mod serial;
pub mod store;
pub mod text;
