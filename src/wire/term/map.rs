//! Identities and remote references, exchanged in the encoded bytes.
//!
//! A VM writes its own name and creation into every pid, reference, port and fun. On the wire
//! the node may have another identity (`docs/internals.md`, "Identity"), so on the way out the
//! VM's identity becomes the wire's, and on the way in the wire's becomes the VM's. Where the
//! configuration asks for it, pids and references leave as remote references, terms that the
//! functions of `partisan` understand on any node.
//!
//! Native records and terms in a node's private encoding are refused both ways: the VM at the
//! other end need not know them.
//!
//! Runs of bytes between identifiers are copied as they are. A fun carries the length of its own
//! encoding; it is corrected when something inside has changed length.

use super::walk::{AtomText, Identifier, Kind, Token, Walker};
use super::{Form, TermError, tag};
use crate::limits::MAX_TERM_DEPTH;
use crate::wire::identity::Identity;

/// How a remote reference is written (`remote_ref_format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefFormat {
    /// `[Node | <<"#Pid<0.ID.SERIAL>">>]`
    ImproperList,
    /// `<<"partisan:pid:NODE:0.ID.SERIAL">>`
    Uri,
    /// `{partisan_remote_ref, Node, {encoded_pid, "<0.ID.SERIAL>"}}`
    Tuple,
}

/// What happens to identifiers that leave the node.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Identities under which the VM's own identifiers may appear.
    pub own: Vec<Identity>,
    /// The identity that replaces them.
    pub wire: Identity,
    /// Format in which pids leave, or `None` to leave them pids.
    pub pids: Option<RefFormat>,
    /// Format in which references leave, or `None` to leave them references.
    pub refs: Option<RefFormat>,
    /// Whether short URIs are padded to 65 bytes.
    pub uri_padding: bool,
}

/// What happens to identifiers that arrive.
#[derive(Debug, Clone)]
pub struct Inbound {
    /// The identity of this node on the wire.
    pub wire: Identity,
    /// The identity of the VM, which replaces it.
    pub local: Identity,
}

/// Node name of every VM that isn't distributed.
const UNNAMED: &str = "nonode@nohost";
/// Node name of identifiers of other undistributed VMs.
const FOREIGN: &str = "foreign@nohost";
/// Length to which URIs are padded. Beyond 64 bytes the VM shares a binary instead of copying it.
const PADDED: usize = 65;
const PADDING: u8 = 0x19;

/// Appends `term` to `out` as it leaves the node.
///
/// Funs keep the types of what they have captured: only identities are mapped there. On an
/// error nothing has been appended. The result may be longer than `term`; its length is for
/// the caller to check.
pub fn map_out(
    term: &[u8],
    form: Form,
    rules: &Outbound,
    out: &mut Vec<u8>,
) -> Result<(), TermError> {
    rewrite(term, form, out, |identifier, place, copy| {
        let own = rules
            .own
            .iter()
            .any(|own| own.creation == identifier.creation && identifier.node.is(&own.node));
        let format = match identifier.kind {
            Kind::Pid => rules.pids,
            Kind::Reference => rules.refs,
            Kind::Port => None,
        };
        let node = if own {
            AtomText::Utf8(&rules.wire.node)
        } else {
            identifier.node
        };
        match format {
            Some(format) if !place.in_fun => {
                let levels = match format {
                    RefFormat::Uri => 0,
                    RefFormat::ImproperList => 1,
                    RefFormat::Tuple => 2,
                };
                if place.depth + levels > MAX_TERM_DEPTH {
                    return Err(TermError::Depth(MAX_TERM_DEPTH));
                }
                let out = copy.replace(identifier);
                remote_reference(identifier, node, format, rules.uri_padding, out);
            }
            _ if own => write_identifier(identifier, &rules.wire, copy.replace(identifier)),
            _ => {}
        }
        Ok(())
    })
}

