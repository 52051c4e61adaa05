//! One file per resource: scope, strategy, columns, subresources.
