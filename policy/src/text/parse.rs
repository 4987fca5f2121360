//! From text to a tree, by the parser's events. JSON is read as the subset of YAML it is.

use super::{Faults, Kind, Node, Place, Position, node, read::quote};
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};
use std::collections::HashSet;

/// Longest text read, in bytes.
pub const MAX_BYTES: usize = 16 << 20;
/// Deepest nesting of lists and mappings.
pub const MAX_DEPTH: usize = 64;
/// Most values in one text.
pub const MAX_NODES: usize = 1_000_000;

/// Read one YAML or JSON document.
///
/// Anchors, aliases, tags, merge keys, duplicate keys and several documents are faults: a policy must read the same
/// to a person and to every parser. An empty text is `null`. After a syntax error the node returned is
/// [`Kind::Broken`], whose readers stay silent, so that the caller need not look at the faults in between.
pub fn parse(source: &str, faults: &mut Faults) -> Node {
    let start = place_of(Position { line: 1, column: 1 });
    if source.len() > MAX_BYTES {
        faults.error(&start, format!("the text is longer than {MAX_BYTES} bytes"));
        return broken(start);
    }
    let mut builder = Builder::new(faults);
    for event in Parser::new_from_str(source) {
        let outcome = match event {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => {
                syntax_fault(source, &error, builder.faults);
                Err(Stop)
            }
        };
        if outcome.is_err() {
            return broken(start);
        }
    }
    builder.root.unwrap_or(Node {
        place: start,
        key: None,
        kind: Kind::Null,
    })
}

/// Nothing more can be read; the fault is noted.
struct Stop;

/// A collection whose end has not come yet.
enum Frame {
    List {
        place: Place,
        key: Option<Position>,
        items: Vec<Node>,
    },
    Map {
        place: Place,
        key: Option<Position>,
        entries: Vec<(String, Node)>,
        seen: HashSet<String>,
        pending: Option<(String, Position)>,
    },
}

struct Builder<'f> {
    faults: &'f mut Faults,
    frames: Vec<Frame>,
    root: Option<Node>,
    documents: usize,
    nodes: usize,
}

impl<'f> Builder<'f> {
    fn new(faults: &'f mut Faults) -> Self {
        Self {
            faults,
            frames: Vec::new(),
            root: None,
            documents: 0,
            nodes: 0,
        }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        let position = position_of(span);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => self.document(position),
            Event::Alias(_) => {
                self.refuse(position, "an alias (*name)", Some(ALIAS_HINT));
                self.value(position, Kind::Broken)
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(position, anchor, tag.is_some());
                self.scalar(position, &text, style == ScalarStyle::Plain)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_extras(position, anchor, tag.is_some());
                self.open(position, false)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_extras(position, anchor, tag.is_some());
                self.open(position, true)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
        }
    }

    fn document(&mut self, position: Position) -> Result<(), Stop> {
        self.documents += 1;
        if self.documents > 1 {
            self.faults
                .error(&place_of(position), "a second document; only one is read");
            return Err(Stop);
        }
        Ok(())
    }

    fn refuse_extras(&mut self, position: Position, anchor: usize, tagged: bool) {
        if anchor > 0 {
            self.refuse(position, "an anchor (&name)", Some("write the value out"));
        }
        if tagged {
            self.refuse(
                position,
                "a tag (!name)",
                Some("quote text that begins with !"),
            );
        }
    }

    fn refuse(&mut self, position: Position, what: &str, hint: Option<&str>) {
        let place = self.place(position);
        let message = format!("{what} is not accepted");
        match hint {
            Some(hint) => self.faults.error_hint(&place, message, hint),
            None => self.faults.error(&place, message),
        }
    }

    fn scalar(&mut self, position: Position, text: &str, plain: bool) -> Result<(), Stop> {
        if let Some(Frame::Map { pending: None, .. }) = self.frames.last() {
            return self.key(position, text, plain);
        }
        let kind = if plain && node::is_null(text) {
            Kind::Null
        } else {
            Kind::Scalar {
                text: text.to_owned(),
                plain,
            }
        };
        self.value(position, kind)
    }

