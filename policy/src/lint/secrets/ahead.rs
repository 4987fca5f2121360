//! What comes next in a line, found so that many questions of one line take time by its length, no more by its square.

/// Where something begins next, asked for from the left to the right.
pub(super) struct Ahead<'a> {
    chars: &'a [char],
    is: fn(&[char]) -> bool,
    /// Nothing begins from the last question's place up to here.
    found: usize,
}

impl<'a> Ahead<'a> {
    /// `is` says whether what is looked for begins with these characters.
    pub(super) fn of(chars: &'a [char], is: fn(&[char]) -> bool) -> Self {
        Self {
            chars,
            is,
            found: 0,
        }
    }

    /// The first place at `start` or behind it, or the end of the line. No question may ask for less than one before it.
    pub(super) fn seek(&mut self, start: usize) -> usize {
        if self.found <= start {
            let rest = |at: usize| self.chars.get(at..).unwrap_or_default();
            let next = (start..self.chars.len()).find(|at| (self.is)(rest(*at)));
            self.found = next.unwrap_or(self.chars.len());
        }
        self.found
    }
}

/// Where a comment begins behind each place of a line, were that place outside quotes (YAML 1.2 §6.6).
pub(super) struct Comments<'a> {
    chars: &'a [char],
    /// Filled with the first question: few lines have one.
    from: Vec<usize>,
}

impl<'a> Comments<'a> {
    pub(super) fn of(chars: &'a [char]) -> Self {
        Self {
            chars,
            from: Vec::new(),
        }
    }

    /// Where the first comment behind a value's first character begins, or the end of the line. A quote is no first character.
    pub(super) fn behind(&mut self, start: usize) -> usize {
        let end = self.chars.len();
        if self.from.is_empty() {
            self.from = fill(self.chars);
        }
        self.from.get(start + 1).copied().unwrap_or(end)
    }
}

fn fill(chars: &[char]) -> Vec<usize> {
    let end = chars.len();
    let mut from = vec![end; end + 1];
    // The places behind the next quote of either kind.
    let (mut double, mut single) = (end, end);
    for (at, c) in chars.iter().enumerate().rev() {
        let before = at.checked_sub(1).and_then(|at| chars.get(at)).copied();
        let before = before.unwrap_or(' ');
        let resumes = match c {
            '"' if !before.is_alphanumeric() => double,
            '\'' if !before.is_alphanumeric() => single,
            _ => at + 1,
        };
        let next = from.get(resumes).copied().unwrap_or(end);
        if let Some(slot) = from.get_mut(at) {
            *slot = if *c == '#' && before.is_whitespace() {
                at
            } else {
                next
            };
        }
        match c {
            '"' => double = at + 1,
            '\'' => single = at + 1,
            _ => {}
        }
    }
    from
}
