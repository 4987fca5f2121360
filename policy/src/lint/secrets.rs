//! Secrets in the plain: tokens known by how they begin, private keys, passwords by their key, and long random texts.

use crate::text::{Faults, Place, Position};
use ahead::{Ahead, Comments};

mod ahead;
#[cfg(test)]
mod tests;

/// How well-known tokens begin, and how many characters follow at least.
const PREFIXES: &[(&str, usize, &str)] = &[
    ("ghp_", 20, "a GitHub token"),
    ("gho_", 20, "a GitHub token"),
    ("ghu_", 20, "a GitHub token"),
    ("ghs_", 20, "a GitHub token"),
    ("ghr_", 20, "a GitHub token"),
    ("github_pat_", 20, "a GitHub token"),
    ("glpat-", 16, "a GitLab token"),
    ("npm_", 24, "an npm token"),
    ("xoxb-", 16, "a Slack token"),
    ("xoxp-", 16, "a Slack token"),
    ("xoxa-", 16, "a Slack token"),
    ("sk_live_", 12, "an API key"),
    ("rk_live_", 12, "an API key"),
    ("sk-", 16, "an API key"),
    ("AKIA", 16, "an AWS access key"),
    ("ASIA", 16, "an AWS access key"),
    ("AIza", 30, "a Google API key"),
    ("hf_", 24, "a Hugging Face token"),
    ("eyJ", 30, "a signed token"),
];

/// Keys whose values are secrets; compared without case, `_` and `-`, as the end of the key.
const KEYS: &[&str] = &[
    "password",
    "passwd",
    "pw",
    "passphrase",
    "secret",
    "apikey",
    "privatekey",
    "accesskey",
    "token",
    "authorization",
    "xauth",
    "cookie",
    "credential",
    "credentials",
];

/// The gateway's own keys that end as those do, and hold a number.
const NUMBERS: &[&str] = &["requestspercredential"];

/// Characters shorter than this are not judged by how random they look.
const SHORTEST_RANDOM: usize = 24;

/// Part of one line, in characters from 0.
struct Span {
    start: usize,
    end: usize,
    what: &'static str,
}

/// The secrets of one line.
struct Found {
    spans: Vec<Span>,
    /// Which characters are part of one: a line may hold thousands.
    taken: Vec<bool>,
}

impl Found {
    fn none(length: usize) -> Self {
        Self {
            spans: Vec::new(),
            taken: vec![false; length],
        }
    }

    fn push(&mut self, span: Span) {
        if let Some(taken) = self.taken.get_mut(span.start..span.end) {
            taken.fill(true);
        }
        self.spans.push(span);
    }

    fn is_taken(&self, at: usize) -> bool {
        self.taken.get(at).copied().unwrap_or_default()
    }

    fn overlaps(&self, start: usize, end: usize) -> bool {
        let taken = self.taken.get(start..end);
        taken.is_some_and(|taken| taken.contains(&true))
    }
}

/// Warn of each secret, never showing it; the result is the source with all of them blotted out.
pub(super) fn find(source: &str, faults: &mut Faults) -> String {
    let mut masked = String::with_capacity(source.len());
    let mut in_key = false;
    for (number, line) in (1_u32..).zip(source.split_inclusive('\n')) {
        let text = line.trim_end_matches(['\n', '\r']);
        let found = if is_pem_border(text, "BEGIN") {
            in_key = true;
            let start = text.find("-----").unwrap_or_default();
            let end = text.chars().count();
            let mut found = Found::none(end);
            found.push(Span {
                start: text.get(..start).unwrap_or_default().chars().count(),
                end,
                what: "a private key",
            });
            found
        } else if in_key {
            Found::none(0)
        } else {
            look(text)
        };
        for span in &found.spans {
            let column = u32::try_from(span.start + 1).unwrap_or(u32::MAX);
            let place = Place {
                position: Position {
                    line: number,
                    column,
                },
                ..Place::default()
            };
            let message = format!("what looks like {} stands here in the plain", span.what);
            let hint = "keep it in a file of its own that this one names, and replace it: it has been seen";
            faults.warn(&place, message, Some(hint.to_owned()));
        }
        for (at, c) in text.chars().enumerate() {
            let hidden = (in_key && !c.is_whitespace()) || found.is_taken(at);
            masked.push(if hidden { '*' } else { c });
        }
        masked.push_str(line.get(text.len()..).unwrap_or_default());
        in_key = in_key && !is_pem_border(text, "END") && !text.contains("\\n-----END");
    }
    masked
}

