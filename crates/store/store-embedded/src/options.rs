//! What can be set, with defaults for a small node.

use xebec_store::history::Limits;

/// How the store uses memory and disk.
///
/// The defaults keep it at some 30 MB under load: the API server's watch cache holds the live objects already, so
/// caching them here again would only cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of writes that are gathered in memory before they become a sorted table on disk.
    pub memtable_bytes: u64,
    /// Bytes of table blocks kept in memory.
    pub cache_bytes: u64,
    /// Writes that may wait for the writer before [`commit`](xebec_store::Store::commit) itself waits.
    pub queue: usize,
    /// Writes that share one fsync at most.
    pub group: usize,
    /// The longest value taken, in bytes.
    pub value_bytes: usize,
    /// Free bytes to leave on the file system, so that tables can be merged and logs rotated: below it, only deletions
    /// are taken, and below a quarter of it nothing is.
    pub reserve_bytes: u64,
    /// How much of the past watches can start from.
    pub history: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memtable_bytes: 4 << 20,
            cache_bytes: 4 << 20,
            queue: 1024,
            group: 512,
            value_bytes: 8 << 20,
            reserve_bytes: 32 << 20,
            history: Limits::default(),
        }
    }
}
