//! The checkers of histories: known histories, the fast ones against slow ones, and broken histories that must be found.

mod agree;
mod histories;
mod linearizable;
mod serial;
mod shared;
