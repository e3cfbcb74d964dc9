//! The mapping in both directions, and what its errors say.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use ::bytes::Bytes;
use ::serde::de::DeserializeOwned;
use ::serde::{Deserialize, Serialize};
use proptest::prelude::*;

use super::{Record, from_term, from_value, to_term, to_value};
use crate::limits::{MAX_TERM_DEPTH, OUT_OF_BAND_BYTES};
use crate::wire::term::{Atom, Pid, Reference, Term, Value};
use crate::{serde as ours, term};

fn both<T: Serialize + DeserializeOwned + PartialEq + Debug>(rust: &T, value: Value) {
    assert_eq!(to_value(rust).unwrap(), value, "{rust:?}");
    assert_eq!(&from_value::<T>(value.clone()).unwrap(), rust, "{value}");
    assert_eq!(
        &from_term::<T>(&to_term(rust).unwrap()).unwrap(),
        rust,
        "{value}"
    );
}

fn read<T: DeserializeOwned>(value: Value) -> T {
    from_value(value).unwrap()
}

fn refused<T: DeserializeOwned + Debug>(value: Value) -> String {
    from_value::<T>(value).unwrap_err().to_string()
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Point {
    x: i32,
    y: Option<f64>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Pair(i32, String);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Meters(u64);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Nothing;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Stop,
    Get(String),
    Move(i32, i32),
    Draw { from: Point, to: Point },
}

#[test]
fn the_mapping() {
    both(&Point { x: 1, y: None }, term!(#{x => 1, y => undefined}));
    both(&Point { x: 1, y: Some(2.5) }, term!(#{x => 1, y => 2.5}));
    both(&Pair(1, "a".into()), term!({1, "a"}));
    both(&(1, true, 'x'), term!({1, true, 'x'}));
    both(&[1, 2, 3], term!({1, 2, 3}));
    both(&Meters(5), term!(5));
    both(&Nothing, term!(@"Nothing"));
    both(&Request::Stop, term!(stop));
    both(&Request::Get("k".into()), term!({get, "k"}));
    both(&Request::Move(1, -1), term!({move, 1, -1}));
    let draw = Request::Draw {
        from: Point { x: 0, y: None },
        to: Point { x: 1, y: Some(1.0) },
    };
    both(
        &draw,
        term!({draw, #{from => #{x => 0, y => undefined}, to => #{x => 1, y => 1.0}}}),
    );
    both(&(), term!(ok));
    both(&Some(5), term!(5));
    both(&None::<i32>, term!(undefined));
    both(&vec![1, 2], term!([1, 2]));
    both(&vec![1u8, 2], term!([1, 2]));
    both(&String::from("ä"), term!("ä"));
    both(&u128::MAX, (u128::MAX).into());
    both(&i128::MIN, (i128::MIN).into());
    both(&u64::MAX, (u64::MAX).into());
    both(&i64::MIN, (i64::MIN).into());
    both(&1.5f32, term!(1.5));
    both(
        &BTreeMap::from([((1, 2), vec!["a".to_owned()])]),
        term!(#{{1, 2} => ["a"]}),
    );
}

#[test]
fn results_are_those_of_erlang() {
    type Answer<T, E> = Result<T, E>;
    both(&Answer::<i32, String>::Ok(1), term!({ok, 1}));
    both(
        &Answer::<i32, String>::Err("no".into()),
        term!({error, "no"}),
    );
    both(&Answer::<(), Atom>::Ok(()), term!(ok));
    both(&Answer::<(), Atom>::Err("no".into()), term!({error, no}));
    both(&Answer::<i32, ()>::Err(()), term!(error));
    // Only a unit is left out, not what looks like one.
    both(&Answer::<Atom, ()>::Ok("ok".into()), term!({ok, ok}));
    both(&Answer::<Option<()>, ()>::Ok(None), term!({ok, undefined}));
}

#[test]
fn more_is_read_than_written() {
    assert_eq!(read::<String>(term!(joe)), "joe");
    assert_eq!(read::<String>(Value::string("jöe")), "jöe");
    assert_eq!(read::<String>(term!([])), "");
    assert_eq!(read::<Option<String>>(term!(nil)), None);
    assert_eq!(read::<f64>(term!(2)), 2.0);
    assert_eq!(read::<Vec<u8>>(term!("ab")), b"ab");
    assert_eq!(read::<(i32, i32)>(term!([1, 2])), (1, 2));
    let elixir = term!(#{@"__struct__" => @"Elixir.Point", "x" => 1, y => 2, z => 3});
    assert_eq!(read::<Point>(elixir), Point { x: 1, y: Some(2.0) });
    assert_eq!(read::<Point>(term!(#{x => 1})), Point { x: 1, y: None });
    assert_eq!(read::<Request>(term!("stop")), Request::Stop);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Either {
    Number(i64),
    Text(String),
    Many(Vec<Either>),
    Keyed(HashMap<String, bool>),
}

#[test]
fn values_suggest_a_type() {
    let number = || Either::Number(1);
    assert_eq!(read::<Either>(term!(1)), number());
    assert_eq!(read::<Either>(term!("a")), Either::Text("a".into()));
    assert_eq!(read::<Either>(term!(a)), Either::Text("a".into()));
    let many = Either::Many(vec![number(), Either::Many(vec![])]);
    assert_eq!(read::<Either>(term!([1, {}])), many);
    let keyed = Either::Keyed(HashMap::from([("a".into(), true)]));
    assert_eq!(read::<Either>(term!(#{a => true})), keyed);
    let json: serde_json::Value = read(term!({1, #{"a" => [undefined, 1.5]}}));
    assert_eq!(json, serde_json::json!([1, {"a": [null, 1.5]}]));
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct HttpRequest2 {
    method: Atom,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(with = "ours::record")]
    at: Point,
}

#[test]
fn structs_are_records_on_demand() {
    let request = || HttpRequest2 {
        method: "get".into(),
        body: None,
        at: Point { x: 1, y: Some(0.5) },
    };
    let tuple = term!({http_request2, get, undefined, {point, 1, 0.5}});
    both(&Record(request()), tuple.clone());
    both(&vec![Record(request())], term!([(tuple)]));
    both(&request(), term!(#{method => get, at => {point, 1, 0.5}}));
    // The kind of the outer one is not that of the inner ones.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Outer {
        inner: Point,
    }
    let outer = Outer {
        inner: Point { x: 1, y: None },
    };
    both(&Record(outer), term!({outer, #{x => 1, y => undefined}}));
    let json = serde_json::to_string(&Record(request())).unwrap();
    assert_eq!(json, r#"{"method":"get","at":{"x":1,"y":0.5}}"#);
    let back: Record<HttpRequest2> = serde_json::from_str(&json).unwrap();
    assert_eq!(back.0, request());

    let wrong = refused::<Record<Point>>(term!({pont, 1, 2}));
    assert_eq!(
        wrong,
        "expected the record point of 2 fields, got the tuple {pont,1,2}"
    );
    assert!(refused::<Record<Point>>(term!({point, 1})).contains("of 2 fields"));
    let deep = refused::<Record<Point>>(term!({point, a, 1}));
    assert_eq!(deep, "field `x`: expected i32, got the atom a");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Passing {
    pid: Pid,
    reference: Reference,
    atom: Atom,
    value: Value,
    term: Option<Term>,
    #[serde(with = "ours::bytes")]
    shared: Bytes,
    #[serde(with = "ours::bytes")]
    copied: Vec<u8>,
    #[serde(with = "ours::atom")]
    module: String,
}

fn passing() -> Passing {
    Passing {
        pid: Pid {
            node: "a@b".into(),
            id: 1,
            serial: 2,
            creation: 3,
        },
        reference: Reference {
            node: "a@b".into(),
            creation: 3,
            words: [1, 2].into(),
        },
        atom: "undefined".into(),
        value: term!({[a | b], #{1 => 2.5}}),
        term: Some(
            term!([1, (Value::binary(vec![7; OUT_OF_BAND_BYTES]))])
                .encode()
                .unwrap(),
        ),
        shared: vec![8; OUT_OF_BAND_BYTES].into(),
        copied: vec![1, 2, 255],
        module: "lists".into(),
    }
}

#[test]
fn terms_pass_as_they_are() {
    let rust = passing();
    let value = term!(#{
        pid => (&rust.pid),
        reference => (&rust.reference),
        atom => undefined,
        value => (&rust.value),
        term => (rust.term.as_ref().unwrap().decode()),
        shared => (&rust.shared),
        copied => <<1, 2, 255>>,
        module => lists,
    });
    both(&rust, value.clone());
    both(&rust.value, rust.value.clone());

    let written = to_value(&rust).unwrap();
    let shared = |value: &Value| {
        value
            .get(&term!(shared))
            .unwrap()
            .as_binary()
            .unwrap()
            .as_ptr()
    };
    assert_eq!(shared(&written), rust.shared.as_ptr());
    let term = to_term(&rust).unwrap();
    assert_eq!(term.blobs()[1].as_ptr(), rust.shared.as_ptr());
    assert_eq!(
        read::<Passing>(written).shared.as_ptr(),
        rust.shared.as_ptr()
    );
    let back: Passing = from_term(&term).unwrap();
    assert_eq!(back.shared.as_ptr(), rust.shared.as_ptr());
    // And out of the middle of a term.
    let small = to_term(&Passing {
        term: None,
        shared: vec![9; OUT_OF_BAND_BYTES - 1].into(),
        ..passing()
    })
    .unwrap();
    let whole = Term::from_external(small.to_external()).unwrap();
    let range = whole.skeleton().as_ptr_range();
    assert!(range.contains(&from_term::<Passing>(&whole).unwrap().shared.as_ptr()));

    assert_eq!(
        refused::<Pid>(term!(5)),
        "expected a pid, got the integer 5"
    );
    assert_eq!(
        refused::<Vec<Atom>>(term!(["a"])),
        "field `[0]`: expected an atom, got the binary <<\"a\">>"
    );
}

#[test]
fn other_formats_take_what_they_can() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Plain {
        atom: Atom,
        #[serde(with = "ours::bytes")]
        bytes: Bytes,
    }
    let plain = Plain {
        atom: "a".into(),
        bytes: Bytes::from_static(&[1, 2]),
    };
    let json = serde_json::to_string(&plain).unwrap();
    assert_eq!(json, r#"{"atom":"a","bytes":[1,2]}"#);
    assert_eq!(serde_json::from_str::<Plain>(&json).unwrap(), plain);
    let error = serde_json::to_string(&passing().pid).unwrap_err();
    assert!(
        error.to_string().contains("a pid can be written by"),
        "{error}"
    );
    let error = serde_json::from_str::<Value>("1").unwrap_err();
    assert!(
        error.to_string().contains("a term can be read by"),
        "{error}"
    );
}

/// A type that uses another format within this one.
#[test]
fn formats_within_each_other_do_not_mix() {
    struct Embedded(Atom);

    impl Serialize for Embedded {
        fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let json = serde_json::to_string(&self.0).unwrap();
            let value = to_value(&(&self.0, json)).unwrap();
            value.serialize(serializer)
        }
    }

    let value = to_value(&(Atom::new("b"), Embedded("a".into()))).unwrap();
    assert_eq!(value, term!({b, {a, "\"a\""}}));
}

#[test]
fn errors_say_where() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Team {
        users: Vec<User>,
        by_id: HashMap<u8, User>,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct User {
        name: String,
    }
    let joe = || term!(#{name => "joe"});
    let team = term!(#{users => [(joe()), (joe()), #{name => 5}]});
    assert_eq!(
        refused::<Team>(team),
        "field `users[2].name`: expected a string, got the integer 5"
    );
    let team = term!(#{users => [], by_id => #{7 => #{}}});
    assert_eq!(
        refused::<Team>(team),
        "field `by_id.7`: missing field `name`"
    );
    let team = term!(#{users => [], by_id => #{300 => {}}});
    assert_eq!(
        refused::<Team>(team),
        "field `by_id.key 300`: expected u8, got integer `300`"
    );
    let long = "x".repeat(100);
    let error = refused::<u8>(term!((long)));
    assert!(error.ends_with('…') && error.len() < 80, "{error}");
    let variants = "unknown variant `go`, expected one of `stop`, `get`, `move`, `draw`";
    assert_eq!(refused::<Request>(term!(go)), variants);
    assert_eq!(
        refused::<Request>(term!({move, 1})),
        "expected a tuple of move and 2 elements, got the tuple {move,1}"
    );
    assert_eq!(
        refused::<Request>(term!({get, 1})),
        "field `get`: expected a string, got the integer 1"
    );
    assert_eq!(
        refused::<Request>(term!({stop, 1})),
        "expected the atom stop, got the tuple {stop,1}"
    );
    assert!(refused::<Request>(term!(get)).contains("a tuple of get"));
    assert_eq!(
        refused::<bool>(term!("true")),
        "expected a boolean, got the binary <<\"true\">>"
    );
    assert!(refused::<(i32, i32)>(term!({ 1 })).contains("a tuple of 2"));
    assert!(refused::<()>(term!(no)).contains("the atom ok"));
    assert!(refused::<i64>(term!(1.0)).contains("the float 1.0"));
    assert!(refused::<u64>(term!(-1)).contains("u64"));

    let error = to_value(&vec![(1, f64::NAN)]).unwrap_err();
    assert_eq!(error.path(), "[0][1]");
    assert!(error.to_string().contains("NaN is no float"), "{error}");
    let error = to_term(&Atom::new("a".repeat(256))).unwrap_err();
    assert!(std::error::Error::source(&error).is_some());
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Nested {
    End,
    More(Box<Nested>),
}

#[test]
fn depth_is_bounded() {
    let work = || {
        let nested = |depth| (0..depth).fold(Nested::End, |inner, _| Nested::More(inner.into()));
        let deepest = nested(MAX_TERM_DEPTH);
        let term = to_term(&deepest).unwrap();
        assert_eq!(from_term::<Nested>(&term).unwrap(), deepest);
        let error = to_value(&nested(MAX_TERM_DEPTH + 1)).unwrap_err();
        assert!(error.to_string().contains("nested deeper"), "{error}");
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(work);
    thread.unwrap().join().unwrap();
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        numbers in prop::collection::vec(any::<(i128, u128, i64, u8)>(), 0..5),
        texts in prop::collection::btree_map(any::<String>(), any::<Option<char>>(), 0..5),
        floats in prop::collection::vec(any::<f32>().prop_filter("finite", |f| f.is_finite()), 0..5),
    ) {
        let rust = (numbers, texts, floats);
        let term = to_term(&rust).unwrap();
        prop_assert_eq!(from_term::<(_, _, _)>(&term).unwrap(), rust);
    }
}