/// Appends `term` to `out` as the VM is to see it.
///
/// An undistributed VM takes every pid of `nonode@nohost` for its own, whichever VM it comes
/// from. Such identifiers get the node name `foreign@nohost`. On an error nothing has been
/// appended.
pub fn map_in(
    term: &[u8],
    form: Form,
    rules: &Inbound,
    out: &mut Vec<u8>,
) -> Result<(), TermError> {
    let Inbound { wire, local } = rules;
    let unnamed = &*local.node == UNNAMED;
    rewrite(term, form, out, |identifier, _, copy| {
        if identifier.creation == wire.creation && identifier.node.is(&wire.node) {
            if wire != local {
                write_identifier(identifier, local, copy.replace(identifier));
            }
        } else if unnamed
            // Creation 0 means any incarnation to the VM (`dec_get_node` in `external.c`).
            && (identifier.creation == local.creation || identifier.creation == 0)
            && identifier.node.is(UNNAMED)
        {
            let foreign = Identity::new(FOREIGN, identifier.creation);
            write_identifier(identifier, &foreign, copy.replace(identifier));
        }
        Ok(())
    })
}

/// Where an identifier stands.
struct Place {
    in_fun: bool,
    /// Containers around it.
    depth: u32,
}

/// A copy of a term that is being made, changed here and there.
struct Copying<'a> {
    term: &'a [u8],
    out: &'a mut Vec<u8>,
    /// Bytes of `term` that have been copied or replaced.
    done: usize,
    /// Length of `out` less `done`: what to add to an offset in `term` for that in `out`.
    shift: i64,
}

impl Copying<'_> {
    /// Copies what stands before the identifier, steps over it, and gives the place to write.
    fn replace(&mut self, identifier: &Identifier<'_>) -> &mut Vec<u8> {
        self.copy_to(identifier.start);
        self.done = identifier.end;
        self.out
    }

    fn copy_to(&mut self, end: usize) {
        if let Some(run) = self.term.get(self.done..end) {
            self.out.extend_from_slice(run);
            self.done = end;
        }
    }

    fn update_shift(&mut self) {
        self.shift = self.out.len() as i64 - self.done as i64;
    }
}

/// A fun whose end hasn't been reached.
struct OpenFun {
    size_at: usize,
    end: usize,
    /// The shift at the size field.
    shift: i64,
}

impl OpenFun {
    /// Corrects the size field, now that everything inside has been copied or will be as it is.
    fn close(&self, copy: &mut Copying<'_>) -> Result<(), TermError> {
        if copy.shift == self.shift {
            return Ok(());
        }
        let size = (self.end - self.size_at) as i64 + copy.shift - self.shift;
        let size = u32::try_from(size).map_err(|_| TermError::Fun("it has grown too large"))?;
        let at = (self.size_at as i64 + self.shift) as usize;
        if let Some(field) = copy.out.get_mut(at..at + 4) {
            field.copy_from_slice(&size.to_be_bytes());
        }
        Ok(())
    }
}

fn rewrite(
    term: &[u8],
    form: Form,
    out: &mut Vec<u8>,
    change: impl FnMut(&Identifier<'_>, Place, &mut Copying<'_>) -> Result<(), TermError>,
) -> Result<(), TermError> {
    let before = out.len();
    out.reserve(term.len());
    let result = rewrite_onto(term, form, out, change);
    if result.is_err() {
        out.truncate(before);
    }
    result
}

fn rewrite_onto(
    term: &[u8],
    form: Form,
    out: &mut Vec<u8>,
    mut change: impl FnMut(&Identifier<'_>, Place, &mut Copying<'_>) -> Result<(), TermError>,
) -> Result<(), TermError> {
    let mut walker = Walker::new(term, form, MAX_TERM_DEPTH)?;
    let mut copy = Copying {
        term,
        shift: out.len() as i64,
        out,
        done: 0,
    };
    let mut funs: Vec<OpenFun> = Vec::new();
    loop {
        let token = walker.next()?;
        let start = if token.is_some() {
            walker.start()
        } else {
            term.len()
        };
        while let Some(fun) = funs.pop_if(|fun| fun.end <= start) {
            fun.close(&mut copy)?;
        }
        let place = Place {
            in_fun: walker.in_fun(),
            depth: walker.depth(),
        };
        match token {
            Some(Token::Identifier(identifier)) => change(&identifier, place, &mut copy)?,
            Some(Token::Fun(fun)) => {
                funs.push(OpenFun {
                    size_at: fun.size_at,
                    end: fun.end,
                    shift: copy.shift,
                });
                change(&fun.creator, place, &mut copy)?;
            }
            Some(Token::Record(_)) => return Err(TermError::Foreign("a native record")),
            Some(Token::Local(_)) => {
                return Err(TermError::Foreign("a term in a private encoding"));
            }
            Some(_) => continue,
            None => break,
        }
        copy.update_shift();
    }
    copy.copy_to(term.len());
    Ok(())
}