fn is_pem_border(line: &str, word: &str) -> bool {
    line.split_once(&format!("-----{word} "))
        .is_some_and(|(_, rest)| rest.contains("PRIVATE KEY-----"))
}

/// What looks like a secret in one line, in time by its length: machines write whole policies in one.
fn look(line: &str) -> Found {
    let chars: Vec<char> = line.chars().collect();
    let mut found = Found::none(chars.len());
    keyed(&chars, &mut found);
    userinfo(&chars, &mut found);
    signed(&chars, &mut found);
    let mut at = 0;
    while at < chars.len() {
        let rest = chars.get(at..).unwrap_or_default();
        let length = rest.iter().take_while(|c| is_token(**c)).count();
        let token: String = rest.iter().take(length).collect();
        if length > 0 && !found.overlaps(at, at + length) {
            match judge(&token, chars.get(..at).unwrap_or_default()) {
                Some(what) => found.push(Span {
                    start: at,
                    end: at + length,
                    what,
                }),
                None => known_parts(&token, at, &mut found),
            }
        }
        at += length.max(1);
    }
    found.spans.sort_by_key(|span| span.start);
    found
}

/// `password: VALUE`, in a mapping of either style, quoted or not; `password=VALUE`, in a text or a URL.
fn keyed(chars: &[char], found: &mut Found) {
    let comment = comment_at(chars);
    let flow = chars.iter().position(|c| *c == '{');
    let mut values = Values::of(chars);
    for (at, c) in chars.iter().enumerate() {
        let quoted = at > 0 && matches!(chars.get(at - 1), Some('"' | '\''));
        let next = chars.get(at + 1).copied();
        let mapped = *c == ':' && (quoted || next.is_some_and(char::is_whitespace));
        if !(mapped || *c == '=') || !is_secret_key(chars.get(..at).unwrap_or_default()) {
            continue;
        }
        let start = at + 1 + lead(chars.get(at + 1..).unwrap_or_default(), mapped);
        // Spans so far begin before this value: it overlaps one where its first character is in it.
        if found.is_taken(start) || !may_begin(chars.get(start).copied()) {
            continue;
        }
        let in_comment = comment.is_some_and(|comment| comment < at);
        let end = if mapped && !in_comment {
            values.mapped_end(start, flow.is_some_and(|flow| flow < at))
        } else {
            values.credential_end(start)
        };
        if values.refers(start, end) {
            continue;
        }
        let end = end - trailing(chars.get(start..end).unwrap_or_default());
        if is_secret_value(chars.get(start..end).unwrap_or_default(), in_comment) {
            found.push(Span {
                start,
                end,
                what: "a password",
            });
        }
    }
}

/// Where a comment begins (YAML 1.2 §6.6): at the start, or after white space, outside quotes.
fn comment_at(chars: &[char]) -> Option<usize> {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in chars.iter().enumerate() {
        match (quote, *c) {
            (Some(open), c) if open == c => quote = None,
            (None, '"' | '\'') if !before.is_alphanumeric() => quote = Some(*c),
            (None, '#') if before.is_whitespace() => return Some(at),
            _ => {}
        }
        before = *c;
    }
    None
}

/// Does the text end in a key that names a secret?
fn is_secret_key(before: &[char]) -> bool {
    let key: String = before
        .iter()
        .rev()
        .skip_while(|c| matches!(c, '"' | '\''))
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        .filter(|c| !matches!(c, '_' | '-'))
        .map(char::to_ascii_lowercase)
        .collect();
    let key: String = key.chars().rev().collect();
    !NUMBERS.contains(&key.as_str()) && KEYS.iter().any(|secret| key.ends_with(secret))
}

/// What stands between a key and its value.
fn lead(rest: &[char], mapped: bool) -> usize {
    let skipped = |c: &&char| match c {
        '"' | '\'' => true,
        c => mapped && c.is_whitespace(),
    };
    rest.iter().take_while(skipped).count()
}

/// Where values end, asked for from the left to the right.
struct Values<'a> {
    chars: &'a [char],
    comments: Comments<'a>,
    flow: Ahead<'a>,
    word: Ahead<'a>,
    /// A word behind an authentication scheme begins elsewhere.
    behind: Ahead<'a>,
    reference: Ahead<'a>,
}

impl<'a> Values<'a> {
    fn of(chars: &'a [char]) -> Self {
        Self {
            chars,
            comments: Comments::of(chars),
            flow: Ahead::of(chars, |rest| matches!(rest, [',' | '}' | ']', ..])),
            word: Ahead::of(chars, ends_word),
            behind: Ahead::of(chars, ends_word),
            reference: Ahead::of(chars, |rest| matches!(rest, ['$', '{', ..])),
        }
    }

