//! What has elements.

use super::super::{self as term, tag};
use super::place::Place;
use super::{Atom, View};
use crate::wire::reader;
use std::fmt;

/// A tuple.
#[derive(Clone, Copy)]
pub struct Tuple<'a> {
    first: Place<'a>,
    arity: u32,
}

impl<'a> Tuple<'a> {
    pub(super) fn new(first: Place<'a>, arity: u32) -> Self {
        Self { first, arity }
    }

    /// How many elements it has.
    #[must_use]
    pub fn len(self) -> usize {
        self.arity as usize
    }

    /// Whether it is `{}`.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.arity == 0
    }

    /// The elements, if there are `N`.
    #[must_use]
    pub fn elements<const N: usize>(self) -> Option<[View<'a>; N]> {
        if self.len() != N {
            return None;
        }
        let mut elements = [View::Integer(0); N];
        let mut iter = self.iter();
        for element in &mut elements {
            iter.settle()?;
            *element = iter.place.read(&mut iter.owed)?;
        }
        Some(elements)
    }

    /// One element after the other.
    #[must_use]
    pub fn iter(self) -> Elements<'a> {
        Elements::new(self.first, self.arity)
    }
}

/// A list.
#[derive(Clone, Copy)]
pub struct List<'a> {
    first: Place<'a>,
    length: u32,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nil,
    /// `STRING_EXT`: a list of bytes.
    String,
    /// Elements and a tail.
    Cells,
}

impl<'a> List<'a> {
    pub(super) fn nil(place: Place<'a>) -> Self {
        Self {
            first: place,
            length: 0,
            kind: Kind::Nil,
        }
    }

    pub(super) fn string(first: Place<'a>, length: u32) -> Self {
        Self {
            first,
            length,
            kind: Kind::String,
        }
    }

    pub(super) fn cells(first: Place<'a>, length: u32) -> Self {
        Self {
            first,
            length,
            kind: Kind::Cells,
        }
    }

    /// Whether it is `[]`.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.length == 0
    }

    /// One element after the other, without the tail of an improper list.
    #[must_use]
    pub fn iter(self) -> ListIter<'a> {
        let (count, bytes) = match self.kind {
            Kind::String => (0, self.first.bytes(self.length).unwrap_or_default()),
            Kind::Nil | Kind::Cells => (self.length, &[][..]),
        };
        ListIter {
            elements: Elements::new(self.first, count),
            bytes,
            tail: self.kind == Kind::Cells,
            improper: false,
        }
    }

    /// What the list ends with, if that is something else than the empty list. Who has read the
    /// elements asks [`ListIter::tail`], which is there already.
    #[must_use]
    pub fn tail(self) -> Option<View<'a>> {
        self.iter().tail()
    }

    /// The text, if it is a proper list of code points.
    #[must_use]
    pub fn text(self) -> Option<String> {
        let character = |view: View<'_>| char::from_u32(u32::try_from(view.as_i64()?).ok()?);
        let mut elements = self.iter();
        let text = elements.by_ref().map(character).collect();
        match elements.tail() {
            None => text,
            Some(_) => None,
        }
    }
}

/// A map, whose pairs stand in no order.
#[derive(Clone, Copy)]
pub struct Map<'a> {
    first: Place<'a>,
    pairs: u32,
}

impl<'a> Map<'a> {
    pub(super) fn new(first: Place<'a>, pairs: u32) -> Self {
        Self { first, pairs }
    }

    /// How many pairs it has.
    #[must_use]
    pub fn len(self) -> usize {
        self.pairs as usize
    }

    /// Whether it is `#{}`.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.pairs == 0
    }

    /// The value of the key which is that atom. All keys before it are looked at.
    #[must_use]
    pub fn get(self, atom: &str) -> Option<View<'a>> {
        self.iter()
            .find(|(key, _)| key.is_atom(atom))
            .map(|(_, value)| value)
    }

    /// One key with its value after the other.
    #[must_use]
    pub fn iter(self) -> Pairs<'a> {
        Pairs(Elements::new(self.first, self.pairs.saturating_mul(2)))
    }
}

/// A native record.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// Behind the count of fields.
    head: Place<'a>,
    fields: u32,
}

impl<'a> Record<'a> {
    pub(super) fn new(head: Place<'a>, fields: u32) -> Self {
        Self { head, fields }
    }

    /// Whether the module exports it, the module, and its name.
    fn head(&self) -> Option<(bool, Atom<'a>, Atom<'a>, Place<'a>)> {
        let mut place = self.head;
        let flags = place.u8()?;
        Some((flags == 1, place.atom()?, place.atom()?, place))
    }

    /// The module that defines it.
    #[must_use]
    pub fn module(self) -> Atom<'a> {
        self.head()
            .map_or(Atom::new(&[], false), |(_, module, ..)| module)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> Atom<'a> {
        self.head()
            .map_or(Atom::new(&[], false), |(_, _, name, _)| name)
    }

    /// Whether the module exports it, so that others may look into it.
    #[must_use]
    pub fn exported(self) -> bool {
        self.head().is_some_and(|(exported, ..)| exported)
    }

    /// Names and values of its fields, in the order of the definition.
    pub fn fields(self) -> impl Iterator<Item = (Atom<'a>, View<'a>)> {
        let head = self.head().map_or(self.head, |(.., names)| names);
        let (mut names, mut values) = (head, head);
        let found = (0..self.fields).try_for_each(|_| values.atom().map(|_| ()));
        let count = found.map_or(0, |()| self.fields);
        Elements::new(values, count).map_while(move |value| Some((names.atom()?, value)))
    }

    /// The value of the field of that name.
    #[must_use]
    pub fn get(self, field: &str) -> Option<View<'a>> {
        self.fields()
            .find(|(name, _)| name.is(field))
            .map(|(_, value)| value)
    }
}

