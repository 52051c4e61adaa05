//! FNV-1a (<http://www.isthe.com/chongo/tech/comp/fnv/>): short names for long things, and numbers that differ when
//! their input does. It is the same on every machine and in every version, so what is made of it may be stored. It
//! withstands no adversary: use SHA-256 where somebody could gain from a collision.

/// FNV-1a of 64 bits.
pub const fn fnv64(bytes: &[u8]) -> u64 {
    let (mut hash, mut at) = (0xcbf2_9ce4_8422_2325, 0);
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

/// FNV-1a of 32 bits.
pub const fn fnv32(bytes: &[u8]) -> u32 {
    let (mut hash, mut at) = (0x811c_9dc5, 0);
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_specification() {
        let cases: [(&str, u32, u64); 3] = [
            ("", 0x811c_9dc5, 0xcbf2_9ce4_8422_2325),
            ("a", 0xe40c_292c, 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0xbf9c_f968, 0x8594_4171_f739_67e8),
        ];
        for (text, short, long) in cases {
            assert_eq!((fnv32(text.as_bytes()), fnv64(text.as_bytes())), (short, long), "{text}");
        }
    }
}
