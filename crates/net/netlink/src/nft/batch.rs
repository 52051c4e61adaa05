//! Transactions.

use crate::message::{ACK, APPEND, CREATE, Message, REQUEST};

use super::{
    CREATE_NEW, SUBSYSTEM,
    expr::Expr,
    message,
    object::{BaseChain, Element, Set, Table},
};

const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// Bytes of elements in one message: the list is one attribute, whose length has 16 bits.
const ELEMENTS_PER_MESSAGE: usize = 60_000;

/// Operations that are to take effect together, in this order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    messages: Vec<Message>,
    names: Vec<String>,
    bytes: usize,
}

impl Batch {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Operations so far; many elements are several.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a table unless it exists. The comment is only stored when the table is new.
    pub fn add_table(&mut self, table: &Table, comment: Option<&str>) {
        let mut message = message(NEWTABLE, CREATE, table.family);
        message.text(1, &table.name);
        if let Some(comment) = comment {
            message.attr(6, &comment_user_data(comment));
        }
        self.push(format!("add table {}", table.name), message);
    }

    /// Deletes a table with everything in it.
    pub fn delete_table(&mut self, table: &Table) {
        let mut message = message(DELTABLE, 0, table.family);
        message.text(1, &table.name);
        self.push(format!("delete table {}", table.name), message);
    }

    /// Adds a chain unless it exists.
    pub fn add_chain(&mut self, table: &Table, name: &str, base: Option<BaseChain>) {
        let mut message = message(NEWCHAIN, CREATE, table.family);
        message.text(1, &table.name).text(3, name);
        if let Some(base) = base {
            base.encode(&mut message);
        }
        self.push(format!("add chain {name}"), message);
    }

    /// Deletes a chain that nothing leads to any more, with its rules.
    pub fn delete_chain(&mut self, table: &Table, name: &str) {
        self.flush_chain(table, name);
        let mut message = message(DELCHAIN, 0, table.family);
        message.text(1, &table.name).text(3, name);
        self.push(format!("delete chain {name}"), message);
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, table: &Table, name: &str) {
        let mut message = message(DELRULE, 0, table.family);
        message.text(1, &table.name).text(2, name);
        self.push(format!("flush chain {name}"), message);
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, table: &Table, chain: &str, exprs: &[Expr]) {
        let mut message = message(NEWRULE, CREATE | APPEND, table.family);
        message.text(1, &table.name).text(2, chain);
        let nest = message.begin(4);
        for expr in exprs {
            expr.encode(&mut message);
        }
        message.end(nest);
        self.push(format!("add rule to chain {chain}"), message);
    }

    /// Adds a set or map, which must not exist.
    pub fn add_set(&mut self, table: &Table, set: &Set) {
        let mut message = message(NEWSET, CREATE_NEW, table.family);
        message.text(1, &table.name).text(2, &set.name);
        let id = u32::try_from(self.messages.len() + 1).expect("invariant: a batch is bounded");
        message.be32(10, id);
        set.encode(&mut message);
        self.push(format!("add set {}", set.name), message);
    }

    /// Deletes a set or map that no rule uses any more.
    pub fn delete_set(&mut self, table: &Table, name: &str) {
        let mut message = message(DELSET, 0, table.family);
        message.text(1, &table.name).text(2, name);
        self.push(format!("delete set {name}"), message);
    }

    /// Adds elements. An equal element that exists is no error, one with another value is: delete it first.
    pub fn add_elements(&mut self, table: &Table, set: &str, elements: impl IntoIterator<Item = Element>) {
        self.elements(table, set, elements, false);
    }

    /// Deletes elements by key; a missing one fails the transaction.
    pub fn delete_elements(&mut self, table: &Table, set: &str, elements: impl IntoIterator<Item = Element>) {
        self.elements(table, set, elements, true);
    }

    /// Deletes all elements of a set.
    pub fn flush_set(&mut self, table: &Table, set: &str) {
        let mut message = message(DELSETELEM, 0, table.family);
        message.text(1, &table.name).text(2, set);
        self.push(format!("flush set {set}"), message);
    }

    fn elements(
        &mut self,
        table: &Table,
        set: &str,
        elements: impl IntoIterator<Item = Element>,
        deleting: bool,
    ) {
        let (kind, flags, verb) =
            if deleting { (DELSETELEM, 0, "delete") } else { (NEWSETELEM, CREATE, "add") };
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            let mut message = message(kind, flags, table.family);
            message.text(1, &table.name).text(2, set);
            let nest = message.begin(3);
            let start = message.len();
            while let Some(element) =
                elements.next_if(|next| message.len() - start + next.encoded_len() <= ELEMENTS_PER_MESSAGE)
            {
                element.encode(&mut message, deleting);
            }
            message.end(nest);
            self.push(format!("{verb} elements of {set}"), message);
        }
    }

    fn push(&mut self, name: String, mut message: Message) {
        message.flag(REQUEST);
        self.bytes += message.len();
        self.messages.push(message);
        self.names.push(name);
    }

    /// The messages between batch markers, and the name of each operation.
    pub(super) fn into_messages(mut self) -> (Vec<Message>, Vec<String>) {
        // `res_id` of the markers is the subsystem in network order (`nfnetlink.h`).
        let subsystem = (SUBSYSTEM >> 8).to_be_bytes();
        let marker = |kind| Message::new(kind, REQUEST, &[0, 0, subsystem[0], subsystem[1]]);
        if let Some(last) = self.messages.last_mut() {
            last.flag(ACK);
        }
        self.messages.insert(0, marker(BATCH_BEGIN));
        self.messages.push(marker(BATCH_END));
        (self.messages, self.names)
    }
}

/// Comments as the `nft` tool stores them: type 0, length, NUL-terminated text.
pub(super) fn comment_user_data(comment: &str) -> Vec<u8> {
    let text = &comment.as_bytes()[..comment.len().min(120)];
    let mut data = vec![0, u8::try_from(text.len() + 1).expect("invariant: cut to 120 bytes")];
    data.extend_from_slice(text);
    data.push(0);
    data
}