    /// A mapping's value: to its closing quote; bare, to the end of the line, a comment, or of its entry in a flow mapping.
    fn mapped_end(&mut self, start: usize, flow: bool) -> usize {
        let before = start.checked_sub(1).and_then(|at| self.chars.get(at));
        if let Some(quote) = before.filter(|c| matches!(c, '"' | '\'')) {
            let rest = self.chars.get(start..).unwrap_or_default();
            return start + rest.iter().take_while(|c| *c != quote).count();
        }
        let comment = self.comments.behind(start);
        if flow {
            comment.min(self.flow.seek(start))
        } else {
            comment
        }
    }

    /// A word, with the word behind it where it is an authentication scheme (RFC 9110 §11.4).
    fn credential_end(&mut self, start: usize) -> usize {
        const SCHEMES: [&str; 4] = ["basic", "bearer", "digest", "negotiate"];
        let end = self.word.seek(start);
        let word = self.chars.get(start..end).unwrap_or_default();
        let is = |scheme: &&str| {
            let lower = word.iter().map(char::to_ascii_lowercase);
            scheme.chars().eq(lower)
        };
        if !SCHEMES.iter().any(is) {
            return end;
        }
        let rest = self.chars.get(end..).unwrap_or_default();
        let gap = rest.iter().take_while(|c| matches!(c, ' ' | '\t')).count();
        self.behind.seek(end + gap)
    }

    /// Does the value hold a reference to a variable?
    fn refers(&mut self, start: usize, end: usize) -> bool {
        self.reference.seek(start) + 1 < end
    }
}

fn ends_word(rest: &[char]) -> bool {
    let ends =
        |c: &char| c.is_whitespace() || matches!(c, '"' | '\'' | '&' | ';' | ',' | '}' | ']' | ')');
    rest.first().is_some_and(ends)
}

/// White space at the end.
fn trailing(value: &[char]) -> usize {
    value.iter().rev().take_while(|c| c.is_whitespace()).count()
}

/// Nothing at all, a reference, a collection, a path is no secret.
fn may_begin(first: Option<char>) -> bool {
    first.is_some_and(|c| !"${[|>#~/=&*".contains(c))
}

/// Nothing at all and a plain word of a document or of a comment is no secret.
fn is_secret_value(value: &[char], in_comment: bool) -> bool {
    const WORDS: [&str; 5] = ["null", "true", "false", "yes", "no"];
    let is_word = |word: &&str| word.chars().eq(value.iter().copied());
    let is_prose = || {
        let letter = |c: &char| c.is_ascii_lowercase() || matches!(c, '.' | '-');
        in_comment && value.iter().all(letter)
    };
    !(value.is_empty() || WORDS.iter().any(is_word) || is_prose())
}

/// What stands for a secret: `${VARIABLE}`, blots; in a comment also a word in capitals, bare, `<BETWEEN>` or `$BEHIND` a mark.
fn is_placeholder(value: &[char], in_comment: bool) -> bool {
    let capitals = |value: &[char]| {
        let capital = |c: &char| c.is_ascii_uppercase() || *c == '_';
        !value.is_empty() && value.iter().all(capital)
    };
    match value {
        ['$', '{', name @ .., '}'] => capitals(name),
        ['<', name @ .., '>'] | ['$', name @ ..] if in_comment => capitals(name),
        value => value.iter().all(|c| *c == '*') || (in_comment && capitals(value)),
    }
}

/// `scheme://user:PASSWORD@host`.
fn userinfo(chars: &[char], found: &mut Found) {
    let comment = comment_at(chars);
    let starts = chars
        .windows(3)
        .enumerate()
        .filter(|(_, w)| *w == [':', '/', '/']);
    for (at, _) in starts {
        let start = at + 3;
        let authority: Vec<char> = chars
            .get(start..)
            .unwrap_or_default()
            .iter()
            .take_while(|c| !c.is_whitespace() && !matches!(c, '/' | '"' | '\''))
            .copied()
            .collect();
        let Some(end) = authority.iter().rposition(|c| *c == '@') else {
            continue;
        };
        let colon = authority.iter().position(|c| *c == ':');
        let colon = colon.filter(|colon| *colon + 1 < end);
        let stands_for = |colon: &usize| {
            let password = authority.get(colon + 1..end).unwrap_or_default();
            is_placeholder(password, comment.is_some_and(|comment| comment < at))
        };
        if let Some(colon) = colon.filter(|colon| !stands_for(colon)) {
            found.push(Span {
                start: start + colon + 1,
                end: start + end,
                what: "a password",
            });
        }
    }
}