impl From<Record<'_>> for term::Record {
    fn from(record: Record<'_>) -> Self {
        Self {
            module: record.module().into(),
            name: record.name().into(),
            exported: record.exported(),
            fields: record
                .fields()
                .map(|(name, value)| (name.into(), value.to_value()))
                .collect(),
        }
    }
}

/// Elements that an iterator announces at most, of as many as there may be.
const MOST_EXPECTED: usize = 1024;

/// The elements of a tuple.
#[derive(Clone)]
pub struct Elements<'a> {
    place: Place<'a>,
    /// Terms of which the last element consists and that are to be stepped over.
    owed: u32,
    left: u32,
    /// Bytes of the term from the first element on.
    first: usize,
}

impl<'a> Elements<'a> {
    fn new(place: Place<'a>, left: u32) -> Self {
        Self {
            place,
            owed: 0,
            left,
            first: place.bytes_left(),
        }
    }

    /// Steps over the rest of the last element.
    #[inline(always)]
    fn settle(&mut self) -> Option<()> {
        let owed = std::mem::take(&mut self.owed);
        if owed > 0 && !self.place.step_over() {
            let mut after = self.place;
            after.skip(owed.into())?;
            self.place = after;
        }
        Some(())
    }

    /// After the last element.
    #[inline(always)]
    fn end(&mut self) {
        if self.settle().is_some() {
            self.place.pass(self.first);
        }
    }

    /// Steps over all elements that are left.
    fn exhaust(&mut self) -> Option<()> {
        let left = u64::from(std::mem::take(&mut self.left));
        let owed = u64::from(std::mem::take(&mut self.owed));
        self.place.skip(owed + left)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = View<'a>;

    // Inlined, so that a loop over elements keeps its place in registers.
    #[inline(always)]
    fn next(&mut self) -> Option<View<'a>> {
        let Some(left) = self.left.checked_sub(1) else {
            self.end();
            return None;
        };
        self.left = left;
        self.settle()?;
        self.place.read(&mut self.owed)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // In a term that was never checked there may be fewer: nobody is to make room for all.
        let left = self.left as usize;
        (
            left.min(self.place.bytes_left()).min(MOST_EXPECTED),
            Some(left),
        )
    }
}

/// The elements of a list.
#[derive(Clone)]
pub struct ListIter<'a> {
    elements: Elements<'a>,
    /// Elements that are one byte each.
    bytes: &'a [u8],
    /// Whether a tail follows the elements.
    tail: bool,
    /// Whether the elements are all, and something else than `[]` follows.
    improper: bool,
}

impl<'a> ListIter<'a> {
    /// What follows the elements, if the list isn't proper.
    #[must_use]
    pub fn tail(mut self) -> Option<View<'a>> {
        while self.tail {
            self.elements.exhaust()?;
            self.turn();
        }
        if self.improper {
            self.elements.place.read(&mut 0)
        } else {
            None
        }
    }

    /// Looks at the tail: a list that goes on there is the same list.
    #[inline(never)]
    fn turn(&mut self) {
        self.tail = false;
        if self.elements.settle().is_none() {
            return;
        }
        let place = &mut self.elements.place;
        match place.peek() {
            Some(tag::LIST) => {
                if let Some(length) = place.head() {
                    place.enter();
                    self.elements.left = length;
                    self.tail = true;
                }
            }
            Some(tag::STRING) => {
                if let Some(View::List(string)) = place.read(&mut 0) {
                    self.bytes = string.iter().bytes;
                }
            }
            Some(tag::NIL) => {
                place.u8();
                place.pass(self.elements.first);
            }
            None => {}
            Some(_) => self.improper = true,
        }
    }
}

impl<'a> Iterator for ListIter<'a> {
    type Item = View<'a>;

    // Inlined, so that a loop over elements keeps its place in registers.
    #[inline(always)]
    fn next(&mut self) -> Option<View<'a>> {
        loop {
            if self.elements.left > 0 {
                return self.elements.next();
            }
            if self.tail {
                let mut turned = self.clone();
                turned.turn();
                *self = turned;
                continue;
            }
            let byte = reader::u8(&mut self.bytes)?;
            return Some(View::Integer(byte.into()));
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (least, most) = self.elements.size_hint();
        if self.tail {
            (least, None)
        } else {
            let bytes = self.bytes.len();
            (least + bytes, most.map(|most| most + bytes))
        }
    }
}

/// The pairs of a map.
#[derive(Clone)]
pub struct Pairs<'a>(Elements<'a>);

impl<'a> Iterator for Pairs<'a> {
    type Item = (View<'a>, View<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, self.0.next()?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (least, most) = self.0.size_hint();
        (least / 2, most.map(|most| most / 2))
    }
}

macro_rules! into_iter {
    ($($container:ident $iter:ident $item:ty),*) => {$(
        impl<'a> IntoIterator for $container<'a> {
            type Item = $item;
            type IntoIter = $iter<'a>;

            fn into_iter(self) -> $iter<'a> {
                self.iter()
            }
        }
    )*};
}

into_iter!(
    Tuple Elements View<'a>,
    List ListIter View<'a>,
    Map Pairs (View<'a>, View<'a>)
);

macro_rules! debug {
    ($($own:ident $variant:ident),*) => {$(
        impl fmt::Debug for $own<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                View::$variant(*self).fmt(f)
            }
        }
    )*};
}

debug!(Tuple Tuple, List List, Map Map, Record Record);

macro_rules! debug_rest {
    ($($iter:ident),*) => {$(
        impl fmt::Debug for $iter<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_list().entries(self.clone()).finish()
            }
        }
    )*};
}

debug_rest!(Elements, ListIter, Pairs);
