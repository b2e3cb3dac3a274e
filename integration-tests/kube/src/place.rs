//! Puts a container's own names in the place of those of this machine: mounted paths become directories of the run, names of
//! services and the address `0.0.0.0` become loopback addresses. Applied to arguments, variables and the text of ConfigMaps; a
//! path that only begins like a mounted one (`/tmpfile`) is left alone, and what was put in is not read again.

/// What stands for what.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Longest first.
    all: Vec<(String, String)>,
}

impl Places {
    /// From now on `to` stands for `from`.
    pub fn put(&mut self, from: &str, to: &str) {
        self.all.push((from.trim_end_matches('/').to_owned(), to.to_owned()));
        self.all.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
    }

    /// The text with everything in its place.
    #[must_use]
    pub fn apply(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        while at < text.len() {
            let (before, rest) = text.split_at(at);
            if let Some((from, to)) = self.all.iter().find(|(from, _)| fits(before, rest, from)) {
                out.push_str(to);
                at += from.len();
            } else if let Some(next) = rest.chars().next() {
                out.push(next);
                at += next.len_utf8();
            }
        }
        out
    }
}

/// Whether `rest` begins with `from` as a whole: neither goes on behind it nor began before it.
fn fits(before: &str, rest: &str, from: &str) -> bool {
    let Some(behind) = rest.strip_prefix(from) else { return false };
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let path = from.starts_with('/');
    let began = before.chars().next_back().is_some_and(|c| word(c) || (path && c == '/'));
    !began && !behind.chars().next().is_some_and(word)
}

/// The first name of a service in a text that nobody has resolved.
#[must_use]
pub fn unresolved(text: &str) -> Option<&str> {
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    text.split(|c| !name(c)).find(|word| word.ends_with(".svc") || word.contains(".svc."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        let mut places = Places::default();
        places.put("/tmp", "/run/tmp-of-pod");
        places.put("/etc/app", "/run/app");
        places.put("/etc/app/tls/", "/run/tls");
        places.put("api.space.svc", "127.1.2.3");
        places.put("0.0.0.0", "127.1.2.9");
        places
    }

    #[test]
    fn the_longest_path_wins() {
        assert_eq!(places().apply("/etc/app/tls/ca.crt"), "/run/tls/ca.crt");
        assert_eq!(places().apply("/etc/app/a.toml"), "/run/app/a.toml");
        assert_eq!(places().apply("--config=/etc/app"), "--config=/run/app");
    }

    #[test]
    fn a_path_that_only_looks_alike_stays() {
        for text in ["/tmpfile", "/tmp.d/x", "/var/tmp/x", "/etc/apple", "x/etc/app"] {
            assert_eq!(places().apply(text), text);
        }
    }

    #[test]
    fn what_was_put_in_is_not_read_again() {
        let mut places = Places::default();
        places.put("/data", "/tmp/data");
        places.put("/tmp", "/data");
        assert_eq!(places.apply("/data /tmp"), "/tmp/data /data");
    }

    #[test]
    fn names_and_addresses_are_found_in_urls() {
        assert_eq!(places().apply("url = \"http://api.space.svc:7070\""), "url = \"http://127.1.2.3:7070\"");
        assert_eq!(places().apply("listen = \"0.0.0.0:7070\""), "listen = \"127.1.2.9:7070\"");
        assert_eq!(places().apply("10.0.0.0:1 my-api.space.svc"), "10.0.0.0:1 my-api.space.svc");
    }

    #[test]
    fn a_name_that_is_left_is_found() {
        assert_eq!(
            unresolved("http://127.0.0.1:1, http://pod-0.api.space.svc:7070"),
            Some("pod-0.api.space.svc")
        );
        assert_eq!(unresolved("a.svc.cluster.local/x"), Some("a.svc.cluster.local"));
        assert_eq!(unresolved("http://127.0.0.1:1 svc.example"), None);
    }
}
