//! Who a container's process is: users and groups from the image's `/etc/passwd` and `/etc/group`.

use std::path::PathBuf;

use xebec_cri::{CriError, SecurityContext, SupplementalGroupsPolicy};

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, sorted, including the primary one as CRI reports it.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

/// The image's account files.
#[derive(Debug, Default)]
pub struct Accounts {
    passwd: String,
    group: String,
}

struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Accounts {
    /// Reads them from the layers of an image, top first.
    pub fn read(lowerdirs: &[PathBuf]) -> Self {
        Self { passwd: read_layered(lowerdirs, "etc/passwd"), group: read_layered(lowerdirs, "etc/group") }
    }

    fn passwd(&self) -> impl Iterator<Item = PasswdLine<'_>> {
        self.passwd.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
            Some(PasswdLine { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
        })
    }

    /// Group name, id and members.
    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
            Some((name, gid.parse().ok()?, fields.next().unwrap_or("")))
        })
    }

    /// Resolves a container's user: the security context first, then the image's `USER` (`user[:group]`).
    ///
    /// # Errors
    /// [`CriError::Start`] for names that the image does not know.
    pub fn resolve(&self, security: &SecurityContext, image_user: &str) -> Result<User, CriError> {
        let (user, group) = wanted(security, image_user);
        let entry = self.find_user(&user);
        let uid = match (user.parse::<u32>(), &entry) {
            (Ok(uid), _) => uid,
            (Err(_), Some(entry)) => entry.uid,
            (Err(_), None) if user.is_empty() => 0,
            (Err(_), None) => {
                return Err(CriError::Start(format!(
                    "unable to find user {user}: no matching entries in passwd file"
                )));
            }
        };
        let gid = match group.as_str() {
            "" => entry.as_ref().map_or(0, |e| e.gid),
            name => self.find_group(name)?,
        };
        let mut groups = vec![gid];
        if security.supplemental_groups_policy == SupplementalGroupsPolicy::Merge
            && let Some(entry) = &entry
        {
            let is_member = |members: &str| members.split(',').any(|m| m == entry.name);
            groups.extend(self.groups().filter(|(_, _, members)| is_member(members)).map(|(_, gid, _)| gid));
        }
        for extra in &security.supplemental_groups {
            groups.push(group_id(*extra)?);
        }
        groups.sort_unstable();
        groups.dedup();
        let home = entry.map_or("/", |e| e.home).to_owned();
        Ok(User { uid, gid, groups, home: if home.is_empty() { "/".into() } else { home } })
    }

    fn find_user(&self, user: &str) -> Option<PasswdLine<'_>> {
        match user.parse::<u32>() {
            Ok(uid) => self.passwd().find(|e| e.uid == uid),
            Err(_) if user.is_empty() => self.passwd().find(|e| e.uid == 0),
            Err(_) => self.passwd().find(|e| e.name == user),
        }
    }

    fn find_group(&self, group: &str) -> Result<u32, CriError> {
        if let Ok(gid) = group.parse() {
            return Ok(gid);
        }
        self.groups().find(|(name, ..)| *name == group).map(|(_, gid, _)| gid).ok_or_else(|| {
            CriError::Start(format!("unable to find group {group}: no matching entries in group file"))
        })
    }
}

/// User and group as text, empty for "not said".
fn wanted(security: &SecurityContext, image_user: &str) -> (String, String) {
    let (image_name, image_group) = image_user.split_once(':').unwrap_or((image_user, ""));
    let explicit = match security.run_as_user {
        Some(uid) => Some(uid.to_string()),
        None if !security.run_as_username.is_empty() => Some(security.run_as_username.clone()),
        None => None,
    };
    let group = match (security.run_as_group, &explicit) {
        (Some(gid), _) => gid.to_string(),
        (None, Some(_)) => String::new(),
        (None, None) => image_group.to_owned(),
    };
    (explicit.unwrap_or_else(|| image_name.to_owned()), group)
}

fn group_id(gid: i64) -> Result<u32, CriError> {
    u32::try_from(gid).map_err(|_| CriError::Invalid(format!("supplemental group {gid} is out of range")))
}

/// The file from the topmost layer that has it. A whiteout (a character device, as overlayfs has it) hides lower
/// ones; anything else that is no regular file counts as empty, so that no link leads out of the image.
fn read_layered(lowerdirs: &[PathBuf], name: &str) -> String {
    for layer in lowerdirs {
        let path = layer.join(name);
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() && meta.len() < 16 << 20 => {
                return std::fs::read(&path)
                    .map(|b| String::from_utf8_lossy(&b).into_owned())
                    .unwrap_or_default();
            }
            Ok(_) => return String::new(),
            Err(_) => {}
        }
    }
    String::new()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0::/root:/bin/sh\nweb:x:33:34:w:/srv:/bin/false\n".into(),
            group: "root:x:0:\nwww:x:34:\nlogs:x:40:web,other\n".into(),
        }
    }

    fn check(security: &SecurityContext, image_user: &str, uid: u32, gid: u32, groups: &[u32]) {
        let user = accounts().resolve(security, image_user).unwrap();
        assert_eq!((user.uid, user.gid, &user.groups[..]), (uid, gid, groups), "{image_user}");
    }

    #[test]
    fn image_user_in_all_its_forms() {
        let none = SecurityContext::default();
        check(&none, "", 0, 0, &[0]);
        check(&none, "web", 33, 34, &[34, 40]);
        check(&none, "33", 33, 34, &[34, 40]);
        check(&none, "web:root", 33, 0, &[0, 40]);
        check(&none, "1000:2000", 1000, 2000, &[2000]);
        assert!(matches!(accounts().resolve(&none, "nobody"), Err(CriError::Start(_))));
        assert_eq!(accounts().resolve(&none, "web").unwrap().home, "/srv");
    }

    #[test]
    fn security_context_wins() {
        let base = SecurityContext { run_as_user: Some(1000), ..SecurityContext::default() };
        check(&base, "web:www", 1000, 0, &[0]);
        let grouped = SecurityContext {
            run_as_group: Some(7),
            supplemental_groups: vec![9, 8],
            ..SecurityContext { run_as_user: Some(33), ..SecurityContext::default() }
        };
        check(&grouped, "", 33, 7, &[7, 8, 9, 40]);
        let strict =
            SecurityContext { supplemental_groups_policy: SupplementalGroupsPolicy::Strict, ..grouped };
        check(&strict, "", 33, 7, &[7, 8, 9]);
    }
}
