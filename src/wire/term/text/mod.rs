//! Terms as text, in Erlang's own syntax.
//!
//! [`Value`](super::Value) is read by [`str::parse`] and written by `{}`, which gives what
//! `io:format("~0tp")` gives on a VM that was started with `+pc unicode`: lists of printable
//! characters as strings, binaries of printable text as `<<"text">>` or `<<"täxt"/utf8>>`.
//! `{:#}` gives what `~tw` gives: numbers throughout. Pairs of maps keep the order of the value.
//!
//! ```
//! use partisan::Value;
//!
//! let value: Value = "{ok, [1, 16#ff, $a], #{name => <<\"joe\">>}}.".parse()?;
//! assert_eq!(value.to_string(), "{ok,[1,255,97],#{name => <<\"joe\">>}}");
//! assert_eq!(format!("{value:#}"), "{ok,[1,255,97],#{name => <<106,111,101>>}}");
//! # Ok::<(), partisan::TextError>(())
//! ```
//!
//! What is read: atoms, plain and quoted; integers with base, underscores and of any size; `$a`;
//! floats; strings; binaries and bitstrings of integers and strings with sizes and `/utf8`;
//! lists, also improper ones; tuples; maps, of which the last of equal keys counts;
//! `fun Module:Function/Arity`; comments; a dot at the end. What is not: whatever has to be
//! computed, such as variables and operators.
//!
//! What means one process or one moment is written, but not read, since its text does not hold
//! all of it (a pid's text lacks the creation of its node):
//!
//! | value | text |
//! |---|---|
//! | pid | `<'name@host'.Id.Serial>`, the node as Erlang writes that atom |
//! | reference | `#Ref<'name@host'.Word.Word.Word>`, the last word of the external format first |
//! | port | `#Port<'name@host'.Id>` |
//! | fun with an environment | `#Fun<module>` |
//!
//! The syntax is specified in the Erlang reference manual ("Data Types", "Bit Syntax
//! Expressions") and implemented in OTP's `erl_scan`, `erl_parse` and `io_lib`.

mod parse;
mod print;
#[cfg(test)]
mod tests;

/// Why a text is no term.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: expected {expected}, found {found}")]
pub struct TextError {
    /// The line, counted from 1.
    pub line: usize,
    /// The character within the line, counted from 1.
    pub column: usize,
    /// What stands there.
    pub found: String,
    /// What may stand there.
    pub expected: &'static str,
}

/// Words that are no atoms unless they are quoted.
const RESERVED: [&str; 27] = [
    "after", "and", "andalso", "band", "begin", "bnot", "bor", "bsl", "bsr", "bxor", "case",
    "catch", "cond", "div", "end", "fun", "if", "let", "not", "of", "or", "orelse", "receive",
    "rem", "try", "when", "xor",
];

/// Words that OTP 27 has reserved. They are quoted for its sake and read without quotes, too.
const RESERVED_LATER: [&str; 2] = ["else", "maybe"];

/// Whether an atom may begin with it without quotes: a small letter of Latin-1.
fn begins_atom(character: char) -> bool {
    matches!(character, 'a'..='z' | 'ß'..='ÿ') && character != '÷'
}

/// Whether it may stand in an atom without quotes.
fn within_atom(character: char) -> bool {
    begins_atom(character)
        || matches!(character, 'A'..='Z' | '0'..='9' | '_' | '@')
        || matches!(character, 'À'..='Þ') && character != '×'
}
