//! `TokenRequest`: the body of `serviceaccounts/token`.

use serde_json::{Map, Value};

use crate::defaults::{Row, absent};

/// The rows for [`crate::defaults::table`].
pub(crate) const DEFAULTS: &[Row] = &[("authentication.v1.TokenRequestSpec", spec)];

/// How long a token lives unless the request says otherwise, in seconds.
const SECONDS: i64 = 3600;

fn spec(spec: &mut Map<String, Value>) {
    absent(spec, "expirationSeconds", SECONDS);
}
