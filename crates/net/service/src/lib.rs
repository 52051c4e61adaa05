//! Services compiled to nftables value maps.
