//! Which blocks of the file nobody uses.

#[derive(Debug)]
pub(super) struct Blocks {
    free: Vec<usize>,
    /// From here on none was ever used.
    fresh: usize,
    all: usize,
}

impl Blocks {
    /// So many are in use already, the first ones.
    pub(super) fn after(used: usize, all: usize) -> Self {
        Self {
            free: Vec::new(),
            fresh: used,
            all,
        }
    }

    pub(super) fn take(&mut self) -> Option<usize> {
        let used_before = self.free.pop();
        used_before.or_else(|| {
            let place = self.fresh;
            (place < self.all).then(|| {
                self.fresh += 1;
                place
            })
        })
    }

    pub(super) fn give_back(&mut self, place: usize) {
        self.free.push(place);
    }
}