/// Writes an identifier under another identity, in the tags with a creation of 32 bits.
fn write_identifier(identifier: &Identifier<'_>, identity: &Identity, out: &mut Vec<u8>) {
    let (words, creation_last) = match identifier.kind {
        Kind::Pid => {
            out.push(tag::NEW_PID);
            (None, true)
        }
        Kind::Port if identifier.numbers.len() == 8 => {
            out.push(tag::V4_PORT);
            (None, true)
        }
        Kind::Port => {
            out.push(tag::NEW_PORT);
            (None, true)
        }
        Kind::Reference => {
            out.push(tag::NEWER_REFERENCE);
            (Some((identifier.numbers.len() / 4) as u16), false)
        }
    };
    if let Some(words) = words {
        out.extend_from_slice(&words.to_be_bytes());
    }
    write_atom(&identity.node, out);
    if creation_last {
        out.extend_from_slice(identifier.numbers);
        out.extend_from_slice(&identity.creation.to_be_bytes());
    } else {
        out.extend_from_slice(&identity.creation.to_be_bytes());
        out.extend_from_slice(identifier.numbers);
    }
}

pub(super) fn write_atom(text: &str, out: &mut Vec<u8>) {
    match u8::try_from(text.len()) {
        Ok(length) => out.extend_from_slice(&[tag::SMALL_ATOM_UTF8, length]),
        Err(_) => {
            out.push(tag::ATOM_UTF8);
            // 255 characters are 1020 bytes at most.
            out.extend_from_slice(&(text.len() as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

fn remote_reference(
    identifier: &Identifier<'_>,
    node: AtomText<'_>,
    format: RefFormat,
    padding: bool,
    out: &mut Vec<u8>,
) {
    let pid = identifier.kind == Kind::Pid;
    let node = node.text();
    match format {
        RefFormat::ImproperList => {
            out.extend_from_slice(&[tag::LIST, 0, 0, 0, 1]);
            write_atom(&node, out);
            write_binary(out, |out| {
                out.extend_from_slice(if pid { b"#Pid<" } else { b"#Ref<" });
                write_numbers(identifier, out);
                out.push(b'>');
            });
        }
        RefFormat::Uri => write_binary(out, |out| {
            let start = out.len();
            out.extend_from_slice(if pid {
                b"partisan:pid:"
            } else {
                b"partisan:ref:"
            });
            out.extend_from_slice(node.as_bytes());
            out.push(b':');
            write_numbers(identifier, out);
            if padding && out.len() - start < PADDED {
                out.push(b':');
                out.resize(start + PADDED, PADDING);
            }
        }),
        RefFormat::Tuple => {
            out.extend_from_slice(&[tag::SMALL_TUPLE, 3]);
            write_atom("partisan_remote_ref", out);
            write_atom(&node, out);
            out.extend_from_slice(&[tag::SMALL_TUPLE, 2]);
            write_atom(if pid { "encoded_pid" } else { "encoded_ref" }, out);
            out.push(tag::STRING);
            write_sized(out, 2, |out| {
                out.extend_from_slice(if pid { b"<" } else { b"#Ref<" });
                write_numbers(identifier, out);
                out.push(b'>');
            });
        }
    }
}

fn write_binary(out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag::BINARY);
    write_sized(out, 4, content);
}

/// Writes `content` after a big-endian length of `width` bytes.
fn write_sized(out: &mut Vec<u8>, width: usize, content: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4][..width]);
    content(out);
    let length = ((out.len() - at - width) as u32).to_be_bytes();
    out[at..at + width].copy_from_slice(&length[4 - width..]);
}

/// `0.ID.SERIAL` or `0.W2.W1.W0`: what `pid_to_list/1` and `ref_to_list/1` print on the node
/// that owns the identifier. The words of a reference are printed last to first.
fn write_numbers(identifier: &Identifier<'_>, out: &mut Vec<u8>) {
    out.push(b'0');
    let (words, _) = identifier.numbers.as_chunks::<4>();
    let mut write = |word: &[u8; 4]| {
        out.push(b'.');
        write_decimal(u32::from_be_bytes(*word), out);
    };
    match identifier.kind {
        Kind::Reference => words.iter().rev().for_each(&mut write),
        Kind::Pid | Kind::Port => words.iter().for_each(&mut write),
    }
}

fn write_decimal(mut number: u32, out: &mut Vec<u8>) {
    let mut digits = [0; 10];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}
