//! Fields of a message, one after the other.

use crate::error::WireError;

/// What a field carries.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 5; no field of Kubernetes is carried so.
    Fixed32,
    /// Wire type 2.
    Bytes(&'a [u8]),
}

/// What is left of a message.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next field's number and payload.
    pub fn next(&mut self) -> Result<Option<(u32, Payload<'a>)>, WireError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let wire_type = (key & 7) as u8;
        let tag = u32::try_from(key >> 3).map_err(|_| WireError::Overflow)?;
        if tag == 0 {
            return Err(WireError::Key { tag, wire_type });
        }
        let payload = match wire_type {
            0 => Payload::Varint(self.varint()?),
            1 => Payload::Fixed64(self.fixed64()?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
                Payload::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Payload::Fixed32
            }
            // Groups were gone before the first kind was written down.
            _ => return Err(WireError::Key { tag, wire_type }),
        };
        Ok(Some((tag, payload)))
    }

    /// A variable-length number.
    pub fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first().ok_or(WireError::Truncated)?;
            self.0 = rest;
            if shift == 63 && *first > 1 {
                return Err(WireError::Overflow);
            }
            value |= u64::from(first & 0x7f) << shift;
            if *first < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::Overflow)
    }

    /// Eight bytes, least significant first.
    pub fn fixed64(&mut self) -> Result<u64, WireError> {
        let bytes = self.take(8)?;
        Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }
}
