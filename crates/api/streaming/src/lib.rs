//! Exec, attach and port-forward streams: WebSocket channels and SPDY/3.1.
