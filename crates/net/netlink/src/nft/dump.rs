//! Reading back what is in the kernel.

use std::cell::RefCell;

use crate::message::{self, Message};

use super::{
    Nft, NftError, SUBSYSTEM,
    expr::Verdict,
    message as nft_message,
    object::{Element, Family, Table, Value},
};

const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const NFGEN_LEN: usize = 4;

impl Nft {
    /// The comment of a table (empty when it has none), or `None` when there is no such table.
    pub fn table_comment(&self, table: &Table) -> Result<Option<String>, NftError> {
        let found = self.list("list tables", nft_message(GETTABLE, 0, table.family), NEWTABLE, |attrs| {
            let name = message::text(message::find(attrs, 1)?);
            (name == table.name).then(|| message::find(attrs, 6).map(comment).unwrap_or_default())
        })?;
        Ok(found.into_iter().next())
    }

    /// Names of all tables of a family.
    pub fn tables(&self, family: Family) -> Result<Vec<String>, NftError> {
        self.list("list tables", nft_message(GETTABLE, 0, family), NEWTABLE, |attrs| {
            Some(message::text(message::find(attrs, 1)?))
        })
    }

    /// Names of the chains of a table.
    pub fn chains(&self, table: &Table) -> Result<Vec<String>, NftError> {
        self.list("list chains", nft_message(GETCHAIN, 0, table.family), NEWCHAIN, |attrs| {
            let owner = message::text(message::find(attrs, 1)?);
            (owner == table.name).then(|| message::find(attrs, 3).map(message::text))?
        })
    }

    /// All elements of a set or map.
    pub fn elements(&self, table: &Table, set: &str) -> Result<Vec<Element>, NftError> {
        let mut request = nft_message(GETSETELEM, 0, table.family);
        request.text(1, &table.name).text(2, set);
        let lists = self.list(&format!("list elements of {set}"), request, NEWSETELEM, |attrs| {
            let list = message::find(attrs, 3)?;
            Some(message::attrs(list).filter_map(|(_, element)| parse_element(element)).collect::<Vec<_>>())
        })?;
        Ok(lists.into_iter().flatten().collect())
    }

    fn list<T>(
        &self,
        operation: &str,
        request: Message,
        wanted: u16,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NftError> {
        let found = RefCell::new(Vec::new());
        self.socket.dump(
            operation,
            request,
            || found.borrow_mut().clear(),
            |kind, body| {
                if kind == SUBSYSTEM | wanted {
                    found.borrow_mut().extend(parse(body.get(NFGEN_LEN..).unwrap_or(&[])));
                }
            },
        )?;
        Ok(found.into_inner())
    }
}

fn comment(data: &[u8]) -> String {
    match data {
        [0, len, text @ ..] => message::text(&text[..usize::from(*len).min(text.len())]),
        _ => String::new(),
    }
}

fn parse_element(bytes: &[u8]) -> Option<Element> {
    let data = |kind| message::find(bytes, kind).and_then(|nest| message::find(nest, 1)).map(<[u8]>::to_vec);
    let mut element = Element::key(data(1)?);
    element.key_end = data(10);
    element.interval_end =
        message::find(bytes, 3).and_then(message::be32).is_some_and(|flags| flags & 1 != 0);
    if let Some(nest) = message::find(bytes, 2) {
        element.value = match message::find(nest, 2) {
            Some(verdict) => Some(Value::Verdict(parse_verdict(verdict)?)),
            None => message::find(nest, 1).map(|value| Value::Bytes(value.to_vec())),
        };
    }
    Some(element)
}

fn parse_verdict(bytes: &[u8]) -> Option<Verdict> {
    let code = message::find(bytes, 1).and_then(message::be32)?.cast_signed();
    Verdict::from_code(code, message::find(bytes, 2).map(message::text).unwrap_or_default())
}
