//! The loop that reads a term token by token.
//!
//! A stack of counters takes the place of recursion: one entry per open container says how many
//! elements are still to come. Each element takes at least one byte, so a count that exceeds the
//! bytes left is refused where it is read; nothing is ever sized by a count alone.

mod plain;

use super::keys::distinct_fields;
use super::{Form, TermError, tag};
use crate::limits::{MAX_ATOM_CHARS, MAX_OLD_CREATION, OLD_REFERENCES, OUT_OF_BAND_BYTES};
use std::borrow::Cow;
use std::sync::Arc;

/// What stands at one position of a term. Containers announce how much follows.
#[derive(Debug, Clone, Copy)]
pub(super) enum Token<'a> {
    Integer,
    /// With its magnitude.
    Big(&'a [u8]),
    Float,
    Atom(AtomText<'a>),
    Nil,
    /// `STRING_EXT`: a list of bytes.
    String(&'a [u8]),
    Binary(&'a [u8]),
    /// A binary whose bytes are elsewhere.
    Blob(u32),
    Bits(&'a [u8]),
    Tuple(u32),
    /// That many elements, and then the tail.
    List(u32),
    /// That many keys, each followed by its value.
    Map(u32),
    Identifier(Identifier<'a>),
    Fun(Fun<'a>),
    Export {
        module: AtomText<'a>,
        function: AtomText<'a>,
        arity: u8,
    },
    Record(Record<'a>),
    /// A term in a node's private encoding, from its tag to its end.
    Local(&'a [u8]),
}

/// The text of an atom.
#[derive(Debug, Clone, Copy)]
pub(super) enum AtomText<'a> {
    Utf8(&'a str),
    /// Latin-1 with at least one character outside of ASCII.
    Latin1(&'a [u8]),
}

impl<'a> AtomText<'a> {
    /// The text in UTF-8, borrowed unless the encoding was Latin-1.
    pub(super) fn text(self) -> Cow<'a, str> {
        match self {
            Self::Utf8(text) => Cow::Borrowed(text),
            Self::Latin1(bytes) => Cow::Owned(bytes.iter().copied().map(char::from).collect()),
        }
    }

    pub(super) fn is(self, text: &str) -> bool {
        match self {
            Self::Utf8(own) => own == text,
            Self::Latin1(bytes) => text.chars().eq(bytes.iter().copied().map(char::from)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Pid,
    Reference,
    Port,
}

/// A pid, reference or port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identifier<'a> {
    pub(super) kind: Kind,
    pub(super) node: AtomText<'a>,
    pub(super) creation: u32,
    /// The big-endian numbers beside node and creation, as they stand in the term:
    /// id and serial; the words of a reference; the 4 or 8 bytes of a port.
    pub(super) numbers: &'a [u8],
    /// Where it stands in the term.
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The fixed part of a fun; its free variables follow as terms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fun<'a> {
    pub(super) module: AtomText<'a>,
    pub(super) creator: Identifier<'a>,
    pub(super) free: u32,
    /// Offset of the size field.
    pub(super) size_at: usize,
    /// Offset of the first byte after the fun.
    pub(super) end: usize,
}

/// The fixed part of a native record; the values of its fields follow as terms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) module: AtomText<'a>,
    pub(super) name: AtomText<'a>,
    pub(super) fields: u32,
    /// Where the names of the fields stand.
    names_at: usize,
}

/// An open container: elements to come, and for a fun the offset where it must end.
#[derive(Debug, Clone, Copy, Default)]
struct Open {
    left: u32,
    fun_end: u32,
}

const INLINE: usize = 12;

/// Reads one term from its version byte to its last.
#[derive(Debug)]
pub(super) struct Walker<'a> {
    bytes: &'a [u8],
    at: usize,
    start: usize,
    elided: bool,
    top: Open,
    depth: u32,
    /// Containers around the last token.
    level: u32,
    deepest: u32,
    max_depth: u32,
    funs: u32,
    /// Whether bytes may follow the term.
    prefix: bool,
    /// Whether identifiers may lack a node, as in a node's private encoding.
    private: bool,
    /// What references to the atom cache mean.
    atoms: &'a [Arc<str>],
    /// Offset and index of each such reference since the last [`Self::take_refs`].
    refs: Vec<(usize, u8)>,
    inline: [Open; INLINE],
    spilled: Vec<Open>,
}

impl<'a> Walker<'a> {
    /// Begins at the version byte.
    #[inline]
    pub(super) fn new(bytes: &'a [u8], form: Form, max_depth: u32) -> Result<Self, TermError> {
        if bytes.first() != Some(&tag::VERSION) {
            return Err(TermError::Version(bytes.first().copied()));
        }
        let mut walker = Self::within(bytes, 1, &[], max_depth)?;
        walker.elided = form == Form::Elided;
        walker.prefix = false;
        Ok(walker)
    }

    /// Begins at the tag of a term that stands at offset `at`. Other bytes may follow it, and
    /// its atoms may be references into `atoms`.
    // Inlined, as it would be moved otherwise, and it is large.
    #[inline(always)]
    pub(super) fn within(
        bytes: &'a [u8],
        at: usize,
        atoms: &'a [Arc<str>],
        max_depth: u32,
    ) -> Result<Self, TermError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(TermError::Size {
                bytes: bytes.len(),
                limit: u32::MAX as usize,
            });
        }
        Ok(Self {
            bytes,
            at,
            start: at,
            elided: false,
            top: Open {
                left: 1,
                fun_end: 0,
            },
            depth: 0,
            level: 0,
            deepest: 0,
            max_depth,
            funs: 0,
            prefix: true,
            private: false,
            atoms,
            refs: Vec::new(),
            inline: [Open::default(); INLINE],
            spilled: Vec::new(),
        })
    }

    /// Reads what is left of the term without a look at it.
    pub(super) fn finish(&mut self) -> Result<(), TermError> {
        while self.next()?.is_some() {}
        Ok(())
    }

    /// References to the atom cache that have been read since the last call.
    pub(super) fn take_refs(&mut self) -> std::vec::Drain<'_, (usize, u8)> {
        self.refs.drain(..)
    }

    /// Whether such references have been read.
    pub(super) fn has_refs(&self) -> bool {
        !self.refs.is_empty()
    }

    /// Names of the fields of a record, each of which has been read before.
    pub(super) fn names(
        &self,
        record: &Record<'a>,
    ) -> impl Iterator<Item = AtomText<'a>> + use<'a> {
        let mut walker = Self::within(self.bytes, record.names_at, self.atoms, 0).ok();
        (0..record.fields).map_while(move |_| walker.as_mut()?.expect_atom().ok())
    }

    /// Offset of the first byte that hasn't been read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Offset of the tag of the last token.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Whether the last token stands in the environment of a fun, or is a fun.
    pub(super) fn in_fun(&self) -> bool {
        self.funs > 0
    }

    /// Containers that are open.
    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    /// Containers around the last token, which may have opened one more.
    pub(super) fn level(&self) -> u32 {
        self.level
    }

    /// Most containers that were open at once.
    pub(super) fn deepest(&self) -> u32 {
        self.deepest
    }

    /// Whether the term has been read to its end, and nothing follows it.
    #[inline]
    pub(super) fn at_end(&self) -> bool {
        self.depth == 0 && self.top.left == 0 && self.at == self.bytes.len()
    }

    /// Steps over the free variables of the fun that was the last token. They stay unchecked.
    pub(super) fn skip_fun(&mut self, fun: &Fun<'_>) {
        self.at = fun.end;
        self.top.left = 0;
    }

    /// The next token, or `None` after the whole term has been read and nothing follows it.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Token<'a>>, TermError> {
        while self.top.left == 0 {
            if self.top.fun_end != 0 {
                if self.at != self.top.fun_end as usize {
                    return Err(TermError::Fun("its size is not what it claims"));
                }
                self.funs -= 1;
            }
            if self.depth == 0 {
                let rest = self.bytes.len() - self.at;
                return if rest == 0 || self.prefix {
                    Ok(None)
                } else {
                    Err(TermError::Trailing(rest))
                };
            }
            self.close();
        }
        self.top.left -= 1;
        self.start = self.at;
        self.level = self.depth;
        self.token().map(Some)
    }

    #[inline]
    fn token(&mut self) -> Result<Token<'a>, TermError> {
        let tag = self.u8()?;
        Ok(match tag {
            tag::SMALL_INTEGER => {
                self.u8()?;
                Token::Integer
            }
            tag::INTEGER => {
                self.u32()?;
                Token::Integer
            }
            tag::ATOM | tag::SMALL_ATOM | tag::ATOM_UTF8 | tag::SMALL_ATOM_UTF8 => {
                Token::Atom(self.atom(tag)?)
            }
            tag::BINARY => {
                let length = self.u32()?;
                if self.elided && self.funs == 0 && length as usize >= OUT_OF_BAND_BYTES {
                    Token::Blob(length)
                } else {
                    Token::Binary(self.take(length as usize)?)
                }
            }
            tag::SMALL_TUPLE => {
                let arity = self.u8()?.into();
                self.open(arity, arity.into())?;
                Token::Tuple(arity)
            }
            tag::LARGE_TUPLE => {
                let arity = self.u32()?;
                self.open(arity, arity.into())?;
                Token::Tuple(arity)
            }
            tag::NIL => Token::Nil,
            tag::LIST => {
                let length = self.u32()?;
                self.open(length, u64::from(length) + 1)?;
                Token::List(length)
            }
            tag::MAP => {
                let pairs = self.u32()?;
                self.open(pairs, u64::from(pairs) * 2)?;
                Token::Map(pairs)
            }
            tag::NEW_PID | tag::NEWER_REFERENCE | tag::NEW_PORT | tag::V4_PORT => {
                Token::Identifier(self.identifier(tag)?)
            }
            _ => self.rare(tag)?,
        })
    }

    /// The tags that are seldom or large. Kept apart so that the common ones stay small.
    #[inline(never)]
    fn rare(&mut self, tag: u8) -> Result<Token<'a>, TermError> {
        Ok(match tag {
            tag::STRING => {
                let length = self.u16()?.into();
                Token::String(self.take(length)?)
            }
            tag::NEW_FLOAT => {
                let float = f64::from_be_bytes(self.array()?);
                if !float.is_finite() {
                    return Err(TermError::Float);
                }
                Token::Float
            }
            tag::FLOAT => {
                numeral(self.take(31)?).ok_or(TermError::Float)?;
                Token::Float
            }
            tag::SMALL_BIG | tag::LARGE_BIG => {
                let length = if tag == tag::SMALL_BIG {
                    self.u8()?.into()
                } else {
                    self.u32()? as usize
                };
                // The sign.
                self.u8()?;
                Token::Big(self.take(length)?)
            }
            tag::BIT_BINARY => {
                let length = self.u32()? as usize;
                let last_bits = self.u8()?;
                if length == 0 || !(1..=8).contains(&last_bits) {
                    return Err(TermError::Bits(last_bits));
                }
                Token::Bits(self.take(length)?)
            }
            tag::PID | tag::REFERENCE | tag::NEW_REFERENCE | tag::PORT => {
                Token::Identifier(self.identifier(tag)?)
            }
            tag::NEW_FUN => Token::Fun(self.fun()?),
            tag::EXPORT => {
                let module = self.expect_atom()?;
                let function = self.expect_atom()?;
                let arity_tag = self.u8()?;
                if arity_tag != tag::SMALL_INTEGER {
                    return Err(TermError::Fun("its arity is not a small integer"));
                }
                Token::Export {
                    module,
                    function,
                    arity: self.u8()?,
                }
            }
            tag::RECORD => Token::Record(self.record()?),
            tag::LOCAL if !self.private => Token::Local(self.local()?),
            tag::CACHED_ATOM => Token::Atom(self.cached_atom()?),
            tag::COMPRESSED => return Err(TermError::Compressed),
            _ => {
                return Err(TermError::Tag {
                    tag,
                    at: self.start,
                });
            }
        })
    }

    fn atom(&mut self, tag: u8) -> Result<AtomText<'a>, TermError> {
        let length = match tag {
            tag::SMALL_ATOM_UTF8 | tag::SMALL_ATOM => self.u8()?.into(),
            _ => self.u16()?.into(),
        };
        let latin1 = matches!(tag, tag::ATOM | tag::SMALL_ATOM);
        let bytes = self.take(length)?;
        match std::str::from_utf8(bytes) {
            Ok(text) if !latin1 || text.is_ascii() => {
                if length > MAX_ATOM_CHARS && text.chars().count() > MAX_ATOM_CHARS {
                    return Err(TermError::AtomLength);
                }
                Ok(AtomText::Utf8(text))
            }
            _ if latin1 && length > MAX_ATOM_CHARS => Err(TermError::AtomLength),
            _ if latin1 => Ok(AtomText::Latin1(bytes)),
            _ => Err(TermError::AtomText),
        }
    }

    /// An index into the atoms that the distribution header before the term has named.
    #[cold]
    fn cached_atom(&mut self) -> Result<AtomText<'a>, TermError> {
        let at = self.at - 1;
        if self.atoms.is_empty() {
            let tag = tag::CACHED_ATOM;
            return Err(TermError::Tag { tag, at });
        }
        let index = self.u8()?;
        match self.atoms.get(usize::from(index)) {
            Some(text) => {
                self.refs.push((at, index));
                Ok(AtomText::Utf8(text))
            }
            None => Err(TermError::CachedAtom(index)),
        }
    }

    fn expect_atom(&mut self) -> Result<AtomText<'a>, TermError> {
        let at = self.at;
        match self.u8()? {
            tag @ (tag::ATOM | tag::SMALL_ATOM | tag::ATOM_UTF8 | tag::SMALL_ATOM_UTF8) => {
                self.atom(tag)
            }
            tag::CACHED_ATOM => self.cached_atom(),
            // `INTERNAL_LOCAL_NODE` in `external.c`.
            tag::NIL if self.private => Ok(AtomText::Utf8("")),
            tag => Err(TermError::Tag { tag, at }),
        }
    }

    /// The head of a native record (`RECORD_EXT`): count of fields, flags, module, name, and
    /// the names of all fields before the first value.
    fn record(&mut self) -> Result<Record<'a>, TermError> {
        let fields = self.u32()?;
        // A name takes two bytes at least, a value one.
        self.check(3 * u64::from(fields))?;
        match self.u8()? {
            0 | 1 => {}
            flags => return Err(TermError::RecordFlags(flags)),
        }
        let module = self.expect_atom()?;
        let name = self.expect_atom()?;
        let names_at = self.at;
        let mut names = Vec::new();
        for _ in 0..fields {
            names.push(self.expect_atom()?.text());
        }
        distinct_fields(names)?;
        self.open(fields, fields.into())?;
        Ok(Record {
            module,
            name,
            fields,
            names_at,
        })
    }

    /// Steps over a term in a node's private encoding (`LOCAL_EXT`): a hash of four bytes over
    /// the bytes that follow, which are one term whose own identifiers have `NIL_EXT` in place
    /// of the node. Only that node can tell whether the hash is right.
    #[inline(never)]
    fn local(&mut self) -> Result<&'a [u8], TermError> {
        let start = self.at - 1;
        self.take(4)?;
        if self.depth >= self.max_depth {
            return Err(TermError::Depth(self.max_depth));
        }
        let depth = self.max_depth - self.depth - 1;
        let mut inner = Self::within(self.bytes, self.at, &[], depth)?;
        inner.private = true;
        inner.finish().map_err(|error| match error {
            TermError::Depth(_) => TermError::Depth(self.max_depth),
            error => error,
        })?;
        self.at = inner.at;
        self.deepest = self.deepest.max(self.depth + 1 + inner.deepest);
        Ok(self.bytes.get(start..self.at).unwrap_or_default())
    }

    fn identifier(&mut self, tag: u8) -> Result<Identifier<'a>, TermError> {
        let start = self.at - 1;
        let words = match tag {
            tag::NEWER_REFERENCE | tag::NEW_REFERENCE => {
                let words = self.u16()?;
                if !(1..=5).contains(&words) {
                    return Err(TermError::Reference(words.into()));
                }
                usize::from(words)
            }
            _ => 1,
        };
        let node = self.expect_atom()?;
        let (kind, creation, numbers) = match tag {
            tag::NEW_PID => {
                let numbers = self.take(8)?;
                (Kind::Pid, self.u32()?, numbers)
            }
            tag::PID => {
                let numbers = self.take(8)?;
                (Kind::Pid, self.old_creation()?, numbers)
            }
            tag::NEWER_REFERENCE => (Kind::Reference, self.u32()?, self.take(4 * words)?),
            tag::NEW_REFERENCE => {
                let creation = self.old_creation()?;
                (Kind::Reference, creation, self.old_words(words)?)
            }
            tag::REFERENCE => {
                let numbers = self.old_words(1)?;
                (Kind::Reference, self.old_creation()?, numbers)
            }
            tag::V4_PORT => {
                let numbers = self.take(8)?;
                (Kind::Port, self.u32()?, numbers)
            }
            tag::NEW_PORT => {
                let numbers = self.take(4)?;
                (Kind::Port, self.u32()?, numbers)
            }
            tag::PORT => {
                let numbers = self.take(4)?;
                (Kind::Port, self.old_creation()?, numbers)
            }
            _ => return Err(TermError::Tag { tag, at: start }),
        };
        Ok(Identifier {
            kind,
            node,
            creation,
            numbers,
            start,
            end: self.at,
        })
    }

    /// `is_tiny_creation` in `external.c`.
    fn old_creation(&mut self) -> Result<u32, TermError> {
        match self.u8()? {
            creation @ 0..=MAX_OLD_CREATION => Ok(creation.into()),
            creation => Err(TermError::Creation(creation)),
        }
    }

    /// The words of a reference, the first of which is small (`MAX_REFERENCE`).
    fn old_words(&mut self, count: usize) -> Result<&'a [u8], TermError> {
        let words = self.take(4 * count)?;
        match words.first_chunk().map(|first| u32::from_be_bytes(*first)) {
            Some(first) if first >= OLD_REFERENCES => Err(TermError::OldReference(first)),
            _ => Ok(words),
        }
    }

    fn fun(&mut self) -> Result<Fun<'a>, TermError> {
        let size_at = self.at;
        let size = self.u32()?;
        let left = self.bytes.len() - size_at;
        // Size, arity, uniq, index, count of free variables.
        if size < 29 {
            return Err(TermError::Fun("its size is too small"));
        }
        if size as usize > left {
            return Err(TermError::Truncated {
                at: size_at,
                wanted: size.into(),
                left,
            });
        }
        self.take(1 + 16 + 4)?;
        let free = self.u32()?;
        let module = self.expect_atom()?;
        self.fun_integer()?;
        self.fun_integer()?;
        let creator = match self.u8()? {
            tag @ (tag::NEW_PID | tag::PID) => self.identifier(tag)?,
            _ => return Err(TermError::Fun("its creator is not a pid")),
        };
        let end = size_at + size as usize;
        self.check(free.into())?;
        self.push(Open {
            left: free,
            fun_end: end as u32,
        })?;
        self.funs += 1;
        Ok(Fun {
            module,
            creator,
            free,
            size_at,
            end,
        })
    }

    /// The old index and uniq of a fun. A uniq over 2^31 is written as a bignum.
    fn fun_integer(&mut self) -> Result<(), TermError> {
        match self.u8()? {
            tag::SMALL_INTEGER => self.take(1)?,
            tag::INTEGER => self.take(4)?,
            tag::SMALL_BIG => match self.u8()? {
                length @ 0..=4 => self.take(1 + usize::from(length))?,
                _ => return Err(TermError::Fun("its uniq is too large")),
            },
            _ => return Err(TermError::Fun("its index or uniq is not an integer")),
        };
        Ok(())
    }

    /// Opens a container of `count` things that take `elements` terms.
    #[inline]
    fn open(&mut self, count: u32, elements: u64) -> Result<(), TermError> {
        self.check(elements)?;
        if count == 0 && elements == 0 {
            return Ok(());
        }
        // The check has bounded it by the length of the term, which fits.
        self.push(Open {
            left: elements as u32,
            fun_end: 0,
        })
    }

    #[inline]
    fn check(&self, elements: u64) -> Result<(), TermError> {
        let left = self.bytes.len() - self.at;
        if elements > left as u64 {
            return Err(TermError::Truncated {
                at: self.at,
                wanted: elements,
                left,
            });
        }
        Ok(())
    }

    #[inline]
    fn push(&mut self, open: Open) -> Result<(), TermError> {
        self.enter(self.top, open)
    }

    /// Opens a container within `outer`.
    #[inline]
    fn enter(&mut self, outer: Open, open: Open) -> Result<(), TermError> {
        if self.depth >= self.max_depth {
            return Err(TermError::Depth(self.max_depth));
        }
        self.top = open;
        match self.inline.get_mut(self.depth as usize) {
            Some(slot) => *slot = outer,
            None => self.spilled.push(outer),
        }
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        Ok(())
    }

    #[inline]
    fn close(&mut self) {
        self.depth -= 1;
        self.top = match self.inline.get(self.depth as usize) {
            Some(outer) => *outer,
            None => self.spilled.pop().unwrap_or_default(),
        };
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], TermError> {
        match self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.get(..length))
        {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => Err(self.truncated(length)),
        }
    }

    #[cold]
    fn truncated(&self, wanted: usize) -> TermError {
        let left = self.bytes.len() - self.at;
        TermError::Truncated {
            at: self.at,
            wanted: wanted as u64,
            left,
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], TermError> {
        match self.bytes.get(self.at..).and_then(<[u8]>::first_chunk) {
            Some(chunk) => {
                self.at += N;
                Ok(*chunk)
            }
            None => Err(self.truncated(N)),
        }
    }

    #[inline]
    fn u8(&mut self) -> Result<u8, TermError> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    #[inline]
    fn u16(&mut self) -> Result<u16, TermError> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    fn u32(&mut self) -> Result<u32, TermError> {
        self.array().map(u32::from_be_bytes)
    }
}

/// The text of `FLOAT_EXT`, as `sprintf("%.20e")` writes it, padded with zeros.
///
/// The longest takes 28 bytes, so there is a zero: without one the VM reads on behind the field.
/// Digits, a point and digits are demanded as by the VM (`sys_chars_to_double`), which is
/// stricter than Rust's own parser.
pub(super) fn numeral(text: &[u8]) -> Option<f64> {
    let end = text.iter().position(|&byte| byte == 0)?;
    let text = text.get(..end)?;
    let digits = text
        .strip_prefix(b"-")
        .or(text.strip_prefix(b"+"))
        .unwrap_or(text);
    let point = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    if point == 0 || digits.get(point) != Some(&b'.') || !digits.get(point + 1)?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(text)
        .ok()?
        .parse()
        .ok()
        .filter(|float: &f64| float.is_finite())
}
