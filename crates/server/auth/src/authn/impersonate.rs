//! Impersonation: a user who acts as another one, and what that takes.

use http::{HeaderMap, HeaderName};

use crate::user::{UserInfo, groups, service_account_groups, split_service_account};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// Why the impersonation headers cannot be followed; answered with status 400.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImpersonationError {
    /// Groups, a uid or extra values without a user.
    #[error("requested {headers:?} without impersonating a user")]
    NoUser {
        /// The headers that came.
        headers: Vec<String>,
    },
    /// A header that is not text.
    #[error("header {header} is not valid text")]
    NotText {
        /// Its name.
        header: String,
    },
}

/// One thing that the real user must be allowed: the verb `impersonate` on this resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImpersonationCheck {
    /// The API group.
    pub group: &'static str,
    /// `users`, `groups`, `uids`, `userextras` or `serviceaccounts`.
    pub resource: &'static str,
    /// The key of an extra value; else empty.
    pub subresource: String,
    /// The namespace of a service account; else empty.
    pub namespace: String,
    /// Who or what is impersonated.
    pub name: String,
}

/// Whom a request wants to act as, and every check that must pass first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impersonation {
    /// The user that the request acts as once all checks have passed.
    pub user: UserInfo,
    /// What the real user must be allowed.
    pub checks: Vec<ImpersonationCheck>,
}

impl Impersonation {
    /// Reads the impersonation headers; `None` if there are none.
    ///
    /// # Errors
    /// If they make no sense.
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, ImpersonationError> {
        let mut user = UserInfo::default();
        let mut seen = Vec::new();
        for (name, value) in headers {
            let key = name.as_str();
            if !is_impersonation(name) {
                continue;
            }
            seen.push(key.to_owned());
            let text = value
                .to_str()
                .map_err(|_| ImpersonationError::NotText { header: key.to_owned() })?
                .to_owned();
            match key {
                USER => user.name = text,
                GROUP => user.groups.push(text),
                UID => user.uid = text,
                _ => user.extra.entry(unescape(&key[EXTRA.len()..])).or_default().push(text),
            }
        }
        if seen.is_empty() {
            return Ok(None);
        }
        if user.name.is_empty() {
            seen.sort_unstable();
            seen.dedup();
            return Err(ImpersonationError::NoUser { headers: seen });
        }
        let checks = checks(&user);
        complete(&mut user);
        Ok(Some(Self { user, checks }))
    }

    /// Takes the impersonation headers off a request, so that nothing behind the server sees them again.
    pub fn strip(headers: &mut HeaderMap) {
        let names: Vec<HeaderName> = headers.keys().filter(|name| is_impersonation(name)).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

fn is_impersonation(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, USER | GROUP | UID) || name.len() > EXTRA.len() && name.starts_with(EXTRA)
}

fn checks(user: &UserInfo) -> Vec<ImpersonationCheck> {
    let check = |group, resource, subresource: &str, namespace: &str, name: &str| ImpersonationCheck {
        group,
        resource,
        subresource: subresource.into(),
        namespace: namespace.into(),
        name: name.into(),
    };
    const AUTHENTICATION: &str = "authentication.k8s.io";
    let mut checks = vec![match split_service_account(&user.name) {
        Some((namespace, name)) => check("", "serviceaccounts", "", namespace, name),
        None => check("", "users", "", "", &user.name),
    }];
    checks.extend(user.groups.iter().map(|name| check("", "groups", "", "", name)));
    if !user.uid.is_empty() {
        checks.push(check(AUTHENTICATION, "uids", "", "", &user.uid));
    }
    for (key, values) in &user.extra {
        checks.extend(values.iter().map(|value| check(AUTHENTICATION, "userextras", key, "", value)));
    }
    checks
}

/// Adds the groups that the impersonated user would have had by authentication.
fn complete(user: &mut UserInfo) {
    if let Some((namespace, _)) = split_service_account(&user.name)
        && user.groups.is_empty()
    {
        user.groups = service_account_groups(namespace);
    }
    if user.name == "system:anonymous" {
        user.join(groups::UNAUTHENTICATED);
    } else if !user.is_in(groups::UNAUTHENTICATED) {
        user.join(groups::AUTHENTICATED);
    }
}

/// Undoes the percent encoding that lets a header name carry any key; what is no encoding stays as it is.
fn unescape(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let decoded = (first == b'%').then(|| after.get(..2)).flatten().and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            digits
                .bytes()
                .all(|digit| digit.is_ascii_hexdigit())
                .then(|| u8::from_str_radix(digits, 16).ok())?
        });
        match decoded {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn nothing_is_nothing_and_groups_need_a_user() {
        assert_eq!(Impersonation::from_headers(&headers(&[("accept", "x")])), Ok(None));
        let error = Impersonation::from_headers(&headers(&[(GROUP, "admins")])).unwrap_err();
        assert_eq!(error.to_string(), r#"requested ["impersonate-group"] without impersonating a user"#);
    }

    #[test]
    fn a_user_with_everything() {
        let mut all = headers(&[
            (USER, "ann"),
            (GROUP, "dev"),
            (UID, "7"),
            ("impersonate-extra-acme.com%2fproject", "one"),
            ("accept", "x"),
        ]);
        all.append(GROUP, "ops".parse().unwrap());
        let Impersonation { user, checks } = Impersonation::from_headers(&all).unwrap().unwrap();
        assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!((&*user.uid, &user.extra["acme.com/project"][..]), ("7", &["one".to_owned()][..]));
        let told: Vec<_> = checks
            .iter()
            .map(|check| format!("{} {} {} {}", check.group, check.resource, check.subresource, check.name))
            .collect();
        let wanted = [
            " users  ann",
            " groups  dev",
            " groups  ops",
            "authentication.k8s.io uids  7",
            "authentication.k8s.io userextras acme.com/project one",
        ];
        assert_eq!(told, wanted);
        Impersonation::strip(&mut all);
        assert_eq!(all.len(), 1);
    }

    #[test]
    fn service_accounts_and_anonymous() {
        let as_user = |name| Impersonation::from_headers(&headers(&[(USER, name)])).unwrap().unwrap();
        let account = as_user("system:serviceaccount:ns:app");
        assert_eq!(
            account.user.groups,
            ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]
        );
        let check = &account.checks[0];
        assert_eq!((check.resource, &*check.namespace, &*check.name), ("serviceaccounts", "ns", "app"));
        assert_eq!(as_user("system:anonymous").user.groups, ["system:unauthenticated"]);
        assert_eq!(as_user("system:serviceaccount:odd").checks[0].resource, "users");
    }

    #[test]
    fn unescaping() {
        for (text, wanted) in
            [("a%2Fb", "a/b"), ("a%", "a%"), ("a%2", "a%2"), ("a%zz", "a%zz"), ("%+1", "%+1")]
        {
            assert_eq!(unescape(text), wanted);
        }
    }
}
