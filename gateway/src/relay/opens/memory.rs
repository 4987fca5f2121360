//! What one session has taken.

use std::collections::{HashSet, VecDeque};

use sluicegate_relay_protocol::Once;

use super::{
    Taken, is_recent,
    journal::{BLOCK, Journal, Left},
};

/// What becomes of an open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It goes on.
    Taken,
    /// It has been taken, or may have been.
    Refused,
    /// There is no room to remember it: another block is needed.
    Full,
    /// This memory is no longer in the list.
    Over,
}

#[derive(Debug)]
pub(super) struct Memory {
    session: u64,
    /// The oldest first; the last one is written to.
    blocks: VecDeque<Block>,
    numbers: HashSet<u64>,
    /// The latest of what was forgotten too early; until that would have passed, nobody knows. 0: nothing was.
    forgotten: u64,
    over: bool,
}

#[derive(Debug)]
struct Block {
    place: usize,
    taken: Vec<Taken>,
    /// What stood in it of forgotten opens, where the process before began it and died: it may hold nothing else. 0: nothing.
    inherited: u64,
}

impl Block {
    fn latest(&self) -> u64 {
        self.taken.last().map_or(self.inherited, |last| last.at)
    }
}

impl Memory {
    pub(super) fn of(session: u64) -> Self {
        Self {
            session,
            blocks: VecDeque::new(),
            numbers: HashSet::new(),
            forgotten: 0,
            over: false,
        }
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Nobody finds it any more.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// A block of the process before; they come in order.
    pub(super) fn inherit(&mut self, place: usize, block: Left) {
        let Left {
            forgotten, taken, ..
        } = block;
        self.forgotten = self.forgotten.max(forgotten);
        self.numbers.extend(taken.iter().map(|one| one.number));
        self.blocks.push_back(Block {
            place,
            taken,
            inherited: forgotten,
        });
    }

    /// Whether whoever was tried before is known is the caller's question.
    pub(super) fn take(
        &mut self,
        once: &Once,
        now: u64,
        most: usize,
        journal: &Journal,
    ) -> Verdict {
        if self.over {
            return Verdict::Over;
        }
        let sure = once.tried.is_empty() || !is_recent(self.forgotten, now);
        if !sure || self.numbers.contains(&once.number) {
            return Verdict::Refused;
        }
        if self.blocks.back().is_none_or(Block::is_full) {
            let passed = self.blocks.front().is_some_and(|block| block.passed(now));
            if !passed && self.blocks.len() < most {
                return Verdict::Full;
            }
            self.begin_again(passed, journal);
        }
        let Some(block) = self.blocks.back_mut() else {
            return Verdict::Full;
        };
        let taken = Taken {
            number: once.number,
            // In order, whoever came to the lock first.
            at: now.max(block.latest()),
        };
        journal.write(block.place, block.taken.len(), taken);
        block.taken.push(taken);
        self.numbers.insert(once.number);
        Verdict::Taken
    }

    /// A new block. `false`: this memory is no longer in the list.
    pub(super) fn grow(&mut self, place: usize, journal: &Journal) -> bool {
        if self.over {
            return false;
        }
        journal.begin_block(place, self.session, self.forgotten);
        self.blocks.push_back(Block {
            place,
            taken: Vec::with_capacity(BLOCK),
            inherited: 0,
        });
        true
    }

    /// The oldest block makes room for what comes.
    pub(super) fn forget_oldest(&mut self, journal: &Journal) {
        self.begin_again(false, journal);
    }

    fn begin_again(&mut self, passed: bool, journal: &Journal) {
        if let Some(block) = self.let_go(!passed) {
            self.grow(block.place, journal);
        }
    }

    /// The oldest block is another session's from now on. The last one stays.
    pub(super) fn give_oldest(&mut self, journal: &Journal) -> Option<usize> {
        if self.blocks.len() < 2 {
            return None;
        }
        let given = self.let_go(true)?;
        // First it stands somewhere else that something is forgotten.
        if let Some(last) = self.blocks.back() {
            journal.forgotten(last.place, self.session, self.forgotten);
        }
        Some(given.place)
    }

    /// Blocks of which everything has passed are free again. Without any it is over.
    pub(super) fn forget_passed(&mut self, now: u64, mut free: impl FnMut(usize)) {
        while self.blocks.front().is_some_and(|block| block.passed(now)) {
            self.let_go(false)
                .into_iter()
                .for_each(|block| free(block.place));
        }
        // What is forgotten too early is remembered in a block.
        self.over = self.blocks.is_empty();
    }

    fn let_go(&mut self, early: bool) -> Option<Block> {
        let block = self.blocks.pop_front()?;
        for one in &block.taken {
            self.numbers.remove(&one.number);
        }
        if early {
            self.forgotten = self.forgotten.max(block.latest());
        }
        Some(block)
    }
}

impl Block {
    fn is_full(&self) -> bool {
        self.taken.len() >= BLOCK
    }

    /// Nobody may ask for anything in it any more. One that was just begun waits for its first open.
    fn passed(&self, now: u64) -> bool {
        self.latest() != 0 && !is_recent(self.latest(), now)
    }
}
