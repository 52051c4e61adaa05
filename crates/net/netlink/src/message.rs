//! Netlink messages: a header, a fixed body and nested attributes (RFC 3549; `netlink(7)`).

/// `NLM_F_REQUEST`: the message asks the kernel for something.
pub const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`: answer with an acknowledgement.
pub const ACK: u16 = 0x4;
/// `NLM_F_DUMP`: list everything that matches.
pub const DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`: replace an existing object.
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`: fail when the object exists.
pub const EXCL: u16 = 0x200;
/// `NLM_F_CREATE`: create the object if it is missing.
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`: put the object at the end of its list.
pub const APPEND: u16 = 0x800;

/// Bytes of `struct nlmsghdr`.
pub const HEADER_LEN: usize = 16;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// One netlink message under construction.
#[derive(Clone, Debug)]
pub struct Message {
    buf: Vec<u8>,
}

/// An open nest, to be handed to [`Message::end`].
#[must_use]
pub struct Nest(usize);

impl Message {
    /// A message of `kind` whose fixed body is `body`.
    pub fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut buf = Vec::with_capacity(128);
        buf.extend_from_slice(&[0; 4]);
        buf.extend_from_slice(&kind.to_ne_bytes());
        buf.extend_from_slice(&flags.to_ne_bytes());
        buf.extend_from_slice(&[0; 8]);
        buf.extend_from_slice(body);
        let mut message = Self { buf };
        message.pad();
        message
    }

    /// Appends an attribute.
    pub fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let len = u16::try_from(value.len() + 4).expect("invariant: attributes are chunked below 64 KiB");
        self.buf.extend_from_slice(&len.to_ne_bytes());
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(value);
        self.pad();
        self
    }

    /// Appends a text attribute with its terminating NUL.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// Appends a 32-bit number in host order, as rtnetlink wants it.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Appends a 32-bit number in network order, as nfnetlink wants it.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Appends a 64-bit number in network order.
    pub fn be64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Opens a nested attribute.
    pub fn begin(&mut self, kind: u16) -> Nest {
        let at = self.buf.len();
        self.buf.extend_from_slice(&[0; 2]);
        self.buf.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        Nest(at)
    }

    /// Closes a nested attribute.
    pub fn end(&mut self, nest: Nest) -> &mut Self {
        let len = u16::try_from(self.buf.len() - nest.0).expect("invariant: nests are chunked below 64 KiB");
        self.buf[nest.0..nest.0 + 2].copy_from_slice(&len.to_ne_bytes());
        self
    }

    /// Appends raw bytes, for bodies inside attributes.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.buf.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Bytes so far, header included.
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether the message has neither body nor attributes.
    pub fn is_empty(&self) -> bool {
        self.buf.len() <= HEADER_LEN
    }

    /// Sets more flags.
    pub fn flag(&mut self, flags: u16) {
        let old = u16::from_ne_bytes([self.buf[6], self.buf[7]]);
        self.buf[6..8].copy_from_slice(&(old | flags).to_ne_bytes());
    }

    /// Writes the finished message with sequence number `seq` to `out`.
    pub fn write(&self, seq: u32, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&self.buf);
        let len = u32::try_from(self.buf.len()).expect("invariant: messages are far below 4 GiB");
        out[at..at + 4].copy_from_slice(&len.to_ne_bytes());
        out[at + 8..at + 12].copy_from_slice(&seq.to_ne_bytes());
    }

    fn pad(&mut self) {
        while !self.buf.len().is_multiple_of(4) {
            self.buf.push(0);
        }
    }
}

/// One message received from the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub seq: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// Iterates over the messages of one datagram; stops at the first malformed one.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32_at(datagram, 0)?).ok()?;
        if len < HEADER_LEN || len > datagram.len() {
            return None;
        }
        let received = Received {
            kind: u16_at(datagram, 4)?,
            flags: u16_at(datagram, 6)?,
            seq: u32_at(datagram, 8)?,
            body: &datagram[HEADER_LEN..len],
        };
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some(received)
    })
}

/// Iterates over attributes as (type, value); stops at the first malformed one.
pub fn attrs(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        if len < 4 || len > bytes.len() {
            return None;
        }
        let item = (u16_at(bytes, 2)? & TYPE_MASK, &bytes[4..len]);
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some(item)
    })
}

/// The attribute of type `kind`, if it is there.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attrs(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A text attribute without its NUL.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The number at `at` in host order.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The number at `at` in host order.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The number at the start in network order.
pub fn be32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?))
}

/// The number at the start in network order.
pub fn be16(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn written_messages_read_back() {
        let mut message = Message::new(7, REQUEST, &[1, 2, 3, 4]);
        message.text(1, "abc");
        let nest = message.begin(2);
        message.be32(1, 5);
        message.end(nest);
        let mut out = Vec::new();
        message.write(9, &mut out);
        let read: Vec<_> = messages(&out).collect();
        assert_eq!((read.len(), read[0].kind, read[0].seq), (1, 7, 9));
        let body = &read[0].body[4..];
        assert_eq!(text(find(body, 1).unwrap()), "abc");
        assert_eq!(be32(find(find(body, 2).unwrap(), 1).unwrap()), Some(5));
    }

    #[test]
    fn truncated_input_ends_quietly() {
        let mut message = Message::new(7, REQUEST, &[]);
        message.attr(1, &[1; 30]);
        let mut out = Vec::new();
        message.write(1, &mut out);
        for cut in 0..out.len() {
            assert_eq!(messages(&out[..cut]).count(), 0);
            for received in messages(&out) {
                assert!(attrs(&received.body[..cut.min(received.body.len())]).count() <= 1);
            }
        }
    }
}
