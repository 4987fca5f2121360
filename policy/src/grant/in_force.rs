//! Which rules hold for one host and port: the decision asks, and whoever judges beforehand what can be enforced.

use super::Attributes;
use crate::{EchRule, HttpRule, Origin, TlsRule};

/// Of each author's rules that have an attribute, the closest one. Together they allow what all of them do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct InForce {
    tls: Closest,
    ech: Closest,
    http: Closest,
}

/// Of each author's rules that have one attribute, the closest one, by its place in `rules`; [`NONE`] where there is none. Every permit
/// has them: an `Option` would be twice as long.
#[derive(Clone, Copy, Debug)]
struct Closest([u32; Origin::ALL.len()]);

const NONE: u32 = u32::MAX;

impl Default for Closest {
    fn default() -> Self {
        Self([NONE; Origin::ALL.len()])
    }
}

impl Closest {
    fn set(&mut self, origin: Origin, index: u32) {
        if let Some(place) = self.0.get_mut(origin as usize) {
            *place = index;
        }
    }

    /// The operator's first.
    fn indices(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied().filter(|index| *index != NONE)
    }

    /// This author's.
    fn of(&self, origin: Origin) -> Option<u32> {
        let index = self.0.get(origin as usize).copied();
        index.filter(|index| *index != NONE)
    }
}

impl InForce {
    /// One rule more that covers the host and the port, closer than those before it.
    #[inline]
    pub(crate) fn add(&mut self, index: u32, rule: &Attributes) {
        for (said, closest) in [
            (rule.tls.is_some(), &mut self.tls),
            (rule.ech.is_some(), &mut self.ech),
            (rule.http.is_some(), &mut self.http),
        ] {
            if said {
                closest.set(rule.origin, index);
            }
        }
    }

    /// What the first bytes must be by the strictest of them, and its place in `rules`; `None` where none says anything of it.
    pub(crate) fn tls(&self, rules: &[Attributes]) -> Option<(TlsRule, u32)> {
        let rule = |index: u32| Some((rules.get(index as usize)?.tls?, index));
        self.tls.indices().filter_map(rule).min()
    }

    /// Of one author's rules the one that says what the first bytes must be.
    pub(crate) fn tls_of(&self, origin: Origin) -> Option<u32> {
        self.tls.of(origin)
    }

    /// Of one author's rules the one that has methods and paths.
    pub(crate) fn http_of(&self, origin: Origin) -> Option<u32> {
        self.http.of(origin)
    }

    /// What they say of encrypted hellos, each with its place.
    pub(crate) fn ech<'a>(
        &'a self,
        rules: &'a [Attributes],
    ) -> impl Iterator<Item = (u32, &'a EchRule)> {
        let indices = self.ech.indices();
        indices.filter_map(move |index| Some((index, rules.get(index as usize)?.ech.as_ref()?)))
    }

    /// Their methods and paths, each with its place, and whether report mode lifts it. One that names neither bounds nothing.
    pub(crate) fn http<'a>(
        &'a self,
        rules: &'a [Attributes],
    ) -> impl Iterator<Item = (u32, bool, &'a HttpRule)> {
        let found = self.http.indices().filter_map(move |index| {
            let rule = rules.get(index as usize)?;
            Some((index, rule.lifted, rule.http.as_ref()?))
        });
        found.filter(|(_, _, http)| **http != HttpRule::default())
    }
}
