//! The macro `term!`.

/// A `Value`, written much as in Erlang.
///
/// | written | becomes |
/// |---|---|
/// | `ok`, `true` | an atom |
/// | `@"Elixir.Users"` | an atom of any text |
/// | `1`, `-2.5`, `'a'` | an integer, a float, a character's code |
/// | `"text"`, `b"bytes"` | a binary |
/// | `<<1, 2, 255>>` | a binary of those bytes |
/// | `{a, b}`, `[a, b]` | a tuple, a list |
/// | `[a, b \| tail]` | a list that goes on with `tail` |
/// | `#{key => value}` | a map |
/// | `(expression)` | what the Rust expression is [`Into::into`] a `Value` |
///
/// Text is a binary, as a literal and as a `&str` or `String` in parentheses; Erlang's own
/// strings are `(Value::string("text"))`. What isn't a single token in Rust belongs in
/// parentheses, too: variables, paths, calls. The macro takes lists element by element; one of
/// more than a hundred needs a larger `recursion_limit`, or an iterator:
/// `(numbers.collect::<Value>())`.
///
/// ```
/// use partisan::{Value, term};
///
/// let id = 7u64;
/// let value = term!({call, (id), [1, 2.5, "text"], #{a => 1, "b" => {}}});
/// assert_eq!(value.to_string(), r#"{call,7,[1,2.5,<<"text">>],#{a => 1,<<"b">> => {}}}"#);
///
/// let rest = term!([b, c]);
/// assert_eq!(term!([a | (&rest)]), term!([a, b, c]));
/// assert_eq!(term!([a | b]).to_string(), "[a|b]");
/// assert_eq!(term!(<<1, 2, 3>>), Value::binary(vec![1, 2, 3]));
/// assert_eq!(term!({-1, @"Elixir.Users", 'a'}).to_string(), "{-1,'Elixir.Users',97}");
/// assert_eq!(term!({(None::<i32>), (Some("x"))}), term!({undefined, "x"}));
/// assert_eq!(term!([((1..4).collect::<Value>())]), term!([[1, 2, 3]]));
/// ```
///
/// What is no term is refused with a hint:
///
/// ```compile_fail
/// partisan::term!({ok, a b});
/// ```
#[macro_export]
macro_rules! term {
    ($($tokens:tt)+) => { $crate::__term!(@next one [] $($tokens)+) };
    () => { ::std::compile_error!("`term!` needs a term; the empty tuple is `{}`") };
}

// The tokens of a container are taken one element at a time, since an element may be one token
// or several. The state is: what is being built, the expressions so far, the tokens to come.
// `@next` wants an element, `@then` a separator or the end.
#[doc(hidden)]
#[macro_export]
macro_rules! __term {
    // The end where an element may stand: behind a trailing comma or in an empty container.
    (@next tuple [$($done:expr,)*]) => {
        $crate::Value::Tuple(::std::vec![$($done,)*])
    };
    (@next list [$($done:expr,)*]) => {
        $crate::Value::List(::std::vec![$($done,)*])
    };
    (@next map [$($key:expr, $value:expr,)*]) => {
        $crate::Value::Map(::std::vec![$(($key, $value)),*])
    };

    (@next $kind:ident [$($done:tt)*] # {$($pairs:tt)*} $($rest:tt)*) => {
        $crate::__term!(@then $kind [$($done)* $crate::__term!(@next map [] $($pairs)*),] $($rest)*)
    };
    (@next $kind:ident [$($done:tt)*] {$($elements:tt)*} $($rest:tt)*) => {
        $crate::__term!(@then $kind [$($done)* $crate::__term!(@next tuple [] $($elements)*),] $($rest)*)
    };
    (@next $kind:ident [$($done:tt)*] [$($elements:tt)*] $($rest:tt)*) => {
        $crate::__term!(@then $kind [$($done)* $crate::__term!(@next list [] $($elements)*),] $($rest)*)
    };
    (@next $kind:ident [$($done:tt)*] ($value:expr) $($rest:tt)*) => {
        $crate::__term!(@then $kind [$($done)* $crate::Value::from($value),] $($rest)*)
    };
    (@next $kind:ident [$($done:tt)*] << $($byte:literal),* >> $($rest:tt)*) => {
        $crate::__term!(@then $kind [
            $($done)* $crate::Value::binary(::std::vec::Vec::<u8>::from([$($byte),*])),
        ] $($rest)*)
    };
    (@next $kind:ident [$($done:tt)*] @ $atom:literal $($rest:tt)*) => {
        $crate::__term!(@then $kind [$($done)* $crate::Value::atom($atom),] $($rest)*)
    };
    (@next $kind:ident [$($done:tt)*] $literal:literal $($rest:tt)*) => {
        $crate::__term!(@then $kind [$($done)* $crate::Value::from($literal),] $($rest)*)
    };
    (@next $kind:ident [$($done:tt)*] $atom:ident $($rest:tt)*) => {
        $crate::__term!(@then $kind [$($done)* $crate::Value::atom(::std::stringify!($atom)),] $($rest)*)
    };

    (@then one [$value:expr,]) => { $value };
    (@then list [$($done:tt)*] | $($tail:tt)+) => {
        $crate::Value::list_with_tail(
            ::std::vec![$($done)*],
            $crate::__term!(@next one [] $($tail)+),
        )
    };
    (@then map [$($done:tt)*] => $($rest:tt)+) => { $crate::__term!(@next value [$($done)*] $($rest)+) };
    (@then value [$($done:tt)*]) => { $crate::__term!(@next map [$($done)*]) };
    (@then value [$($done:tt)*] , $($rest:tt)*) => { $crate::__term!(@next map [$($done)*] $($rest)*) };
    (@then tuple [$($done:tt)*]) => { $crate::__term!(@next tuple [$($done)*]) };
    (@then tuple [$($done:tt)*] , $($rest:tt)*) => { $crate::__term!(@next tuple [$($done)*] $($rest)*) };
    (@then list [$($done:tt)*]) => { $crate::__term!(@next list [$($done)*]) };
    (@then list [$($done:tt)*] , $($rest:tt)*) => { $crate::__term!(@next list [$($done)*] $($rest)*) };

    (@$step:ident $kind:ident [$($done:tt)*] $($rest:tt)*) => {
        ::std::compile_error!(::std::concat!(
            "no term at `", ::std::stringify!($($rest)*),
            "`; Rust expressions belong in parentheses"
        ))
    };
}
