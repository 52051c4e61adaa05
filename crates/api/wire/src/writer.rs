//! Fields of a message, appended to bytes.

/// A variable-length number.
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A number field.
pub fn number(out: &mut Vec<u8>, tag: u32, value: i64) {
    varint(out, u64::from(tag) << 3);
    varint(out, value.cast_unsigned());
}

/// A double field.
pub fn double(out: &mut Vec<u8>, tag: u32, value: f64) {
    varint(out, u64::from(tag) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A field of bytes: text, bytes or a message.
pub fn bytes(out: &mut Vec<u8>, tag: u32, value: &[u8]) {
    varint(out, u64::from(tag) << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}
