//! The embedded container runtime and the supervisor that outlives its agent.
