//! How far a rolling update may go above and below the wanted size.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The numbers a rollout works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Wanted pods.
    pub replicas: i32,
    /// Most pods above that.
    pub surge: i32,
    /// Most pods below that.
    pub unavailable: i32,
}

impl Limits {
    /// Resolves a Deployment's percentages. Surge is rounded up, unavailability down; if both came out as 0 nothing
    /// could move, so one pod may then be missing.
    pub fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let replicas = spec.and_then(|s| s.replicas).unwrap_or(1);
        if is_recreate(deployment) {
            return Self { replicas, surge: 0, unavailable: replicas };
        }
        let rolling = spec.and_then(|s| s.strategy.as_ref()).and_then(|s| s.rolling_update.as_ref());
        let surge = resolve(rolling.and_then(|r| r.max_surge.as_ref()), replicas, true);
        let mut unavailable = resolve(rolling.and_then(|r| r.max_unavailable.as_ref()), replicas, false);
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        Self { replicas, surge, unavailable: unavailable.min(replicas) }
    }

    /// Most pods at any time.
    pub fn max(&self) -> i32 {
        self.replicas.saturating_add(self.surge)
    }

    /// Fewest available pods at any time.
    pub fn min_available(&self) -> i32 {
        self.replicas - self.unavailable
    }
}

/// Whether all old pods must be gone before new ones come.
pub fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

fn resolve(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    match value {
        None => resolve(Some(&IntOrString::String("25%".into())), total, up),
        Some(IntOrString::Int(n)) => (*n).max(0),
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let product = percent.max(0) * i64::from(total);
            let pods = product / 100 + i64::from(up && product % 100 != 0);
            i32::try_from(pods).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_in_favour_of_availability() {
        let percent = |p: &str| IntOrString::String(p.into());
        assert_eq!(resolve(Some(&percent("25%")), 10, true), 3);
        assert_eq!(resolve(Some(&percent("25%")), 10, false), 2);
        assert_eq!(resolve(Some(&IntOrString::Int(4)), 10, false), 4);
        assert_eq!(resolve(None, 4, true), 1);
    }
}
