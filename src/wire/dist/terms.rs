//! Terms as they stand in packets: with references into the header's list of atoms, and in the
//! forms that old nodes write.

use crate::wire::reader;
use crate::wire::term::{Term, TermError, TermLimits};
use bytes::Bytes;
use std::sync::Arc;

/// The term whose tag stands at `start`, with its atoms written out, and its length there.
pub(super) fn normalise(
    bytes: &Bytes,
    start: usize,
    atoms: &[Arc<str>],
    limits: &TermLimits,
) -> Result<(Term, usize), TermError> {
    let mut input = bytes.get(start..).unwrap_or_default();
    let whole = input.len();
    let mut out = vec![131];
    let mut left: u64 = 1;
    // Funs say how long they are, which changes with the atoms in them.
    let mut funs: Vec<(usize, u64)> = Vec::new();
    let cut = |left: &[u8]| TermError::Truncated {
        at: start + whole - left.len(),
        wanted: 1,
        left: left.len(),
    };
    loop {
        while left == 0 {
            let Some((size_at, outer)) = funs.pop() else {
                let term = Term::from_external(out)?;
                return Ok((term, whole - input.len()));
            };
            let size = (out.len() - size_at) as u32;
            if let Some(field) = out.get_mut(size_at..size_at + 4) {
                field.copy_from_slice(&size.to_be_bytes());
            }
            left = outer;
        }
        left -= 1;
        let before = input;
        let short = || cut(before);
        let tag = reader::u8(&mut input).ok_or_else(short)?;
        let mut lookahead = input;
        let u32_at = |input: &mut &[u8]| reader::u32(input).ok_or_else(short);
        let (fixed, terms) = match tag {
            82 => {
                let place = reader::u8(&mut input).ok_or_else(short)?;
                let atom = atoms.get(usize::from(place)).ok_or(TermError::Tag {
                    tag,
                    at: start + whole - before.len(),
                })?;
                out.extend_from_slice(&[118]);
                out.extend_from_slice(&(atom.len() as u16).to_be_bytes());
                out.extend_from_slice(atom.as_bytes());
                continue;
            }
            97 => (1, 0),
            98 => (4, 0),
            70 => (8, 0),
            99 => (31, 0),
            106 => (0, 0),
            115 | 119 => (
                1 + reader::u8(&mut lookahead).ok_or_else(short)? as usize,
                0,
            ),
            100 | 118 | 107 => (
                2 + reader::u16(&mut lookahead).ok_or_else(short)? as usize,
                0,
            ),
            109 => (4 + u32_at(&mut lookahead)? as usize, 0),
            77 => (5 + u32_at(&mut lookahead)? as usize, 0),
            110 => (
                2 + reader::u8(&mut lookahead).ok_or_else(short)? as usize,
                0,
            ),
            111 => (5 + u32_at(&mut lookahead)? as usize, 0),
            104 => (1, u64::from(reader::u8(&mut lookahead).ok_or_else(short)?)),
            105 => (4, u64::from(u32_at(&mut lookahead)?)),
            108 => (4, u64::from(u32_at(&mut lookahead)?) + 1),
            116 => (4, u64::from(u32_at(&mut lookahead)?) * 2),
            113 => (0, 3),
            88 | 89 | 90 | 103 | 102 | 114 | 120 => {
                let mut tail = match tag {
                    88 | 120 => 12,
                    89 => 8,
                    103 => 9,
                    102 => 5,
                    90 => 4,
                    _ => 1,
                };
                out.push(tag);
                if tag == 90 || tag == 114 {
                    let words = reader::u16(&mut input).ok_or_else(short)?;
                    tail += 4 * usize::from(words);
                    out.extend_from_slice(&words.to_be_bytes());
                }
                node(&mut input, &mut out, atoms).ok_or_else(short)?;
                out.extend_from_slice(reader::bytes(&mut input, tail).ok_or_else(short)?);
                continue;
            }
            112 => {
                let fixed = reader::bytes(&mut input, 29).ok_or_else(short)?;
                let free = fixed.last_chunk().copied().map_or(0, u32::from_be_bytes);
                out.push(tag);
                funs.push((out.len(), left));
                if funs.len() > limits.depth as usize {
                    return Err(TermError::Depth(limits.depth));
                }
                out.extend_from_slice(fixed);
                left = 4 + u64::from(free);
                continue;
            }
            _ => {
                return Err(TermError::Tag {
                    tag,
                    at: start + whole - before.len(),
                });
            }
        };
        out.push(tag);
        out.extend_from_slice(reader::bytes(&mut input, fixed).ok_or_else(short)?);
        if terms > input.len() as u64 {
            return Err(cut(input));
        }
        left += terms;
    }
}

fn node(input: &mut &[u8], out: &mut Vec<u8>, atoms: &[Arc<str>]) -> Option<()> {
    let before = *input;
    let tag = reader::u8(input)?;
    let length = match tag {
        82 => {
            let atom = atoms.get(usize::from(reader::u8(input)?))?;
            out.push(118);
            out.extend_from_slice(&(atom.len() as u16).to_be_bytes());
            out.extend_from_slice(atom.as_bytes());
            return Some(());
        }
        115 | 119 => 2 + usize::from(reader::u8(input)?),
        100 | 118 => 3 + usize::from(reader::u16(input)?),
        _ => return None,
    };
    *input = before;
    out.extend_from_slice(reader::bytes(input, length)?);
    Some(())
}
