//! nftables without the `nft` binary: typed rules, sets and maps, committed in transactions.
//!
//! The kernel's language is that of `include/uapi/linux/netfilter/nf_tables.h`: rules are lists of expressions that
//! load values into registers, compare them, look them up and act. A transaction is one datagram between two batch
//! markers; it takes effect as a whole or not at all.

mod batch;
mod dump;
mod expr;
mod object;

pub use batch::Batch;
pub use expr::{CtKey, Expr, FibSource, MetaKey, PayloadBase, Reg, Verdict};
pub use object::{BaseChain, ChainType, DataType, Element, Family, Hook, MapData, Set, Table, Value};

use crate::{
    message::{CREATE, EXCL, Message},
    socket::{self, NETFILTER, Socket},
};

pub(crate) const SUBSYSTEM: u16 = 10 << 8;

/// Why a transaction or a listing failed.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The netlink socket failed, or a listing was refused.
    #[error(transparent)]
    Netlink(#[from] socket::Error),
    /// The kernel refused the transaction; nothing of it was done.
    #[error("nftables transaction: operation {index} of {count} ({operation}): {source}{}", hint(.message))]
    Refused {
        /// Position of the first refused operation in the batch.
        index: usize,
        /// Operations in the batch.
        count: usize,
        /// What it was.
        operation: String,
        /// The kernel's explanation, often empty.
        message: String,
        /// The error number.
        #[source]
        source: std::io::Error,
    },
}

impl NftError {
    /// Whether the object asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Netlink(error) => error.is_not_found(),
            Self::Refused { source, .. } => source.raw_os_error() == Some(libc::ENOENT),
        }
    }
}

fn hint(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

/// A handle on nftables in one network namespace.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
}

impl Nft {
    /// A handle on the calling thread's network namespace.
    pub fn open() -> Result<Self, NftError> {
        Ok(Self { socket: Socket::open(NETFILTER)? })
    }

    /// Carries out all operations of `batch` as one transaction; an empty batch does nothing.
    pub fn commit(&self, batch: Batch) -> Result<(), NftError> {
        if batch.is_empty() {
            return Ok(());
        }
        let (messages, names) = batch.into_messages();
        let (first, refusals) = self.socket.batch(&messages)?;
        let Some(refusal) = refusals.into_iter().next() else {
            return Ok(());
        };
        // Message 0 is the batch marker: a commit that fails as a whole is reported against it.
        let position = usize::try_from(refusal.seq.wrapping_sub(first)).unwrap_or(0);
        let index = position.saturating_sub(1);
        let operation =
            if position == 0 { "commit" } else { names.get(index).map_or("commit", String::as_str) };
        Err(NftError::Refused {
            index,
            count: names.len(),
            operation: operation.to_owned(),
            message: refusal.message,
            source: std::io::Error::from_raw_os_error(refusal.errno),
        })
    }

    /// Removes a table with everything in it, whether or not it exists.
    pub fn remove_table(&self, table: &Table) -> Result<(), NftError> {
        let mut batch = Batch::new();
        batch.add_table(table, None);
        batch.delete_table(table);
        self.commit(batch)
    }
}

/// `struct nfgenmsg` and the message type around it.
pub(crate) fn message(kind: u16, flags: u16, family: Family) -> Message {
    Message::new(SUBSYSTEM | kind, flags, &[family.number(), 0, 0, 0])
}

pub(crate) const CREATE_NEW: u16 = CREATE | EXCL;
