//! From a value to text.

use std::fmt::{self, Display, Formatter, Write};

use super::{RESERVED, RESERVED_LATER, begins_atom, within_atom};
use crate::limits::MAX_TERM_DEPTH;
use crate::wire::term::walk::{Token, Walker};
use crate::wire::term::{Form, Opaque, Pid, Port, Reference, Value, tag};

/// Floats from here on have no fraction, so that all their digits could be written; Erlang does
/// so only for those that are exact.
const EXACT: f64 = (1u64 << 53) as f64;

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        value(self, 0, f)
    }
}

/// `<Node.Id.Serial>`
impl Display for Pid {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('<')?;
        atom(&self.node, f)?;
        write!(f, ".{}.{}>", self.id, self.serial)
    }
}

/// `#Ref<Node.Word…>`
impl Display for Reference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("#Ref<")?;
        atom(&self.node, f)?;
        for word in self.words.iter().rev() {
            write!(f, ".{word}")?;
        }
        f.write_char('>')
    }
}

/// `#Port<Node.Id>`
impl Display for Port {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("#Port<")?;
        atom(&self.node, f)?;
        write!(f, ".{}>", self.id)
    }
}

/// `fun Module:Function/Arity` or `#Fun<Module>`
impl Display for Opaque {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let term = [&[tag::VERSION], &self.as_bytes()[..]].concat();
        let walker = Walker::new(&term, Form::Whole, u32::MAX);
        match walker.and_then(|mut walker| walker.next()) {
            Ok(Some(Token::Export {
                module,
                function,
                arity,
            })) => {
                f.write_str("fun ")?;
                atom(&module.text(), f)?;
                f.write_char(':')?;
                atom(&function.text(), f)?;
                write!(f, "/{arity}")
            }
            Ok(Some(Token::Fun(fun))) => {
                f.write_str("#Fun<")?;
                atom(&fun.module.text(), f)?;
                f.write_char('>')
            }
            _ => f.write_str("#Fun<>"),
        }
    }
}

fn value(value: &Value, depth: u32, f: &mut Formatter<'_>) -> fmt::Result {
    if depth > MAX_TERM_DEPTH {
        return f.write_str("...");
    }
    match value {
        Value::Atom(name) => atom(name.as_str(), f),
        Value::Integer(number) => write!(f, "{number}"),
        Value::BigInteger(number) => write!(f, "{number}"),
        Value::Float(number) => float(*number, f),
        Value::Binary(bytes) => binary(bytes, f),
        Value::Bits { bytes, last_bits } => bits(bytes, *last_bits, f),
        Value::Tuple(elements) => {
            f.write_char('{')?;
            sequence(elements, depth, f)?;
            f.write_char('}')
        }
        Value::List(elements) => match string(elements) {
            Some(text) if !f.alternate() => quoted(&text, '"', f),
            _ => {
                f.write_char('[')?;
                sequence(elements, depth, f)?;
                f.write_char(']')
            }
        },
        Value::ImproperList(elements, tail) => {
            f.write_char('[')?;
            sequence(elements, depth, f)?;
            f.write_char('|')?;
            self::value(tail, depth + 1, f)?;
            f.write_char(']')
        }
        Value::Map(pairs) => {
            f.write_str("#{")?;
            for (at, (key, value)) in pairs.iter().enumerate() {
                if at > 0 {
                    f.write_char(',')?;
                }
                self::value(key, depth + 1, f)?;
                f.write_str(" => ")?;
                self::value(value, depth + 1, f)?;
            }
            f.write_char('}')
        }
        Value::Pid(pid) => pid.fmt(f),
        Value::Reference(reference) => reference.fmt(f),
        Value::Port(port) => port.fmt(f),
        Value::Fun(fun) => fun.fmt(f),
        #[allow(
            unreachable_patterns,
            reason = "what is yet to come has some text, too"
        )]
        other => write!(f, "#Opaque<{other:?}>"),
    }
}

fn sequence(elements: &[Value], depth: u32, f: &mut Formatter<'_>) -> fmt::Result {
    for (at, element) in elements.iter().enumerate() {
        if at > 0 {
            f.write_char(',')?;
        }
        value(element, depth + 1, f)?;
    }
    Ok(())
}

/// An atom, in quotes if it needs them.
fn atom(text: &str, f: &mut Formatter<'_>) -> fmt::Result {
    let plain = text.starts_with(begins_atom)
        && text.chars().all(within_atom)
        && !RESERVED.contains(&text)
        && !RESERVED_LATER.contains(&text);
    if plain {
        f.write_str(text)
    } else {
        quoted(text, '\'', f)
    }
}

fn quoted(text: &str, quote: char, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_char(quote)?;
    for character in text.chars() {
        match character {
            '\\' => f.write_str("\\\\")?,
            _ if character == quote => write!(f, "\\{quote}")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            '\x0b' => f.write_str("\\v")?,
            '\x08' => f.write_str("\\b")?,
            '\x0c' => f.write_str("\\f")?,
            '\x1b' => f.write_str("\\e")?,
            '\x7f' => f.write_str("\\d")?,
            '\0'..='\x1f' | '\u{80}'..='\u{9f}' => write!(f, "\\{:03o}", u32::from(character))?,
            _ => f.write_char(character)?,
        }
    }
    f.write_char(quote)
}

/// Erlang's opinion on what can be read by humans.
fn printable(character: char) -> bool {
    matches!(
        character,
        '\x08'..='\r' | '\x1b' | ' '..='~' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..
    )
}

/// The text, if the list is one that is not empty.
fn string(elements: &[Value]) -> Option<String> {
    if elements.is_empty() {
        return None;
    }
    let character = |element: &Value| {
        let code = u32::try_from(element.as_i64()?).ok()?;
        char::from_u32(code).filter(|c| printable(*c))
    };
    elements.iter().map(character).collect()
}

/// The shortest digits that give the number again; with an exponent if that is shorter.
fn float(number: f64, f: &mut Formatter<'_>) -> fmt::Result {
    let exponential = format!("{number:e}");
    let Some((digits, exponent)) = exponential.split_once('e') else {
        // Not finite, so no term either.
        return write!(f, "{number}");
    };
    let point = if digits.contains('.') { "" } else { ".0" };
    let exponential = format!("{digits}{point}e{exponent}");
    let plain = format!("{number:?}");
    if number.abs() >= EXACT || plain.contains('e') || exponential.len() < plain.len() {
        f.write_str(&exponential)
    } else {
        f.write_str(&plain)
    }
}

fn binary(bytes: &[u8], f: &mut Formatter<'_>) -> fmt::Result {
    if !bytes.is_empty() && !f.alternate() {
        match std::str::from_utf8(bytes) {
            Ok(text) if text.chars().all(printable) => {
                f.write_str("<<")?;
                quoted(text, '"', f)?;
                return f.write_str(if text.is_ascii() { ">>" } else { "/utf8>>" });
            }
            Err(_) if bytes.iter().all(|byte| printable(char::from(*byte))) => {
                let text: String = bytes.iter().copied().map(char::from).collect();
                f.write_str("<<")?;
                quoted(&text, '"', f)?;
                return f.write_str(">>");
            }
            _ => {}
        }
    }
    bits(bytes, 8, f)
}

fn bits(bytes: &[u8], last_bits: u8, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str("<<")?;
    if let Some((last, whole)) = bytes.split_last() {
        for byte in whole {
            write!(f, "{byte},")?;
        }
        match last_bits {
            1..=7 => write!(f, "{}:{last_bits}", last >> (8 - last_bits))?,
            _ => write!(f, "{last}")?,
        }
    }
    f.write_str(">>")
}
