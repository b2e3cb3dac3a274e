//! Which column a member of an object belongs to: by its exact name, else by its name without regard to case.
//!
//! Records of a stream name the same members in the same order, so the order is learned: in the common case one comparison
//! of names finds the column.

use std::collections::HashMap;

/// How many names are learned; a stream whose names vary without end must not fill the memory (I8).
const LEARNED_MAX: usize = 256;

/// What to do with a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// Nobody wants it.
    Skip,
    /// It is the value of a column.
    Column {
        /// Which.
        index: usize,
        /// The name is the column's, letter by letter.
        exact: bool,
    },
}

/// The names of an object's columns, and what was learned about its members.
pub(super) struct Members {
    exact: HashMap<Box<str>, usize>,
    folded: HashMap<Box<str>, usize>,
    learned: Vec<(Box<str>, Target)>,
    places: HashMap<Box<str>, usize>,
    next: usize,
    /// Per column: its value in this object came under its exact name.
    exactly: Vec<bool>,
}

impl Members {
    /// Columns with these names, in this order. Names that differ in case alone are found exactly only.
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let exact: HashMap<Box<str>, usize> = names.enumerate().map(|(i, name)| (name.into(), i)).collect();
        let mut folded: HashMap<Box<str>, usize> = HashMap::new();
        let mut doubled = Vec::new();
        for (name, index) in &exact {
            let name: Box<str> = name.to_lowercase().into();
            if folded.insert(name.clone(), *index).is_some() {
                doubled.push(name);
            }
        }
        for name in doubled {
            folded.remove(&name);
        }
        let exactly = vec![false; exact.len()];
        Self { exact, folded, learned: Vec::new(), places: HashMap::new(), next: 0, exactly }
    }

    /// A new object begins.
    pub(super) fn begin(&mut self) {
        self.next = 0;
        self.exactly.fill(false);
    }

    /// Where the member `name` goes. `filled(index)` says whether that column has its value already: a later member of the
    /// same name wins, but a name that matches only without case never replaces an exact one.
    pub(super) fn find(&mut self, name: &str, filled: impl Fn(usize) -> bool) -> Target {
        let target = self.look_up(name);
        if let Target::Column { index, exact } = target {
            if !exact && self.exactly[index] && filled(index) {
                return Target::Skip;
            }
            self.exactly[index] = exact;
        }
        target
    }

    fn look_up(&mut self, name: &str) -> Target {
        if let Some((expected, target)) = self.learned.get(self.next)
            && **expected == *name
        {
            self.next += 1;
            return *target;
        }
        if let Some(&place) = self.places.get(name) {
            self.next = place + 1;
            return self.learned[place].1;
        }
        let target = if let Some(&index) = self.exact.get(name) {
            Target::Column { index, exact: true }
        } else if let Some(&index) = self.folded.get(name.to_lowercase().as_str()) {
            Target::Column { index, exact: false }
        } else {
            Target::Skip
        };
        if self.learned.len() < LEARNED_MAX {
            self.places.insert(name.into(), self.learned.len());
            self.learned.push((name.into(), target));
            self.next = self.learned.len();
        }
        target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(index: usize, exact: bool) -> Target {
        Target::Column { index, exact }
    }

    #[test]
    fn the_exact_name_wins_whatever_the_order() {
        let mut members = Members::new(["a", "b"].into_iter());
        assert_eq!(members.find("A", |_| false), column(0, false));
        assert_eq!(members.find("a", |_| true), column(0, true));
        assert_eq!(members.find("A", |_| true), Target::Skip);
        members.begin();
        assert_eq!(members.find("A", |_| false), column(0, false), "a new object forgets the last one");
        assert_eq!(members.find("B", |_| false), column(1, false));
        assert_eq!(members.find("c", |_| false), Target::Skip);
    }

    #[test]
    fn names_that_differ_in_case_alone_are_found_exactly() {
        let mut members = Members::new(["a", "A"].into_iter());
        assert_eq!(members.find("A", |_| false), column(1, true));
        assert_eq!(members.find("a", |_| false), column(0, true));
    }

    #[test]
    fn names_without_end_are_not_learned_without_end() {
        let mut members = Members::new(["a"].into_iter());
        for i in 0..1000 {
            members.begin();
            assert_eq!(members.find(&format!("x{i}"), |_| false), Target::Skip);
        }
        assert!(members.learned.len() <= LEARNED_MAX);
        assert_eq!(members.find("a", |_| false), column(0, true));
    }
}
