//! Unsupported: says of pods that ask for what this scheduler cannot give that they fit nowhere, rather than
//! place them as if they had not asked.

use crate::framework::Filter;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// Refuses dynamic resource claims (KEP-4381).
pub fn filter<'a>(pod: &'a PodInfo, _snapshot: &'a Snapshot) -> Filter<'a> {
    let claims = pod.spec().and_then(|s| s.resource_claims.as_ref());
    if claims.is_some_and(|claims| !claims.is_empty()) {
        return Filter::Never(
            "spec.resourceClaims is not supported by this scheduler, remove it or use another scheduler"
                .into(),
        );
    }
    Filter::Pass
}