    fn key(&mut self, position: Position, text: &str, plain: bool) -> Result<(), Stop> {
        let Some(Frame::Map {
            place,
            seen,
            pending,
            ..
        }) = self.frames.last_mut()
        else {
            return Err(Stop);
        };
        let here = Place {
            position,
            path: place.path.key(text),
        };
        if plain && text == "<<" {
            self.faults.error_hint(
                &here,
                "a merge key (<<) is not accepted",
                "write the values out",
            );
        } else if plain && node::is_null(text) {
            self.faults.error(&here, "null is not a key");
        } else if !seen.insert(text.to_owned()) {
            self.faults
                .error(&here, format!("duplicate key {}", quote(text)));
        }
        *pending = Some((text.to_owned(), position));
        Ok(())
    }

    fn open(&mut self, position: Position, mapping: bool) -> Result<(), Stop> {
        if let Some(Frame::Map { pending: None, .. }) = self.frames.last() {
            let place = self.place(position);
            self.faults.error(&place, "a list or mapping is not a key");
            return Err(Stop);
        }
        let place = self.place(position);
        self.count(&place)?;
        if self.frames.len() >= MAX_DEPTH {
            self.faults
                .error(&place, format!("nested deeper than {MAX_DEPTH} levels"));
            return Err(Stop);
        }
        let key = self.pending_key();
        self.frames.push(if mapping {
            Frame::Map {
                place,
                key,
                entries: Vec::new(),
                seen: HashSet::new(),
                pending: None,
            }
        } else {
            Frame::List {
                place,
                key,
                items: Vec::new(),
            }
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Stop> {
        let node = match self.frames.pop().ok_or(Stop)? {
            Frame::List { place, key, items } => Node {
                place,
                key,
                kind: Kind::List(items),
            },
            Frame::Map {
                place,
                key,
                entries,
                ..
            } => Node {
                place,
                key,
                kind: Kind::Map(entries),
            },
        };
        self.attach(node)
    }

    fn value(&mut self, position: Position, kind: Kind) -> Result<(), Stop> {
        let place = self.place(position);
        self.count(&place)?;
        let key = self.pending_key();
        self.attach(Node { place, key, kind })
    }

    fn attach(&mut self, node: Node) -> Result<(), Stop> {
        match self.frames.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map {
                entries, pending, ..
            }) => match pending.take() {
                Some((key, _)) => entries.push((key, node)),
                // An alias in a key's place: reported already, and no value can be paired after it.
                None => return Err(Stop),
            },
        }
        Ok(())
    }

    /// The place of the value that comes next.
    fn place(&self, position: Position) -> Place {
        let path = match self.frames.last() {
            None => super::Path::default(),
            Some(Frame::List { place, items, .. }) => place.path.index(items.len()),
            Some(Frame::Map { place, pending, .. }) => match pending {
                Some((key, _)) => place.path.key(key),
                None => place.path.clone(),
            },
        };
        Place { position, path }
    }

    fn pending_key(&self) -> Option<Position> {
        match self.frames.last() {
            Some(Frame::Map { pending, .. }) => pending.as_ref().map(|(_, position)| *position),
            _ => None,
        }
    }

    fn count(&mut self, place: &Place) -> Result<(), Stop> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            self.faults
                .error(place, format!("more than {MAX_NODES} values"));
            return Err(Stop);
        }
        Ok(())
    }
}

/// What almost everybody who sees this fault meant to write.
const ALIAS_HINT: &str = "quote a pattern that begins with *: \"*.example.com\"";

fn syntax_fault(source: &str, error: &ScanError, faults: &mut Faults) {
    let marker = error.marker();
    let position = position_at(marker.line(), marker.col());
    let line = source
        .lines()
        .nth(marker.line().saturating_sub(1))
        .unwrap_or_default();
    let at_star = line.chars().nth(marker.col()) == Some('*');
    let place = place_of(position);
    if at_star || error.info().contains("alias") {
        faults.error_hint(&place, "an alias (*name) is not accepted", ALIAS_HINT);
    } else {
        faults.error(&place, error.info().to_owned());
    }
}

fn broken(place: Place) -> Node {
    Node {
        place,
        key: None,
        kind: Kind::Broken,
    }
}

fn place_of(position: Position) -> Place {
    Place {
        position,
        ..Place::default()
    }
}

fn position_of(span: Span) -> Position {
    position_at(span.start.line(), span.start.col())
}

/// The scanner counts lines from 1 and columns from 0.
fn position_at(line: usize, column: usize) -> Position {
    let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Position {
        line: narrow(line.max(1)),
        column: narrow(column.saturating_add(1)),
    }
}