/// A signed token by its parts (RFC 7515 §7.1): a header and claims, each the base64url of a JSON object (`{"` is `eyJ`, `{}` is `e30`),
/// and a signature. The parts may be too short to be known by themselves.
fn signed(chars: &[char], found: &mut Found) {
    let mut at = 0;
    while at < chars.len() {
        let rest = chars.get(at..).unwrap_or_default();
        let is_part = |c: &&char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let word: String = rest.iter().take_while(is_part).collect();
        let parts: Vec<&str> = word.splitn(4, '.').collect();
        if let [header, claims, signature, ..] = parts.as_slice()
            && header.starts_with("eyJ")
            && (claims.starts_with("eyJ") || *claims == "e30")
        {
            // A token is ASCII: bytes are characters.
            let end = at + header.len() + claims.len() + signature.len() + 2;
            if !found.overlaps(at, end) {
                found.push(Span {
                    start: at,
                    end,
                    what: "a signed token",
                });
            }
        }
        at += word.len().max(1);
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '_' | '-')
}

/// Well-known tokens among the segments of a path, or behind `=`. Of other segments it is not known whether they are secret.
fn known_parts(token: &str, at: usize, found: &mut Found) {
    let mut start = at;
    for part in token.split(['/', '=']) {
        // A token is ASCII: bytes are characters.
        let end = start + part.len();
        if let Some(what) = known(part) {
            found.push(Span { start, end, what });
        }
        start = end + 1;
    }
}

/// What begins like a well-known token, and is long enough to be one.
fn known(token: &str) -> Option<&'static str> {
    let known = PREFIXES.iter().find(|(prefix, least, _)| {
        let rest = token.strip_prefix(prefix);
        rest.is_some_and(|rest| {
            rest.len() >= *least
                && rest
                    .bytes()
                    .any(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
        })
    });
    known.map(|(.., what)| *what)
}

fn judge(token: &str, before: &[char]) -> Option<&'static str> {
    if let Some(what) = known(token) {
        return Some(what);
    }
    // A digest is public; it is written with its algorithm before it.
    let lead: String = before.iter().rev().take(7).collect();
    let is_digest = ["652ahs", "483ahs", "215ahs"]
        .iter()
        .any(|name| lead.trim_start_matches([':', '-', '=']).starts_with(name))
        || ["sha256-", "sha384-", "sha512-"]
            .iter()
            .any(|name| token.starts_with(name));
    (!is_digest && !is_token_hash(token, before) && is_random(token)).then_some("a random secret")
}

/// `tokenSha256: HEX` of an admin credential: written so that the token itself is not.
fn is_token_hash(token: &str, before: &[char]) -> bool {
    if token.len() != 64 || !token.bytes().all(|b| b.is_ascii_hexdigit()) {
        return false;
    }
    let quote = |c: &&char| matches!(c, '"' | '\'');
    let mut back = before
        .iter()
        .rev()
        .skip_while(|c| c.is_whitespace() || quote(c));
    if back.next() != Some(&':') {
        return false;
    }
    let mut back = back.skip_while(quote);
    let mut name = "tokenSha256".chars().rev();
    name.all(|c| back.next() == Some(&c)) && back.next().is_none_or(|c| !is_token(*c))
}

/// Long, of mixed kinds of characters, and with hardly any repetition: not a word, a path or a name.
fn is_random(token: &str) -> bool {
    let token = token.trim_end_matches('=');
    let length = token.len();
    if length < SHORTEST_RANDOM
        || token.starts_with('/')
        || token.matches('/').count() > 2 + length / 24
    {
        return false;
    }
    let count = |is: fn(&u8) -> bool| token.bytes().filter(is).count();
    let (digits, upper, lower) = (
        count(u8::is_ascii_digit),
        count(u8::is_ascii_uppercase),
        count(u8::is_ascii_lowercase),
    );
    let hex = token.bytes().all(|b| b.is_ascii_hexdigit());
    if hex {
        return length >= 32 && digits > 0 && lower + upper > 0 && entropy(token) >= 3.0;
    }
    let mixed = digits > 0 && upper > 1 && lower > 1;
    let dense = length >= 32 && digits * 6 >= length && !token.contains(['-', '/', '_']);
    (mixed && entropy(token) >= 3.9) || (dense && entropy(token) >= 4.0)
}

/// Shannon's, in bits per character.
fn entropy(token: &str) -> f64 {
    let mut counts = [0_u32; 128];
    for byte in token.bytes() {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
        }
    }
    let total = f64::from(u32::try_from(token.len()).unwrap_or(u32::MAX));
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / total)
        .map(|share| -share * share.log2())
        .sum()
}
