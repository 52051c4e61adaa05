//! Who is asking and what they may do: certificates, tokens, RBAC, the cluster's own PKI.
