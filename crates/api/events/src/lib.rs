//! Events that components leave on objects, as client-go's recorder does: repetitions raise the count of the first,
//! and they are written in the background, best effort.

mod correlator;
mod recorder;

pub use recorder::{Note, Recorder, Source};
