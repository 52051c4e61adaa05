//! Typed kernel I/O: links, addresses, routes, nftables and conntrack over netlink.
