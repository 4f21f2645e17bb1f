//! Bytes on a stream: the pure frame codec, and readers and writers around it.

pub mod frame;
mod stream;

pub use frame::{FrameBuffer, FrameError, encode_frames};
pub use stream::{FrameReceiver, FrameSender, StreamReader, StreamWriter};
