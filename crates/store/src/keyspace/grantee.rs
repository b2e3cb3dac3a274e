//! `/{cluster}/grantee/{name}`: a user or a role, with what was granted to it. Guarded by its revision in every change.

use model::Grantee;

use super::{Keyspace, Kind, segment};
use crate::Key;

/// The kind of this key.
pub struct GranteeKey;

impl Kind for GranteeKey {
    type Id = String;
    type Value = Grantee;
    const WORD: &'static str = "grantee";
    fn write(name: &String, path: &mut String) {
        segment::push(path, name);
    }
    fn read(segments: &[&str]) -> Option<String> {
        let [name] = segments else { return None };
        segment::decode(name)
    }
}

impl Keyspace {
    /// The key of one user or role.
    #[must_use]
    pub fn grantee(&self, name: &str) -> Key {
        self.key::<GranteeKey>(&name.to_owned())
    }
}
