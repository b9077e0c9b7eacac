//! Who a process runs as, out of the image's own `/etc/passwd` and `/etc/group`.
//!
//! Read by hand: the system's lookup functions load modules at run time, which a static binary does not have.

use std::fs;

/// A resolved user. `groups` holds the supplementary ones, sorted, without the primary group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
    pub name: Option<String>,
}

impl Identity {
    pub fn root() -> Self {
        Self { uid: 0, gid: 0, groups: Vec::new(), home: "/root".into(), name: Some("root".into()) }
    }
}

/// Larger files are not read further; an image's user database is small.
const FILE_MAX: u64 = 4 * 1024 * 1024;

/// Resolves against the files under `/etc`.
pub fn resolve(user: &str) -> Result<Identity, String> {
    parse(user, &read("/etc/passwd"), &read("/etc/group"))
}

fn read(path: &str) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = file.take(FILE_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or("/");
        Some(Entry { name, uid, gid, home })
    })
}

fn group_lines(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

/// `spec` is `name`, `uid`, `name:group` or `uid:gid`; empty means root. An unknown number is taken as it is, with group
/// 0; an unknown name is an error. With a group given, supplementary groups are left out, as image runtimes do.
pub fn parse(spec: &str, passwd: &str, group: &str) -> Result<Identity, String> {
    let spec = spec.trim();
    let (user, wanted_group) = spec.split_once(':').map_or((spec, None), |(user, group)| (user, Some(group)));
    let user = if user.is_empty() { "0" } else { user };
    let found = entries(passwd)
        .find(|entry| entry.name == user)
        .or_else(|| entries(passwd).find(|entry| user.parse() == Ok(entry.uid)));
    let mut identity = match (found, user.parse::<u32>()) {
        (Some(entry), _) => Identity {
            uid: entry.uid,
            gid: entry.gid,
            groups: Vec::new(),
            home: if entry.home.is_empty() { "/".into() } else { entry.home.to_owned() },
            name: Some(entry.name.to_owned()),
        },
        (None, Ok(0)) => Identity::root(),
        (None, Ok(uid)) => Identity { uid, gid: 0, groups: Vec::new(), home: "/".into(), name: None },
        (None, Err(_)) => return Err(format!("the image has no user {user}")),
    };
    match wanted_group.filter(|name| !name.is_empty()) {
        Some(name) => {
            let known = group_lines(group).find(|(known, _, _)| *known == name).map(|(_, gid, _)| gid);
            identity.gid = match (known, name.parse()) {
                (Some(gid), _) | (None, Ok(gid)) => gid,
                (None, Err(_)) => return Err(format!("the image has no group {name}")),
            };
        }
        None => {
            if let Some(name) = &identity.name {
                let member = |members: &str| members.split(',').any(|member| member.trim() == name);
                let groups = group_lines(group).filter(|(_, _, members)| member(members)).map(|(_, gid, _)| gid);
                identity.groups = groups.filter(|gid| *gid != identity.gid).collect();
                identity.groups.sort_unstable();
                identity.groups.dedup();
            }
        }
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www:/var/www:/sbin/nologin\nbroken\n\
                          odd:x:77:78::/odd\n1234:x:5:6::/named:\n";
    const GROUP: &str = "root:x:0:\nwww-data:x:33:\nssl:x:101:www-data,odd\ntty:x:5:www-data\nbad:x:no:www-data\n";

    #[test]
    fn users_are_found_by_name_and_number() {
        let cases = [
            ("", (0, 0, "/root", vec![])),
            ("root", (0, 0, "/root", vec![])),
            ("www-data", (33, 33, "/var/www", vec![5, 101])),
            ("33", (33, 33, "/var/www", vec![5, 101])),
            ("www-data:ssl", (33, 101, "/var/www", vec![])),
            ("www-data:", (33, 33, "/var/www", vec![5, 101])),
            ("1000", (1000, 0, "/", vec![])),
            ("1000:2000", (1000, 2000, "/", vec![])),
            (":101", (0, 101, "/root", vec![])),
            ("odd", (77, 78, "/odd", vec![101])),
            ("1234", (5, 6, "/named", vec![])),
        ];
        for (spec, (uid, gid, home, groups)) in cases {
            let identity = parse(spec, PASSWD, GROUP).unwrap();
            assert_eq!((identity.uid, identity.gid, identity.home.as_str()), (uid, gid, home), "{spec}");
            assert_eq!(identity.groups, groups, "{spec}");
        }
    }

    #[test]
    fn unknown_names_are_refused_and_an_empty_image_still_has_root() {
        assert!(parse("nobody", PASSWD, GROUP).unwrap_err().contains("nobody"));
        assert!(parse("root:nogroup", PASSWD, GROUP).unwrap_err().contains("nogroup"));
        assert!(parse("-1", PASSWD, GROUP).is_err());
        assert_eq!(parse("", "", "").unwrap(), Identity::root());
        assert!(parse("root", "", "").is_err());
    }
}
